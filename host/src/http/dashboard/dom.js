// Building and updating the page. Whatever comes from the host becomes a text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with these attributes and children: elements, and texts. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attribute(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets an attribute; null and false take it away. */
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

/** Sets the text of an element, if it is another one than before. */
export function text(node, value) {
  if (node.textContent !== String(value)) node.textContent = value;
}

const kept = new WeakMap();

/**
 * Brings the children of `parent` in step with `items`. The element of an item is made once, updated each time and not moved
 * without need, so that the focus and a selection stay where they are.
 */
export function keyed(parent, items, keyOf, create, update) {
  const before = kept.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    now.set(key, before.get(key) ?? create(item));
  }
  for (const [key, node] of before) if (!now.has(key)) removeKeepingFocus(node);
  let next = parent.firstChild;
  for (const node of now.values()) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  kept.set(parent, now);
  for (const item of items) update(now.get(keyOf(item)), item);
}

/** Removes an element. If the focus was in it, it goes to the title of the section instead of to nowhere. */
export function removeKeepingFocus(node) {
  const section = node.contains(document.activeElement) ? node.closest("section") : null;
  node.remove();
  section?.querySelector("h2")?.focus();
}

/** A table whose meaning survives being laid out in blocks, as on a phone. `columns` are titles, or `{title, className}`. */
export function table(caption, columns, className = "") {
  const titles = columns.map((column) => (typeof column === "string" ? { title: column } : column));
  const head = titles.map(({ title, className: own }) =>
    el("th", { scope: "col", role: "columnheader", class: own }, title),
  );
  const body = el("tbody", { role: "rowgroup" });
  const node = el(
    "table",
    { role: "table", class: className },
    el("caption", { class: "hidden" }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)),
    body,
  );
  return { node, body };
}

export const row = (...cells) => el("tr", { role: "row" }, ...cells);

export const rowHeader = (label, ...children) =>
  el("th", { scope: "row", role: "rowheader", "data-label": label }, ...children);

export const cell = (label, className, ...children) =>
  el("td", { role: "cell", "data-label": label, class: className || null }, ...children);

/** A word with a shape and a colour, any of which is enough to understand it. */
export function badge() {
  const shape = el("span", { class: "shape", "aria-hidden": "true" });
  const words = el("span", { class: "words" });
  const node = el("span", { class: "badge" }, shape, " ", words);
  return { node, show: (look, label) => showBadge(node, look, label) };
}

/** Gives a badge another look: a shape and a tone, and another text. */
export function showBadge(node, [shape, tone], label) {
  text(node.querySelector(".shape"), shape);
  text(node.querySelector(".words"), label);
  attribute(node, "class", `badge ${tone}`);
}
