// Two runs beside each other: what differs in their specifications, and their curves in one picture.

import { get, ofRun } from "../api.js";
import { Charts } from "../chart.js";
import { el, fill, link, section, table } from "../dom.js";
import { metricsLine, number } from "../format.js";
import { badge, progress } from "../parts.js";

const shown = (value, isThere) => (isThere ? el("code", {}, number(value) || JSON.stringify(value)) : el("span", { class: "empty" }, "not set"));

export function compareView(first, second) {
  const head = section("Two runs");
  const keys = section("What differs in their specifications");
  const curves = section("Curves");
  const drawn = el("div", { class: "charts" });
  const note = el("p", { class: "why", role: "status" });
  curves.box.append(note, drawn);
  const charts = new Charts(drawn);
  const element = el("div", {}, head.element, keys.element, curves.element);

  function labels(page) {
    const twice = page.first.full_name === page.second.full_name;
    return [page.first, page.second].map((run) => (twice ? `${run.full_name} (${run.run})` : run.full_name));
  }

  async function refresh() {
    const page = await get("/api/differences", { first, second });
    fill(head.box, [page.first, page.second], () => runTable([page.first, page.second]));
    fill(keys.box, page.differences, () => keyTable(page.differences, labels(page)));
    const both = await Promise.all([page.first, page.second].map((run) => get(ofRun(run.run, run.unit === "steps" ? "steps" : "curves"))));
    const names = [...new Set(both.flatMap((each) => each.charts.map((chart) => chart.name)))];
    const along = both[0].unit === both[1].unit ? both[0].unit : "rounds, updates or steps";
    charts.draw(names.map((name) => ({ name, series: series(name, both, labels(page)) })), along);
    const isWhole = both.every((each) => each.is_whole);
    note.textContent = isWhole ? "" : "reading the record";
    if (!isWhole) return 100;
    return page.first.ended && page.second.ended ? 30000 : 2500;
  }

  return { title: "Two runs", element, refresh, close: () => charts.close() };
}

const series = (name, both, labels) =>
  both.flatMap((each, place) => {
    const chart = each.charts.find((item) => item.name === name);
    if (!chart) return [];
    return chart.series.map((item) => ({ ...item, label: chart.series.length > 1 ? `${labels[place]}: ${item.label}` : labels[place] }));
  });

const runTable = (runs) =>
  table(
    "the two runs",
    [["run"], ["state"], ["progress"], ["metrics"], ["model"]],
    runs.map((run) => [link(run.full_name, "run", run.run), badge(run.state), progress(run.done, run.whole, run.unit), metricsLine(run.metrics, 6), el("code", {}, run.model_sha256.slice(0, 16))]),
  );

const keyTable = (differences, labels) =>
  table(
    "keys that differ",
    [["key"], [labels[0]], [labels[1]]],
    differences.map((item) => [el("code", {}, item.key), shown(item.first, item.in[0]), shown(item.second, item.in[1])]),
    "nothing: the specifications are the same",
  );
