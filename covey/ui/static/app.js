// The page: which view the address names, how it is kept fresh, and whether the coordinator answers.

import { status } from "./api.js";
import { el } from "./dom.js";
import { compareView } from "./views/compare.js";
import { eventsView } from "./views/events.js";
import { nodeView, nodesView } from "./views/nodes.js";
import { roundView } from "./views/round.js";
import { runView } from "./views/run.js";
import { runsView } from "./views/runs.js";
import { submitView } from "./views/submit.js";

const RETRY_MS = 1500;
const STATUS_MS = 2000;
const main = document.getElementById("main");
const banner = document.getElementById("banner");
const coordinator = document.getElementById("coordinator");

/** The view of an address: `{title, element, refresh() -> ms until the next, close()}`. */
function viewOf(parts) {
  const [page = "runs", first = "", second = "", third = ""] = parts;
  if (page === "run" && second === "round") return roundView(first, third);
  if (page === "run") return runView(first);
  if (page === "nodes") return nodesView();
  if (page === "node") return nodeView(first);
  if (page === "events") return eventsView();
  if (page === "compare") return compareView(first, second);
  if (page === "submit") return submitView();
  return runsView();
}

function addressParts() {
  try {
    return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

let view = null;

async function keepFresh(shown) {
  const trouble = el("p", { class: "error", role: "alert", hidden: true });
  main.prepend(trouble);
  while (view === shown) {
    let wait = RETRY_MS;
    try {
      wait = await shown.refresh();
      trouble.hidden = true;
    } catch (error) {
      // That the coordinator or the server is away is said at the top; what was read stays.
      trouble.textContent = error.message ?? String(error);
      trouble.hidden = error.away === true || error.gone === true;
      if (error.gone || error.away) checkStatus();
      if (!("status" in error)) console.error(error);
    }
    await pause(wait);
  }
}

/** Wait so long, and then until somebody looks at the page. */
async function pause(ms) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

function navigate() {
  if (location.hash === "#main") return;
  view?.close?.();
  const parts = addressParts();
  view = viewOf(parts);
  main.replaceChildren(view.element);
  document.title = `${view.title} - Covey`;
  for (const anchor of document.querySelectorAll("nav a")) {
    const isHere = anchor.getAttribute("href") === `#/${parts[0] ?? "runs"}`;
    if (isHere) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  keepFresh(view);
}

let wasAway = false;

function tell(text, kind) {
  if (banner.textContent !== text) banner.textContent = text;
  banner.className = `banner ${kind}`;
  banner.hidden = text === "";
}

async function checkStatus() {
  try {
    const known = await status();
    const now = known.coordinator;
    coordinator.textContent = now
      ? `${known.where}: ${now.state}, ${now.nodes_connected} nodes connected, covey ${now.version}, as ${known.identity}`
      : known.where;
    coordinator.dataset.live = known.live;
    if (known.live) {
      const paused = now && now.state !== "running" ? `the coordinator is ${now.state}: no round is opened` : "";
      tell(wasAway ? "the coordinator answers again" : paused, wasAway ? "good" : "warn");
      wasAway = false;
    } else {
      wasAway = true;
      tell(`${known.message}; looking for a coordinator`, "warn");
    }
  } catch (error) {
    coordinator.dataset.live = false;
    tell(error.message, "bad");
    wasAway = true;
  }
}

async function watchStatus() {
  for (;;) {
    await checkStatus();
    await pause(STATUS_MS);
  }
}

window.addEventListener("hashchange", navigate);
watchStatus();
navigate();
