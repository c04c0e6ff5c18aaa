// One round: each answer, its verdict, and how the verdict's numbers lie among the others'.

import { get, ofRun } from "../api.js";
import { el, facts, fill, link, section, table } from "../dom.js";
import { bytes, metrics, moment, number, own, span } from "../format.js";
import { badge, button } from "../parts.js";
import { doing } from "./nodes.js";

/** A number, and where it is between the least and the largest of the round; the tick is the median. */
function among(value, spread) {
  if (typeof value !== "number" || !spread || spread.of < 2) return number(value);
  const width = spread.most - spread.least;
  const place = (each) => `${width > 0 ? (100 * (each - spread.least)) / width : 50}%`;
  const words = `${number(value)}; the others from ${number(spread.least)} to ${number(spread.most)}, median ${number(spread.median)}`;
  const tick = el("span", { class: "tick" });
  const point = el("span", { class: "point" });
  tick.style.left = place(spread.median);
  point.style.left = place(value);
  const scale = el("span", { class: "scale", role: "img", "aria-label": words, title: words }, tick, point);
  return el("span", { class: "among" }, number(value), scale);
}

function updateTable(page) {
  const names = Object.keys(page.spreads).slice(0, 6);
  const columns = [["node"], ["verdict"], ["share", "num"], ["weight", "num"], ["bytes", "num"], ...names.map((name) => [name, "num"]), ["training"], ["arrived"], ["why"]];
  const rows = page.updates.map((update) => [
    link(update.node, "node", update.node),
    [badge(update.verdict), own(page.capped, update.node) ? el("div", { class: "why" }, "its share is capped") : null],
    number(update.share),
    number(update.weight),
    bytes(update.bytes),
    ...names.map((name) => among(own(update.numbers, name), page.spreads[name])),
    Object.entries(update.metrics).map(([name, value]) => el("div", {}, `${name} `, among(value, own(page.metric_spreads, name)))),
    moment(update.received_at),
    update.reason,
  ]);
  return table("answers by node", columns, rows, "no answer yet");
}

const workTable = (nodes, now) =>
  table(
    "what the nodes do now",
    [["node"], ["does"], [""]],
    nodes.map((work) => [link(work.node, "node", work.node), badge(work.phase), doing(work, now)]),
  );

export function roundView(run, text) {
  const head = section(`Round ${text}`, link("the run", "run", run));
  const work = section("Now");
  const answers = section("Answers");
  const more = el("div", { class: "more" });
  const element = el("div", {}, head.element, work.element, answers.element, more);
  let after = "";

  async function refresh() {
    const page = await get(ofRun(run, "rounds", text), { after });
    const { round, version } = page;
    fill(head.box, [round, version], () =>
      facts([
        ["state", badge(round.state)],
        ["why", round.reason],
        ["attempt", round.attempt > 1 ? number(round.attempt) : ""],
        ["began", moment(round.started_at)],
        ["took", round.committed_at ? span(round.seconds) : ""],
        ["starts from version", number(round.base_version)],
        ["made version", version ? `${version.version} (${version.model_sha256.slice(0, 16)})` : ""],
        ["metrics", version ? metrics(version.metrics).join(", ") : metrics(round.metrics).join(", ")],
        ["bytes in and out", `${bytes(round.bytes_received)}, ${bytes(round.bytes_sent)}`],
        ["sent twice, as transfers broke", page.bytes_resent_up + page.bytes_resent_down ? bytes(page.bytes_resent_up + page.bytes_resent_down) : ""],
        ["invited", `${round.invited.length} nodes`],
      ]),
    );
    work.element.hidden = page.nodes.length === 0;
    fill(work.box, [page.nodes, Math.floor(page.now)], () => workTable(page.nodes, page.now));
    fill(answers.box, [page.updates, page.spreads], () => updateTable(page));
    fill(more, page.next, () => (page.next ? button("further nodes", async () => { after = page.next; await refresh(); }) : null));
    return round.committed_at ? 10000 : 1500;
  }
  return { title: `Round ${text}`, element, refresh };
}
