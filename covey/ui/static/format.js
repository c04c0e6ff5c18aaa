// Numbers, amounts and times as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`;
}

export function number(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(5))) : value.toExponential(3);
}

export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A moment (Unix seconds) as local time; the date too, unless it is today's. */
export function moment(seconds) {
  if (!seconds) return "";
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString();
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

export const ago = (seconds, now) => (seconds ? `${span(Math.max(0, now - seconds))} ago` : "never");

export function metrics(values) {
  const first = (name) => (/(^|\/)(accuracy|loss)$/.test(name) ? 0 : name === "privacy/delta" ? 2 : 1);
  const names = Object.keys(values).sort((a, b) => first(a) - first(b) || (a < b ? -1 : 1));
  return names.filter((name) => typeof values[name] === "number").map((name) => `${name} ${number(values[name])}`);
}

/** What an object itself has by a name that others chose, which may be `constructor`; undefined: it has none. */
export const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

/** Some of them in one line, and how many more there are. */
export function metricsLine(values, most = 3) {
  const all = metrics(values);
  const more = all.length - most;
  return all.slice(0, most).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
