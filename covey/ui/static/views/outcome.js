// What a run came to that trains no model: how good one is on each node, or figures of the nodes' data.

import { get, ofRun } from "../api.js";
import { el, facts, fill, link, section, svg, table } from "../dom.js";
import { metrics, number, own } from "../format.js";
import { badge } from "../parts.js";

const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));

function evaluated(page) {
  const { metric } = page;
  const others = [...new Set(page.nodes.flatMap((node) => Object.keys(node.metrics)))].filter((name) => name !== metric);
  const gains = Object.entries(page.gains).map(([name, value]) => `${name} ${signed(value)}`);
  const withBaseline = page.nodes.some((node) => Object.keys(node.alone).length > 0);
  const alone = withBaseline ? [[`${metric} alone`, "num"], ["gain", "num"]] : [];
  const rows = page.nodes.map((node) => [
    link(node.node, "node", node.node),
    badge(node.verdict),
    node.verdict === "accepted" ? number(node.examples) : "",
    number(own(node.metrics, metric)),
    ...(withBaseline ? [number(own(node.alone, metric)), signed(own(node.gains, metric))] : []),
    others.filter((name) => Object.hasOwn(node.metrics, name)).map((name) => `${name} ${number(node.metrics[name])}`).join(", "),
    [node.reason, ...Object.entries(node.missing).map(([name, why]) => `no ${name}: ${why}`)].filter(Boolean).join("; "),
  ]);
  return [
    facts([
      ["all nodes together", metrics(page.metrics).join(", ")],
      ["what they trained alone", metrics(page.alone).join(", ")],
      ["mean gain of the nodes", gains.join(", ")],
      [`gain in ${metric}`, page.gaining.join(", ")],
      ["do not", page.not_gaining.join(", ")],
      ["central", metrics(page.central).join(", ")],
    ]),
    table("what each node measured", [["node"], ["answer"], ["examples", "num"], [metric || "metric", "num"], ...alone, ["others"], ["why not"]], rows, "nobody was asked yet"),
    page.nodes_count > page.nodes.length ? el("p", { class: "why" }, `${page.nodes.length} of ${page.nodes_count} nodes; all: covey run evaluation`) : null,
  ];
}

/** A histogram as bars; its numbers are in the titles, and in words for who does not see it. */
function bars(cells, name, of) {
  const most = Math.max(...cells, 1e-12);
  const width = 180 / cells.length;
  const drawn = cells.map((count, place) => {
    const height = (36 * count) / most;
    const bar = svg("rect", { x: place * width, y: 38 - height, width: Math.max(0.5, width - 1), height, class: "cell" });
    bar.append(svg("title", {}, `${of(place)}: ${number(count)}`));
    return bar;
  });
  const words = `${name}: ${cells.map((count, place) => `${of(place)} ${number(count)}`).join("; ")}`;
  return svg("svg", { viewBox: "0 0 180 40", class: "histogram", role: "img", "aria-label": words }, drawn);
}

const least = (record, q) => number(record[`q${q}`]);

function figures(page) {
  if (page.records === null) return el("p", { class: "empty" }, page.why);
  const columns = page.records.filter((record) => "column" in record);
  const labels = page.records.filter((record) => "label" in record);
  const head = [["column"], ["count", "num"], ["missing", "num"], ["mean", "num"], ["std", "num"], ["5 %", "num"], ["median", "num"], ["95 %", "num"], ["nodes"], ["histogram"]];
  const rows = columns.map((record) => [
    record.column,
    `${number(record.count)}${record.hides_missing ? "+" : ""}`,
    number(record.missing),
    number(record.mean),
    number(record.std),
    least(record, "0.05"), least(record, "0.5"), least(record, "0.95"),
    `${record.nodes} of ${record.nodes + record.silent}`,
    record.edges.length > 1 ? [
      bars(record.cells, record.column, (place) => `${number(record.edges[place])} to ${number(record.edges[place + 1])}`),
      el("div", { class: "why" }, `${number(record.edges[0])} to ${number(record.edges[record.edges.length - 1])}${record.hidden ? `; up to ${number(record.hidden)} in cells that are hidden` : ""}`),
    ] : "",
  ]);
  return [
    facts([["examples", number(page.examples)], ["of", `${page.nodes} nodes`]]),
    columns.length ? table("figures of each column", head, rows) : null,
    labels.length ? table("examples by label", [["label"], ["examples", "num"], ["nodes that hide it", "num"]], labels.map((record) => [String(record.label), number(record.count), record.nodes_hiding ? number(record.nodes_hiding) : ""])) : null,
  ];
}

const VIEWS = { evaluation: ["What each node measured", evaluated], statistics: ["Figures of the nodes' data", figures] };

/** `kind`: `evaluation` or `statistics`. It has what other runs' curves have. */
export function outcomeSection(run, kind) {
  const [title, build] = VIEWS[kind];
  const { element, box } = section(title);
  async function refresh() {
    const page = await get(ofRun(run, "outcome"));
    fill(box, page, () => build(page));
    return page.ended ? 0 : 3000;
  }
  return { element, refresh };
}
