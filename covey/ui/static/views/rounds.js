// A run's rounds (of an asynchronous run: its assignments), a page at a time.

import { get, ofRun } from "../api.js";
import { el, fill, link, section, table } from "../dom.js";
import { bytes, metricsLine, moment, span } from "../format.js";
import { badge, bar, button } from "../parts.js";

const VERDICTS = ["accepted", "received", "rejected", "declined", "lost", "late"];
const COLUMNS = [["round", "num"], ["state"], ["answers"], ["took", "num"], ["in", "num"], ["out", "num"], ["version", "num"], ["metrics"], ["why"]];

const OPEN = ["collecting", "aggregating"];

/** How the answers of a round stand; of an open one with what the nodes do now. */
function answers(item, working) {
  const counts = VERDICTS.map((name) => [name, item[name]]);
  const phases = new Map();
  for (const work of item.state === "collecting" ? working.filter((work) => work.round === item.round) : []) {
    phases.set(work.phase, (phases.get(work.phase) ?? 0) + 1);
  }
  return bar([...counts, ...phases], item.invited.length);
}

function row(run, item, working, now) {
  const attempt = item.attempt > 1 ? ` (attempt ${item.attempt})` : "";
  const missing = Object.entries(item.missing).map(([name, why]) => `no ${name} (${why})`);
  return [
    link(String(item.round), "run", run, "round", item.round),
    [badge(item.state), attempt],
    answers(item, working),
    item.committed_at ? span(item.seconds) : item.started_at && OPEN.includes(item.state) ? `${span(Math.max(0, now - item.started_at))} so far` : "",
    bytes(item.bytes_received),
    bytes(item.bytes_sent),
    item.version || "",
    [metricsLine(item.metrics), missing.length ? el("div", { class: "why" }, missing.join(", ")) : null],
    item.reason || item.last_reason,
  ];
}

export function roundsSection(run) {
  const newest = el("button", { type: "button", hidden: true, onclick: () => show(0) }, "newest");
  const { element, box } = section("Rounds", newest);
  const more = el("div", { class: "more" });
  element.append(more);
  let before = 0;

  async function refresh(working) {
    const page = await get(ofRun(run, "rounds"), { before: before || undefined, limit: 25 });
    newest.hidden = before === 0;
    const isOpen = page.rounds.some((item) => OPEN.includes(item.state));
    const first = page.rounds[0];
    const name = first ? `rounds from ${first.round} down, begun ${moment(first.started_at)}` : "rounds";
    fill(box, [page.rounds, working, isOpen ? Math.floor(page.now) : 0], () =>
      table(name, COLUMNS, page.rounds.map((item) => row(run, item, working, page.now)), "no round yet"),
    );
    fill(more, page.next, () => (page.next ? button("earlier rounds", () => show(page.next)) : null));
  }

  async function show(number) {
    before = number;
    await refresh([]);
  }

  return { element, refresh };
}
