// A gossip run: its nodes in a ring, what went along each edge, and whether all mass is there.

import { get, ofRun } from "../api.js";
import { el, facts, fill, link, section, svg, table } from "../dom.js";
import { number, span } from "../format.js";
import { badge, drill } from "../parts.js";

const SIZE = 420;
const RADIUS = 160;
const MOST_NODES = 48;

/** Nodes on a ring; an edge is as wide as many models went along it, and as strong as much was given. */
function picture(parts, edges, rates) {
  const names = parts.map((part) => part.node).slice(0, MOST_NODES);
  const places = new Map(names.map((name, place) => {
    const angle = (2 * Math.PI * place) / names.length - Math.PI / 2;
    return [name, [SIZE / 2 + RADIUS * Math.cos(angle), SIZE / 2 + RADIUS * Math.sin(angle)]];
  }));
  const shown = edges.filter((edge) => places.has(edge.from) && places.has(edge.to));
  const most = Math.max(1, ...shown.map((edge) => edge.batches));
  const heaviest = Math.max(1e-12, ...shown.map((edge) => edge.given ?? 0));
  const lines = shown.map((edge) => {
    const [[x1, y1], [x2, y2]] = [places.get(edge.from), places.get(edge.to)];
    const bend = 0.12;
    const middle = [(x1 + x2) / 2 + bend * (y2 - y1), (y1 + y2) / 2 - bend * (x2 - x1)];
    const line = svg("path", {
      d: `M${x1},${y1} Q${middle[0]},${middle[1]} ${x2},${y2}`,
      class: edge.agrees ? "edge" : "edge wrong",
      "stroke-width": 0.5 + (5 * edge.batches) / most,
      "stroke-opacity": 0.25 + (0.75 * (edge.given ?? 0)) / heaviest,
    });
    line.append(svg("title", {}, edgeWords(edge, rates)));
    return line;
  });
  const dots = parts.slice(0, MOST_NODES).map((part) => {
    const [x, y] = places.get(part.node);
    const outward = x < SIZE / 2 - 1 ? "end" : x > SIZE / 2 + 1 ? "start" : "middle";
    const name = svg("text", { x: x + (x - SIZE / 2) * 0.1, y: y + (y - SIZE / 2) * 0.1 + 4, "text-anchor": outward }, part.node);
    const dot = svg("circle", { cx: x, cy: y, r: 7, class: `node ${part.state}` });
    dot.append(svg("title", {}, `${part.node}: ${part.state}, step ${part.step}, mass ${number(part.weight)}`));
    return svg("g", {}, dot, name);
  });
  const label = `${names.length} nodes and ${shown.length} edges; the table below has the same`;
  return svg("svg", { viewBox: `-60 -10 ${SIZE + 120} ${SIZE + 20}`, class: "graph", role: "img", "aria-label": label }, lines, dots);
}

/** A life of a node: one that lost its record comes back with the next number. */
const life = (name, number) => (number > 1 ? `${name} (incarnation ${number})` : name);
const sender = (edge) => life(edge.from, edge.from_life);
const receiver = (edge) => life(edge.to, edge.to_life);
const keyOf = (edge) => JSON.stringify([edge.from, edge.from_life, edge.to, edge.to_life]);
const rateOf = (edge, rates) => rates.get(keyOf(edge));

function edgeWords(edge, rates) {
  const rate = rateOf(edge, rates);
  const pace = rate === undefined ? "" : `, ${number(rate)} models a minute now`;
  return `${sender(edge)} to ${receiver(edge)}: ${edge.batches} models, ${number(edge.given)} given, ${number(edge.had)} had${pace}`;
}

const partTable = (page) =>
  table(
    "nodes of this run",
    [["node"], ["state"], ["step", "num"], ["mass", "num"], ["loss", "num"], ["between trainings", "num"], ["stated"], ["why"]],
    page.parts.map((part) => [
      [link(part.node, "node", part.node), part.metrics.drill ? [" ", drill("adversary")] : null],
      badge(part.state),
      number(part.step),
      page.mass.weighs === "mass" ? number(part.weight) : "",
      number(part.metrics.loss),
      part.trained_s ? `${((100 * part.blocked_s) / (part.trained_s + part.blocked_s)).toFixed(1)} %` : "",
      part.received_at ? `${span(Math.max(0, page.now - part.received_at))} ago` : "nothing yet",
      [part.reason, part.filters.length ? `passes ${part.filters.join(", ")}` : ""].filter(Boolean).join("; "),
    ]),
  );

const edgeTable = (page, rates) =>
  table(
    "what went along each edge",
    [["from"], ["to"], ["models", "num"], ["a minute", "num"], ["given", "num"], ["had", "num"], ["under way", "num"], ["accounts"]],
    page.edges.map((edge) => [
      sender(edge), receiver(edge), number(edge.batches), number(rateOf(edge, rates)), number(edge.given), number(edge.had), number(edge.waiting),
      edge.agrees ? "agree" : el("strong", {}, "do not agree"),
    ]),
    "nothing was exchanged yet",
  );

function massFacts(mass) {
  if (mass.weighs !== "mass") return facts([["accounts", mass.exact ? "agree: each model was had once" : "CONTRADICT each other"]]);
  return facts([
    ["mass", mass.exact ? "all accounted for" : "not all accounted for at this moment"],
    ["live", number(mass.live)], ["in flight", number(mass.in_flight)], ["minted", number(mass.minted)],
    ["lost", number(mass.lost)], ["uncertain", number(mass.uncertain)],
    ["contradictions", mass.findings.join("; ")],
  ]);
}

export function gossipSection(run) {
  const { element, box } = section("Exchanges");
  const account = el("div", {});
  const graph = el("div", {});
  const parts = el("div", {});
  const edges = el("div", {});
  box.append(account, graph, parts, el("details", {}, el("summary", {}, "edges as a table"), edges));
  let before = null;
  const rates = new Map();

  function measure(page) {
    if (before && page.now - before.now > 4) {
      const counts = new Map(before.edges.map((edge) => [keyOf(edge), edge.batches]));
      for (const edge of page.edges) {
        const name = keyOf(edge);
        rates.set(name, (60 * (edge.batches - (counts.get(name) ?? 0))) / (page.now - before.now));
      }
    }
    if (!before || page.now - before.now > 4) before = page;
  }

  async function refresh() {
    const page = await get(ofRun(run, "gossip"));
    measure(page);
    fill(account, page.mass, () => [
      massFacts(page.mass),
      el("p", { class: "why" }, "While nodes work, their statements are of different moments; the audit compares what is signed."),
    ]);
    fill(graph, [page.parts, page.edges], () => [
      picture(page.parts, page.edges, rates),
      el("p", { class: "why" }, `An edge is as wide as many models went along it, and as strong as much ${page.mass.weighs === "mass" ? "mass" : "weight"} was given; its numbers are in the table.`),
    ]);
    fill(parts, [page.parts, Math.floor(page.now / 2)], () => partTable(page));
    fill(edges, [page.edges, [...rates]], () => [
      edgeTable(page, rates),
      page.more_edges ? el("p", { class: "why" }, `and ${page.more_edges} edges more: covey gossip audit`) : null,
    ]);
  }
  return { element, refresh };
}
