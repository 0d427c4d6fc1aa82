// The configuration in force: every key, with what the host goes by.

import { cell, el, row, rowHeader, table } from "./dom.js";

const REDACTED = "***";

/** Dotted keys with their values, nested tables included. */
function flat(value, prefix) {
  return Object.entries(value).flatMap(([name, inner]) => {
    const key = prefix === "" ? name : `${prefix}.${name}`;
    return isTable(inner) ? flat(inner, key) : [[key, inner]];
  });
}

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function shown(value) {
  if (value === null) return el("span", { class: "absent" }, "not set");
  if (value === REDACTED) return el("span", { class: "mark" }, "hidden");
  if (Array.isArray(value)) return value.length === 0 ? el("span", { class: "absent" }, "none") : el("code", {}, value.join(", "));
  return el("code", {}, String(value));
}

function part(title, values) {
  const { node, body } = table(`Configuration: ${title}`, ["Key", "Value"], "settings");
  body.append(...flat(values, "").map(([key, value]) => row(rowHeader("Key", el("code", {}, key)), cell("Value", "", shown(value)))));
  return el("details", {}, el("summary", {}, el("code", {}, title)), node);
}

export function start(content) {
  let before = null;

  /** `config` is null if it can't be shown, for `problem`. */
  return (config, problem) => {
    const now = JSON.stringify(config ?? problem);
    if (now === before) return;
    before = now;
    if (config === null) {
      content.replaceChildren(el("p", { class: "empty" }, `The configuration can't be shown: ${problem}.`));
      return;
    }
    // A part that the reader has opened stays open.
    const open = new Set([...content.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
    const { backends, ...sections } = config;
    const parts = [
      ...Object.entries(sections).map(([name, values]) => part(`[${name}]`, values)),
      ...Object.entries(backends).map(([name, values]) => part(`[backends.${name}]`, values)),
    ];
    parts.forEach((details) => {
      details.open = open.has(details.querySelector("summary").textContent);
    });
    content.replaceChildren(
      el("p", { class: "muted" }, "Defaults included. Passwords, and settings of plugins that may be secrets, are hidden by the host."),
      ...parts,
    );
  };
}
