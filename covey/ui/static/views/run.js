// One run: how far it is, its curves, what its nodes do, its rounds, and whether its record can be trusted.

import { get, ofRun, post } from "../api.js";
import { address, confirmed, el, facts, fill, link, section, table } from "../dom.js";
import { ago, metrics, moment, number, own } from "../format.js";
import { badge, bar, button, drill, opened, progress, strip } from "../parts.js";
import { curvesSection } from "./curves.js";
import { gossipSection } from "./gossip.js";
import { doing } from "./nodes.js";
import { outcomeSection } from "./outcome.js";
import { roundsSection } from "./rounds.js";
import { siteLog } from "./site_log.js";

const COUNTED = ["accepted", "rejected", "declined", "lost", "late"];
const AUDITED_SHOWN = 20;

function privacyWords(privacy) {
  if (!privacy) return "";
  if (privacy.epsilon === null) return "no version has spent any yet";
  const of = privacy.budget ? ` of ${number(privacy.budget)}` : "";
  const kind = privacy.simulated ? " (simulated: the noise was drawn from the seed, so nobody is protected)" : "";
  return `epsilon ${number(privacy.epsilon)}${of}, delta ${number(privacy.delta)}${kind}`;
}

/** Of RUN@VERSION. */
const parentLink = (parent) => link(parent, "run", parent.slice(0, parent.lastIndexOf("@")));

function runFacts({ run, coordinated, privacy, now }) {
  const missing = Object.entries(run.missing).map(([name, why]) => `no ${name}: ${why}`);
  return facts([
    ["state", badge(run.state)],
    ["progress", progress(run.done, run.whole, run.unit)],
    ["why", run.reason],
    ["metrics", run.kind === "evaluation" ? "" : metrics(run.metrics).filter((text) => !text.startsWith("privacy/")).join(", ")],
    ["missing metrics", missing.join("; ")],
    ["privacy spent", privacyWords(privacy)],
    ["mode", run.kind ? `${run.mode}, ${run.kind}` : run.mode],
    ["priority", run.priority ? number(run.priority) : ""],
    ["began with", run.parent ? parentLink(run.parent) : ""],
    ["newest model", coordinated && run.model_sha256 ? `version ${run.model_version}, sha256 ${run.model_sha256.slice(0, 16)}` : ""],
    ["submitted", ago(run.submitted_at, now)],
    ["began", moment(run.started_at)],
    ["ended", moment(run.ended_at)],
    ["id", el("code", {}, run.run)],
  ]);
}

const workTable = (working, now) =>
  table(
    "what the nodes do now",
    [["node"], ["does"], [""], ["round", "num"]],
    working.map((work) => [
      [link(work.node, "node", work.node), " ", drill(work.drill)],
      badge(work.phase),
      doing(work, now),
      String(work.round),
    ]),
    "nobody is at work for it",
  );

const moreWords = (shown, count) => (count > shown.length ? ` and ${number(count - shown.length)} more` : "");

const awayWords = ({ away, away_count: count, now }) =>
  count === 0 ? null : el("p", { class: "why" }, `not connected: ${away.map((node) => `${node.node} (${node.state}, heard ${ago(node.since, now)})`).join(", ")}${moreWords(away, count)}`);

const nowParts = (page) => {
  const more = moreWords(page.at_work, page.at_work_count);
  return [workTable(page.at_work, page.now), more ? el("p", { class: "why" }, `${more}: covey node list`) : null, awayWords(page)];
};

const contributionTable = ({ contributions, verdicts, drills }, size) => [
  table(
    "what each node contributed",
    [["node"], ["asked", "num"], ["answers"], ["last verdicts"], ["last that did not count"]],
    contributions.map((item) => [
      [link(item.node, "node", item.node), " ", drill(own(drills, item.node))],
      number(item.asked),
      bar(COUNTED.map((name) => [name, item[name]]), item.asked),
      strip(own(verdicts, item.node) ?? []),
      item.last_round ? [`round ${item.last_round}: `, badge(item.last_verdict), ` ${item.last_reason}`] : "",
    ]),
    "no node took part yet",
  ),
  size > contributions.length ? el("p", { class: "why" }, `${contributions.length} of ${size} nodes; all: covey run show --all`) : null,
];

async function auditReport(run) {
  const report = await get(ofRun(run, "audit"));
  const counted = [`${report.commits} commits`, `${report.updates} updates`, report.statements ? `${report.statements} statements` : ""];
  const lines = (texts) => el("ul", {}, texts.slice(0, AUDITED_SHOWN).map((text) => el("li", {}, text)));
  return [
    el("p", {}, badge(report.ok ? "accepted" : "failed"), ` ${report.ok ? "everything that is shown agrees with what was signed" : `${report.problems.length} problems`}: ${counted.filter(Boolean).join(", ")} checked ${moment(report.at)}, at ${report.done} ${report.unit}`),
    lines(report.problems),
    report.notes.length ? el("p", { class: "why" }, "what no signature covers:") : null,
    lines(report.notes),
  ].filter(Boolean);
}

