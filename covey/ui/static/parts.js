// Small things that several views show.

import { el, fill } from "./dom.js";
import { own } from "./format.js";

const STATES = {
  completed: "good", accepted: "good", connected: "good", committed: "good", decided: "good", working: "busy",
  running: "busy", collecting: "busy", aggregating: "busy", training: "busy", uploading: "busy", downloading: "busy",
  received: "busy", held: "wait", queued: "wait", invited: "wait", waiting: "wait", interrupted: "wait", away: "bad",
  stopped: "wait", left: "wait", failed: "bad", rejected: "bad", evicted: "bad", lost: "bad", late: "bad", declined: "bad",
};

/** A word for a state, in a colour that says the same. */
export const badge = (state) => el("span", { class: `badge ${own(STATES, state) ?? "wait"}` }, state || "unknown");

export const drill = (attack) => (attack ? el("span", { class: "badge drill" }, `drill: ${attack}`) : null);

/** Counts side by side as one bar; it says its numbers to who does not see it. Empty: nothing is counted. */
export function bar(counts, whole = 0) {
  const shown = counts.filter(([, count]) => count > 0);
  if (shown.length === 0) return null;
  const words = shown.map(([name, count]) => `${count} ${name}`).join(", ");
  const sum = shown.reduce((total, [, count]) => total + count, 0);
  const rest = Math.max(0, whole - sum);
  return el(
    "span",
    { class: "counts" },
    el(
      "span",
      { class: "bar", role: "img", "aria-label": words, title: words },
      shown.map(([name, count]) => el("span", { class: own(STATES, name) ?? "wait", grow: count })),
      rest > 0 ? el("span", { class: "rest", grow: rest }) : null,
    ),
    el("span", { class: "words" }, words),
  );
}

/** The last verdicts of a node, [round, verdict] each, the newest last. */
export function strip(verdicts) {
  if (verdicts.length === 0) return null;
  const words = verdicts.map(([round, verdict]) => `round ${round} ${verdict}`).join(", ");
  const marks = verdicts.map(([, verdict]) => el("span", { class: own(STATES, verdict) ?? "wait" }));
  return el("span", { class: "strip", role: "img", "aria-label": words, title: words }, marks);
}

/** How far something is. */
export function progress(done, whole, unit) {
  const text = whole ? `${done.toLocaleString("en")} of ${whole.toLocaleString("en")} ${unit}` : `${done} ${unit}`;
  return [el("progress", { value: Math.min(done, whole || 1), max: whole || 1, "aria-label": text }), ` ${text}`];
}

/**
 * A button that does something which takes a while; an error stands beside it. Meanwhile it cannot be pressed, and keeps
 * the focus, as `disabled` would not.
 */
export function button(text, work, kind = "") {
  const note = el("span", { class: "note", role: "alert" });
  const node = el("button", { type: "button", class: kind, "data-key": `button ${text}`, onclick: press }, text);
  let isBusy = false;
  function busy(value) {
    isBusy = value;
    node.setAttribute("aria-disabled", String(value));
  }
  async function press() {
    if (isBusy) return;
    busy(true);
    note.textContent = "";
    try {
      await work();
    } catch (error) {
      note.textContent = error.message;
    } finally {
      busy(false);
    }
  }
  return el("span", { class: "action" }, node, note);
}

/** What is read when it is opened, and by `reload()` as long as it is open. `build` makes elements of what `read` gives. */
export function opened(title, read, build) {
  const box = el("div", { class: "box" }, el("p", { class: "empty" }, "reading ..."));
  let isReading = false;
  const element = el("details", { ontoggle: reload }, el("summary", {}, title), box);
  async function reload() {
    if (!element.open || isReading) return;
    isReading = true;
    try {
      fill(box, await read(), build);
    } catch (error) {
      fill(box, { error: error.message }, () => el("p", { class: "error", role: "alert" }, error.message));
    } finally {
      isReading = false;
    }
  }
  return { element, reload };
}
