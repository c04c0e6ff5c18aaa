// All nodes, and one.

import { get, post } from "../api.js";
import { confirmed, el, facts, fill, link, section, table } from "../dom.js";
import { ago, bytes, moment, span } from "../format.js";
import { badge, bar, button, drill } from "../parts.js";
import { eventTable } from "./events.js";
import { siteLog } from "./site_log.js";

const LOG_EVERY_S = 5;
const COUNTED = ["accepted", "rejected", "declined", "lost", "late"];

/** How far a node is with what it does in a run, and how fast. */
export function doing(work, now) {
  const seconds = work.since ? Math.max(0, now - work.since) : 0;
  const steps = work.steps ? `${work.step} of ${work.steps}, ` : "";
  const pace = work.phase === "training" && work.step && seconds > 0.5 ? `${(work.step / seconds).toPrecision(3)} steps/s, ` : "";
  const moved = work.bytes_received || work.bytes_sent;
  const traffic = moved ? `; ${bytes(work.bytes_received)} from it, ${bytes(work.bytes_sent)} to it` : "";
  return `${steps}${pace}for ${span(seconds)}${traffic}`;
}

const works = (node, now) =>
  node.work.map((work) =>
    el("div", {}, link(work.name, "run", work.run), ` round ${work.round}: `, badge(work.phase), ` ${doing(work, now)}`),
  );

export function nodesView() {
  const { element, box } = section("Nodes");
  const more = el("div", { class: "more" });
  element.append(more);
  let after = [""];

  async function refresh() {
    const pages = await Promise.all(after.map((name) => get("/api/nodes", { after: name })));
    const nodes = pages.flatMap((page) => page.nodes);
    const { next, now } = pages[pages.length - 1];
    fill(box, [nodes, Math.floor(now / 2)], () => nodesTable(nodes, now));
    fill(more, next, () => (next ? button("more nodes", async () => { after = [...after, next]; await refresh(); }) : null));
    return 2000;
  }
  return { title: "Nodes", element, refresh };
}

const nodesTable = (nodes, now) =>
  table(
    "nodes",
    [["node"], ["state", "short"], ["does now"], ["updates"], ["last seen", "short"], ["why not"], ["version"], ["device"]],
    nodes.map((node) => [
      [link(node.node, "node", node.node), " ", drill(node.drill)],
      badge(node.state),
      works(node, now),
      bar(COUNTED.map((name) => [name, node[name]])),
      ago(node.last_seen_at, now),
      node.last_reason,
      node.version,
      node.device,
    ]),
    "no node is enrolled yet: covey coordinator token",
  );

export function nodeView(name) {
  const { element, box } = section(`Node ${name}`);
  const happened = section("What happened to it");
  const log = siteLog("Its log", "run", runs, (run) => ({ run, node: name }), "it takes part in none of the newest runs");
  const wrapper = el("div", {}, element, el("section", {}, log.element), happened.element);
  let logDue = 0;

  async function runs() {
    const page = await get("/api/node/runs", { name });
    const shown = page.runs.map(({ run, name: text, state }) => [run, `${text} (${run}, ${state})`]);
    return page.more ? [...shown, ["", `of earlier runs: covey run logs RUN --node ${name}`]] : shown;
  }

  async function evict() {
    const question = `Evict ${name}? It is shut out at once and for good; its updates so far stay.`;
    if (await confirmed(question, `Evict ${name}`)) await post("/api/evict", name);
  }

  async function refresh() {
    const { node, events, now } = await get("/api/node", { name });
    fill(box, [node, Math.floor(now / 2)], () => [
      facts([
        ["state", [badge(node.state), " ", drill(node.drill)]],
        ["does now", works(node, now)],
        ["updates", bar(COUNTED.map((word) => [word, node[word]]))],
        ["last seen", ago(node.last_seen_at, now)],
        ["last answer that did not count", node.last_reason],
        ["enrolled", moment(node.enrolled_at)],
        ["certificate valid until", new Date(node.certificate_expires_at * 1000).toLocaleDateString()],
        ["version", node.version],
        ["device", node.device],
        ["memory", node.memory_bytes ? bytes(node.memory_bytes) : ""],
        ["GPU memory", node.gpu_memory_bytes ? bytes(node.gpu_memory_bytes) : ""],
        ["runs at once", node.max_runs || ""],
        ["tasks", node.tasks.join(", ")],
      ]),
      node.state === "evicted" ? null : button("Evict", evict, "danger"),
    ]);
    if (now >= logDue) {
      logDue = now + LOG_EVERY_S;
      log.reload();
    }
    fill(happened.box, events, () => eventTable(`events of ${name}`, events));
    return 2500;
  }
  return { title: `Node ${name}`, element: wrapper, refresh };
}
