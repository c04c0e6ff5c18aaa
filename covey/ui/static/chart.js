// Curves, drawn by uPlot; their legend and their numbers as text are the page's own.

import uPlot from "./vendor/uPlot.esm.js";
import { el, table } from "./dom.js";
import { bytes, number } from "./format.js";

const HEIGHT = 190;
const COLOURS = 8;
const LISTED = 40;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seriesColour = (place) => colour(`--series-${(place % COLOURS) + 1}`);

/** One chart; `draw` may be called again and again. `element` is its place in the page. */
class Chart {
  constructor(name) {
    this.name = name;
    this.canvas = el("div", { class: "canvas" });
    this.caption = el("figcaption", {});
    this.legend = el("ul", { class: "legend" });
    this.listed = el("div", {});
    const numbers = el("details", { ontoggle: () => this.list(numbers.open) }, el("summary", {}, "as numbers"), this.listed);
    this.element = el("figure", { class: "chart" }, this.caption, this.canvas, this.legend, numbers);
    this.numbers = numbers;
    this.plot = null;
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.canvas);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.restyle = () => this.series && this.rebuild();
    this.scheme.addEventListener("change", this.restyle);
  }

  /** `series`: [{label, x, y}]; `along`: what is along. */
  draw(series, along) {
    const labels = JSON.stringify([along, series.map((item) => item.label)]);
    this.series = series;
    this.along = along;
    this.describe();
    if (this.plot === null || labels !== this.labels) {
      this.labels = labels;
      this.rebuild();
    } else {
      this.plot.setData(this.data());
    }
    if (this.numbers.open) this.list(true);
  }

  data() {
    const shown = this.series.filter((item) => item.x.length > 0);
    if (shown.length === 0) return [[], ...this.series.map(() => [])];
    if (this.series.length === 1) return [this.series[0].x, this.series[0].y];
    return uPlot.join(this.series.map((item) => [item.x, item.y]));
  }

  value(y) {
    return this.name === "bytes" ? bytes(y) : number(y);
  }

  describe() {
    const last = (item) => (item.y.length ? this.value(item.y[item.y.length - 1]) : "no value yet");
    this.caption.textContent = this.name === "bytes" ? "bytes in all" : this.name;
    const words = this.series.map((item) => `${item.label}: now ${last(item)}, ${item.y.length} points`);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${this.name} over ${this.along}. ${words.join("; ")}`);
    this.tell(this.series.map((item) => last(item)));
  }

  tell(values) {
    const single = this.series.length === 1;
    const items = this.series.map((item, place) => {
      const mark = el("span", { class: "mark" });
      mark.style.background = seriesColour(place);
      return el("li", {}, mark, single ? values[place] : `${item.label}: ${values[place]}`);
    });
    this.legend.replaceChildren(...items);
  }

  list(open) {
    if (!open) return;
    const rows = this.series.flatMap((item) =>
      item.x.map((x, place) => [item.label, number(x), this.value(item.y[place])]).slice(-LISTED),
    );
    const columns = [["of"], [this.along, "num"], [this.name, "num"]];
    this.listed.replaceChildren(table(`${this.name}, the last values`, columns, rows));
  }

  rebuild() {
    this.plot?.destroy();
    const text = colour("--muted");
    const axis = { stroke: text, grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const series = this.series.map((item, place) => ({
      stroke: seriesColour(place),
      width: 1.5,
      spanGaps: true,
      points: { show: item.x.length < 40 ? true : false, size: 4 },
    }));
    const value = (y) => (y === null || y === undefined ? "" : this.value(y));
    const options = {
      width: Math.max(220, this.canvas.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      scales: { x: { time: false } },
      series: [{}, ...series],
      axes: [{ ...axis, label: this.along, labelSize: 18, size: 32 }, { ...axis, size: 74, values: (_, all) => all.map(value) }],
      hooks: { setCursor: [(plot) => this.pointed(plot)] },
    };
    this.plot = new uPlot(options, this.data(), this.canvas);
  }

  pointed(plot) {
    const place = plot.cursor.idx;
    if (place === null || place === undefined) return this.describe();
    const x = plot.data[0][place];
    this.tell(this.series.map((_, row) => {
      const y = plot.data[row + 1][place];
      return y === null || y === undefined ? "" : `${this.value(y)} at ${number(x)}`;
    }));
  }

  fit() {
    const width = this.canvas.clientWidth;
    if (this.plot && width > 0 && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: HEIGHT });
  }

  close() {
    this.resized.disconnect();
    this.scheme.removeEventListener("change", this.restyle);
    this.plot?.destroy();
    this.plot = null;
  }
}

/** Several charts by name in a box; those that are not drawn any more go. */
export class Charts {
  constructor(box) {
    this.box = box;
    this.byName = new Map();
    this.isClosed = false;
  }

  /**
   * Those with a value; whether there are any. Nothing once it is closed: an answer may come when the page shows
   * something else.
   */
  draw(given, along) {
    if (this.isClosed) return false;
    const charts = given.filter((chart) => chart.series.some((item) => item.x.length > 0));
    const names = charts.map((chart) => chart.name);
    for (const [name, chart] of this.byName) {
      if (names.includes(name)) continue;
      chart.close();
      chart.element.remove();
      this.byName.delete(name);
    }
    charts.forEach(({ name, series }, place) => {
      if (!this.byName.has(name)) this.byName.set(name, new Chart(name));
      const chart = this.byName.get(name);
      if (this.box.children[place] !== chart.element) this.box.insertBefore(chart.element, this.box.children[place] ?? null);
      chart.draw(series, along);
    });
    return charts.length > 0;
  }

  close() {
    this.isClosed = true;
    for (const chart of this.byName.values()) chart.close();
    this.byName.clear();
  }
}
