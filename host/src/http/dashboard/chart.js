// Drawings of what was over time. Each has a text that says what matters in it.

import { attribute, svg, text } from "./dom.js";

const HEIGHT = 28;

/** A line through the values of the last minutes. `update(values, most, label)`: `most` is how many there can be. */
export function sparkline() {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const title = svg("title");
  const node = svg("svg", { class: "sparkline", role: "img", preserveAspectRatio: "none" }, title, area, line);
  const update = (values, most, label) => {
    const highest = Math.max(...values, 1e-9);
    const first = most - values.length;
    const points = values.map((value, index) => {
      const y = HEIGHT - 1.5 - (value / highest) * (HEIGHT - 3);
      return `${first + index},${y.toFixed(2)}`;
    });
    attribute(node, "viewBox", `0 0 ${Math.max(most - 1, 1)} ${HEIGHT}`);
    attribute(node, "aria-label", label);
    text(title, label);
    attribute(line, "d", points.length > 1 ? `M${points.join("L")}` : "");
    attribute(area, "d", points.length > 1 ? `M${first},${HEIGHT}L${points.join("L")}L${most - 1},${HEIGHT}Z` : "");
  };
  return { node, update };
}

const TALL = 100;

/** Bars of several layers, one bar an interval. `layers` are `[name, className]`, the lowest first. */
export function bars(layers) {
  const paths = layers.map(([, className]) => svg("path", { class: className }));
  const title = svg("title");
  const attributes = { class: "bars", role: "img", preserveAspectRatio: "none" };
  const node = svg("svg", attributes, title, ...paths);
  /** `values`: per interval, a function from a layer's name to its value. */
  const update = (values, most, label) => {
    const total = (of) => layers.reduce((sum, [name]) => sum + of(name), 0);
    const highest = Math.max(...values.map(total), 1e-9);
    const shapes = layers.map(() => []);
    values.forEach((of, index) => {
      const x = most - values.length + index;
      let y = TALL;
      layers.forEach(([name], layer) => {
        if (of(name) === 0) return;
        // Whatever happened at all is to be seen.
        const height = Math.max((of(name) / highest) * TALL, 1.5);
        shapes[layer].push(`M${x + 0.08},${y.toFixed(2)}v${(-height).toFixed(2)}h0.84v${height.toFixed(2)}z`);
        y -= height;
      });
    });
    attribute(node, "viewBox", `0 -6 ${most} ${TALL + 6}`);
    attribute(node, "aria-label", label);
    text(title, label);
    paths.forEach((path, layer) => attribute(path, "d", shapes[layer].join("")));
    return values.length === 0 ? 0 : Math.max(...values.map(total));
  };
  return { node, update };
}
