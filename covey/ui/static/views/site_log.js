// What a node shares of its log about a run, a page at a time.

import { get, ofRun } from "../api.js";
import { el, fill, link, table } from "../dom.js";
import { moment } from "../format.js";
import { button, opened } from "../parts.js";

const COLUMNS = [["at"], ["round", "num"], ["kind"], ["text"]];

/**
 * A part that is read when it is opened. `choices()`: what can be chosen, as [value, text] (an empty value cannot);
 * `of(value)`: the run and the node that this is; `none`: what is said where there is no choice.
 */
export function siteLog(title, label, choices, of, none) {
  const select = el("select", { "aria-label": `${title}: ${label}`, onchange: () => show(0) });
  const part = opened(title, read, lines);
  part.element.querySelector("summary").after(el("p", { class: "choices" }, `${label} `, select));
  let before = 0;

  async function read() {
    const offered = await choices();
    const chosen = select.value;
    fill(select, offered, () => offered.map(([value, text]) => el("option", { value, disabled: value === "" }, text)));
    if (offered.some(([value]) => value === chosen)) select.value = chosen;
    else before = 0;
    for (;;) {
      const asked = [select.value, before];
      if (!asked[0]) return null;
      const { run, node } = of(asked[0]);
      const page = await get(ofRun(run, "site-log"), { node, before: before || undefined });
      // Something else may have been chosen meanwhile.
      if (asked[0] === select.value && asked[1] === before) return { ...page, run, node, before };
    }
  }

  function lines(page) {
    if (page === null) return el("p", { class: "empty" }, none);
    const rows = page.lines.map((line) => [moment(line.at), line.round ? link(String(line.round), "run", page.run, "round", line.round) : "", line.kind, el("code", { class: "line" }, line.text)]);
    return [
      page.explanation ? el("p", { class: "why" }, page.explanation) : null,
      rows.length || !page.explanation ? table(`log of ${page.node}, in the order of its lines`, COLUMNS, rows, "no line yet") : null,
      page.before ? button("newest lines", () => show(0)) : null,
      page.next ? button("earlier lines", () => show(page.next)) : null,
    ];
  }

  function show(number) {
    before = number;
    return part.reload();
  }

  return part;
}