function logTable(page) {
  const rows = page.lines.map((line) => [moment(line.at), line.what, line.node ? link(line.node, "node", line.node) : "", line.text]);
  const columns = [["at"], ["what"], ["node"], ["detail"]];
  const note = `of the newest ${page.rounds} rounds; all: covey run logs --all`;
  return [table("what happened, the newest first", columns, rows), el("p", { class: "why" }, note)];
}

function compareWith(run) {
  return opened("Compare with another run", () => get("/api/runs", { limit: 100 }), ({ runs }) => {
    const others = runs.filter((other) => other.run !== run);
    if (others.length === 0) return el("p", { class: "empty" }, "there is no other run");
    return el("ul", {}, others.map((other) => el("li", {}, el("a", { href: address("compare", run, other.run) }, `${other.full_name} (${other.run}, ${other.state})`))));
  }).element;
}

export function runView(run) {
  const title = el("h1", {}, "Run");
  const head = el("div", { class: "box" });
  const actions = el("p", { class: "buttons" });
  const now = section("Now");
  const contributions = section("Nodes");
  const audit = section("Audit", button("Check everything that is signed", async () => audit.box.replaceChildren(...(await auditReport(run)))));
  const log = opened("What happened", () => get(ofRun(run, "log")), logTable);
  const sites = siteLog("Logs of its nodes", "node", async () => roster, (node) => ({ run, node }), "no node takes part yet");
  const specification = opened("Specification", () => get(ofRun(run)), (page) => el("pre", { tabindex: "0" }, JSON.stringify(page.run.spec, null, 2)));
  const live = el("div", {});
  const element = el("div", {}, el("section", {}, title, head, actions), live, now.element, contributions.element, audit.element, ...[log.element, sites.element, specification.element, compareWith(run)].map((part) => el("section", {}, part)));
  let curves = null;
  let exchange = null;
  let isDrawn = false;
  let working = [];
  let roster = [];
  let nodesDue = 0;
  let logDue = 0;
  let hadEnded = false;
  let isClosed = false;

  function assemble({ coordinated, run: { kind } }) {
    curves = kind ? outcomeSection(run, kind) : curvesSection(run, coordinated ? "curves" : "steps");
    exchange = coordinated ? roundsSection(run) : gossipSection(run);
    live.append(curves.element, exchange.element);
    now.element.hidden = contributions.element.hidden = !coordinated;
  }

  async function stop(name) {
    if (await confirmed(`Stop run ${name}? It cannot be started again; its committed versions stay.`, "Stop the run")) {
      await post(ofRun(run, "stop"));
      await refresh();
    }
  }

  function continuing({ full_name: name, unit }) {
    const count = el("input", { type: "number", min: "1", value: "10", "aria-label": `${unit} more`, "data-key": "more" });
    async function goOn() {
      if (!(await confirmed(`Queue a new run that begins with the newest model of ${name}, of ${count.value} ${unit}?`, "Continue"))) return;
      location.hash = address("run", (await post(ofRun(run, "continue"), count.value)).run);
    }
    return el("span", { class: "action" }, button("Continue", goOn, "main"), " ", count, ` ${unit} more`);
  }

  async function refresh() {
    const page = await get(ofRun(run));
    if (isClosed) return 0;
    const { ended } = page.run;
    roster = page.run.roster.map((name) => [name, name]);
    if (page.run.roster_size > roster.length) roster.push(["", `of the other nodes: covey run logs ${run} --node NODE`]);
    if (curves === null) assemble(page);
    title.textContent = page.run.full_name;
    document.title = `${page.run.full_name}: ${page.run.state} - Covey`;
    fill(head, [page.run, page.privacy, Math.floor(page.now / 5)], () => runFacts(page));
    fill(actions, ended, () => (ended ? (page.coordinated && !page.run.kind ? continuing(page.run) : null) : button("Stop the run", () => stop(page.run.full_name), "danger")));
    await exchange.refresh(working);
    // Of a run that has ended nothing new comes: its curves are read until they are whole.
    const again = isDrawn ? 0 : await curves.refresh();
    isDrawn = ended && again === 0;
    if (page.coordinated && (page.now >= nodesDue || ended !== hadEnded)) await showNodes(page.run);
    if (page.now >= logDue || ended !== hadEnded) {
      logDue = page.now + (ended ? 60 : 5);
      log.reload();
      sites.reload();
    }
    hadEnded = ended;
    return ended ? again || 10000 : Math.min(again || 1000, 1000);
  }

  async function showNodes({ ended, roster_size: size }) {
    const page = await get(ofRun(run, "nodes"));
    working = page.at_work;
    nodesDue = page.now + (ended ? 60 : 2);
    now.element.hidden = ended;
    fill(now.box, [page.at_work, page.at_work_count, page.away, page.away_count, Math.floor(page.now)], () => nowParts(page));
    fill(contributions.box, [page.contributions, page.verdicts, page.drills], () => contributionTable(page, size));
  }

  function close() {
    isClosed = true;
    curves?.close?.();
  }

  return { title: "Run", element, refresh, close };
}
