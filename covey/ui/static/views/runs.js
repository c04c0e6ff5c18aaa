// All runs, the newest first.

import { get } from "../api.js";
import { el, fill, link, section, table } from "../dom.js";
import { ago, metricsLine } from "../format.js";
import { badge, button, progress } from "../parts.js";

const COLUMNS = [["run", "title"], ["state", "short"], ["progress", "short"], ["mode", "short"], ["metrics"], ["submitted", "short"], ["why"]];

export function runsView() {
  const { element, box } = section("Runs");
  const older = el("div", { class: "box" });
  const more = el("div", { class: "more" });
  element.append(older, more);
  let following = "";
  const earlier = [];

  async function refresh() {
    const page = await get("/api/runs");
    if (!earlier.length) following = page.next;
    fill(box, page.runs.map((run) => [run, minute(run, page.now)]), () => runsTable("runs", page.runs, page.now));
    offerMore();
    return page.runs.some((run) => !run.ended) ? 1500 : 4000;
  }

  async function readMore() {
    const page = await get("/api/runs", { before: following });
    following = page.next;
    earlier.push(...page.runs);
    fill(older, earlier, () => runsTable("older runs", earlier, page.now));
    offerMore();
  }

  function offerMore() {
    fill(more, following, () => (following ? button("older runs", readMore) : null));
  }

  return { title: "Runs", element, refresh };
}

const minute = (run, now) => Math.floor((now - (run.submitted_at ?? now)) / 60);

const runsTable = (name, runs, now) =>
  table(
    name,
    COLUMNS,
    runs.map((run) => [
      link(run.full_name, "run", run.run),
      [badge(run.state), run.priority && !run.ended ? el("div", { class: "why" }, `priority ${run.priority}`) : null],
      progress(run.done, run.whole, run.unit),
      run.kind || run.mode,
      metricsLine(run.metrics),
      ago(run.submitted_at, now),
      run.reason,
    ]),
    "no run yet: start one here, or with covey run submit",
  );
