// Elements of the page. All text goes in as text: no string becomes markup anywhere.

const SVG = "http://www.w3.org/2000/svg";

function furnish(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "grow") node.style.flexGrow = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/** An element with attributes (`onclick` and the like: listeners) and children; strings are text. */
export const el = (tag, props = {}, ...children) => furnish(document.createElement(tag), props, children);

/** The same of an SVG picture. */
export const svg = (tag, props = {}, ...children) => furnish(document.createElementNS(SVG, tag), props, children);

/** A link to a view of this page: each part of its address is escaped. */
export const link = (text, ...parts) => el("a", { href: address(...parts), "data-key": `link ${parts.join(" ")}` }, text);

export const address = (...parts) => `#/${parts.map((part) => encodeURIComponent(part)).join("/")}`;

const filled = new WeakMap();

/**
 * Put into a box what `build(data)` makes, unless the data are as they were: who reads or uses what is there is not
 * disturbed. The focus stays on the element with the same `data-key`.
 */
export function fill(box, data, build) {
  const text = JSON.stringify(data);
  if (filled.get(box) === text) return;
  filled.set(box, text);
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  box.replaceChildren(...[build(data)].flat(Infinity).filter((child) => child !== null && child !== undefined));
  if (focused === undefined) return;
  const again = [...box.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused);
  again?.focus({ preventScroll: true });
}

/** A section with a heading, and the box for what it shows. */
export function section(title, ...aside) {
  const box = el("div", { class: "box" });
  const head = el("div", { class: "head" }, el("h2", {}, title), aside);
  return { element: el("section", {}, head, box), box };
}

/** Whether there is nothing to see in a cell, or in all of several. */
const isBlank = (cell) => (Array.isArray(cell) ? cell.every(isBlank) : cell === null || cell === undefined || cell === false || cell === "" || cell === " ");

/** What is in a cell, several things as one. */
const inside = (cell) => (Array.isArray(cell) && !isBlank(cell) ? el("span", {}, cell) : isBlank(cell) ? null : cell);

/**
 * A table. `columns`: [heading, class?]; a cell is text, an element, or several of them. Columns behind the first in
 * which there is nothing are left out. `name` is what it is called for people who do not see it.
 */
export function table(name, columns, rows, empty = "nothing yet") {
  if (rows.length === 0) return el("p", { class: "empty" }, empty);
  const shown = [...columns.keys()].filter((place) => place === 0 || rows.some((cells) => !isBlank(cells[place])));
  const head = shown.map((place) => el("th", { scope: "col", class: columns[place][1] }, columns[place][0]));
  const body = rows.map((cells) =>
    el("tr", {}, shown.map((place) => el("td", { class: columns[place][1], "data-label": columns[place][0] }, inside(cells[place])))),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
    el("table", { "aria-label": name }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
  );
}

/** Pairs of a name and a value; those without a value are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => !isBlank(value));
  return el("dl", {}, shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Ask before something is done that cannot be undone; whether it was confirmed. */
export function confirmed(question, yes) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-question").textContent = question;
  document.getElementById("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
