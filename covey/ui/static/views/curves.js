// A run's curves: which, and over what.

import { get, ofRun } from "../api.js";
import { Charts } from "../chart.js";
import { el, fill, section } from "../dom.js";
import { bytes, number, span } from "../format.js";

const STOPS = {
  target: ({ at, limit }) => `target ${number(limit)}, ${at === null ? "no value yet" : `${number(at)} at best`}`,
  patience: ({ at, limit }) => `${number(limit)} evaluations in a row that are no better, ${number(at)} so far`,
  bytes: ({ at, limit }) => `${bytes(limit)} of updates, ${bytes(at)} so far`,
  time_s: ({ at, limit }) => `${span(limit)} since its start, ${span(Math.max(0, at))} so far`,
};

/** The rules that end a run before its last round, and how near they are. */
const stopWords = (stops = []) => (stops.length === 0 ? "" : `stops at: ${stops.map((stop) => STOPS[stop.rule](stop)).join("; ")}`);

const AXES = ["rounds", "seconds", "bytes"];

/** `source`: `curves`, or `steps` of a gossip run, whose nodes have a curve each. */
export function curvesSection(run, source = "curves") {
  const axes = source === "steps" ? AXES.slice(0, 2) : AXES;
  const over = el("select", { id: "over", onchange: changed }, axes.map((name) => el("option", { value: name }, name === "rounds" && source === "steps" ? "steps" : name)));
  const note = el("span", { class: "note", role: "status" });
  const { element, box } = section("Curves", el("label", { for: "over" }, "over"), over, note);
  const choices = el("div", { class: "choices" });
  const drawn = el("div", { class: "charts" });
  const stops = el("p", { class: "why" });
  const empty = el("p", { class: "empty" }, "no value yet");
  box.append(choices, drawn, empty, stops);
  const charts = new Charts(drawn);
  const chosen = new Set();

  function changed() {
    refresh().catch((error) => { note.textContent = error.message; });
  }

  async function refresh() {
    const page = await get(ofRun(run, source), { over: over.value, metric: [...chosen] });
    const along = page.over === "rounds" ? page.unit : page.over; // of a record in part it may be another one than asked for
    const shown = page.charts.filter((chart) => source === "curves" || chosen.size === 0 || chosen.has(chart.name));
    if (chosen.size === 0 && page.is_whole) shown.forEach((chart) => chosen.add(chart.name));
    empty.hidden = charts.draw(shown, along);
    stops.textContent = stopWords(page.stops);
    const some = page.nodes > (page.charts[0]?.series.length ?? 0) ? `the first ${page.charts[0].series.length} of ${page.nodes} nodes` : "";
    note.textContent = page.is_whole ? some : `reading the record: ${page.read.toLocaleString("en")} of ${page.of.toLocaleString("en")} ${page.unit}`;
    fill(choices, page.names, () => (page.names.length > 3 ? page.names.map(choice) : null));
    return page.is_whole ? (page.ended ? 0 : 2000) : 300;
  }

  function choice(name) {
    const box = el("input", { type: "checkbox", "data-key": `metric ${name}`, onchange: toggle });
    box.checked = chosen.has(name);
    function toggle() {
      if (box.checked) chosen.add(name);
      else chosen.delete(name);
      changed();
    }
    return el("label", {}, box, ` ${name}`);
  }

  return { element, refresh, close: () => charts.close() };
}
