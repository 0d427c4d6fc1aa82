// What comparing reads came to, over time.

import { bars } from "./chart.js";
import { cell, el, keyed, row, rowHeader, table, text } from "./dom.js";
import { count, counted, percent, rate } from "./format.js";
import { validated } from "./summary.js";

/** The most usual one lowest, those to worry about on top. */
const OUTCOMES = [
  ["consistent", "both sides agree", "●", "ok"],
  ["skipped", "nothing was compared: the backend isn't complete yet, or the copy has expired", "○", "quiet"],
  ["in-flight", "the copy is on its way; no error", "◐", "info"],
  ["unavailable", "the backend gave no answer in time", "▲", "warn"],
  ["missing", "there is no copy", "✕", "bad"],
  ["different", "the copy differs", "≠", "bad"],
  ["corrupt", "the copy can't be read", "⚡", "bad"],
];

export function start(content) {
  const chart = bars(OUTCOMES.map(([name]) => [name, `outcome ${name}`]));
  const highest = el("span", { class: "highest muted" });
  const axis = el("p", { class: "axis muted", "aria-hidden": "true" }, el("span", {}, "5 min ago"), el("span", {}, "now"));
  const drawing = el("div", { class: "drawing" }, highest, chart.node, axis);
  const columns = ["Outcome", "Meaning", { title: "Last 5 min", className: "number" }, { title: "Share", className: "number" }];
  const { node, body } = table("Validated reads by outcome", columns, "outcomes");
  const empty = el(
    "p",
    { class: "empty", hidden: true },
    "No read was compared in the last five minutes. Reads are compared if [validation] says so, or with ?validate=true.",
  );
  const figures = el("div", { class: "side-by-side" }, drawing, node);
  content.append(figures, empty);
  const cells = new Map();

  const create = ([name, meaning, shape]) => {
    const many = cell("Last 5 min", "number");
    const share = cell("Share", "number");
    cells.set(name, { many, share });
    const swatch = el("span", { class: `swatch ${name}`, "aria-hidden": "true" }, shape);
    return row(rowHeader("Outcome", swatch, " ", name), cell("Meaning", "meaning muted", meaning), many, share);
  };

  return (samples, most) => {
    const counts = OUTCOMES.map(([name]) => validated(samples, name));
    const all = counts.reduce((sum, value) => sum + value, 0);
    empty.hidden = all > 0;
    figures.hidden = all === 0;
    keyed(body, OUTCOMES, ([name]) => name, create, () => {});
    OUTCOMES.forEach(([name], index) => {
      text(cells.get(name).many, count(counts[index]));
      text(cells.get(name).share, percent(counts[index], all));
    });
    const said = OUTCOMES.map(([name], index) => [name, counts[index]]).filter(([, value]) => value > 0);
    const label = `validated reads over the last five minutes: ${said.map(([name, value]) => `${count(value)} ${name}`).join(", ")}`;
    const values = samples.map((sample) => (name) => validated([sample], name) / (sample.seconds || 1));
    const top = chart.update(values, most, label);
    text(highest, `at most ${rate(top)}, ${counted(all, "read", "reads")} in all`);
  };
}
