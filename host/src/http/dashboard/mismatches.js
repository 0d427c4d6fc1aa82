// Copies that were found wrong and still were when looked at again: what MongoDB has, what the backend has, and a way to mend it.

import { call } from "./api.js";
import { confirmed } from "./dialogs.js";
import { cell, el, keyed, row, rowHeader, table, text } from "./dom.js";
import { count, when } from "./format.js";

/** How many are shown; the list itself is at /v1/mismatches. */
const MOST_SHOWN = 50;

/** How many differences of one are shown before the reader asks for the rest. */
const MOST_DIFFERENCES = 8;

const KINDS = {
  missing: ["✕", "no copy"],
  different: ["≠", "another copy"],
  corrupt: ["⚡", "damaged copy"],
};

const ABSENT = Symbol("absent");

/** What both texts begin and end with is plain, what is between them is marked. */
function marked(value, other) {
  if (value === ABSENT) return [el("span", { class: "absent" }, "not there")];
  if (other === ABSENT) return [el("mark", {}, value)];
  const most = Math.min(value.length, other.length);
  let start = 0;
  while (start < most && value[start] === other[start]) start += 1;
  let end = 0;
  while (end < most - start && value[value.length - 1 - end] === other[other.length - 1 - end]) end += 1;
  const middle = value.slice(start, value.length - end);
  return [value.slice(0, start), middle === "" ? null : el("mark", {}, middle), value.slice(value.length - end)];
}

function sides({ kind, mongo, kv }) {
  const shown = (value) => (kind === "length" ? `${value} ${value === "1" ? "item" : "items"}` : value);
  return [mongo === null ? ABSENT : shown(mongo), kv === null ? ABSENT : shown(kv)];
}

function difference(one, backend) {
  const { path, kind } = one;
  if (path === "" && kind === "only_in_kv") {
    const [here, there] = ["there is no such MemCell", "has a copy all the same"];
    return line("the whole MemCell", "only in the backend", [el("span", { class: "absent" }, here)], [there], backend);
  }
  if (path === "") return line("the whole MemCell", "not readable", ["has it"], [one.kv ?? "can't be read"], backend);
  const [mongo, kv] = sides(one);
  const marks = { only_in_mongo: "only in MongoDB", only_in_kv: `only in ${backend}`, length: "length" };
  return line(path, marks[kind], marked(mongo, kv), marked(kv, mongo), backend);
}

function line(path, mark, mongo, kv, backend) {
  const named = mark === undefined ? null : el("span", { class: "mark" }, mark);
  return row(
    rowHeader("Field", el("code", {}, path), named === null ? null : " ", named),
    cell("MongoDB", "", el("code", {}, ...mongo)),
    cell(backend, "", el("code", {}, ...kv)),
  );
}

function comparison(mismatch) {
  const { differences, backend, event_id: id } = mismatch;
  if (differences.length === 0) {
    return [el("p", { class: "said" }, `MongoDB has this MemCell, ${backend} has no copy of it.`)];
  }
  const listed = (some) => {
    const { node, body } = table(`Differences of ${id}`, ["Field", "MongoDB", backend], "differences stacking");
    body.append(...some.map((one) => difference(one, backend)));
    return node;
  };
  if (differences.length <= MOST_DIFFERENCES) return [listed(differences)];
  const rest = differences.slice(MOST_DIFFERENCES);
  const more = el("details", {}, el("summary", {}, `${count(rest.length)} more differences`), listed(rest));
  return [listed(differences.slice(0, MOST_DIFFERENCES)), more];
}

export function start(content, tell, refresh) {
  const list = el("div", { class: "cards" });
  const empty = el("p", { class: "empty", hidden: true });
  const more = el("p", { class: "muted", hidden: true });
  content.append(list, empty, more);
  const contents = new WeakMap();

  async function repair(mismatch, button) {
    const { backend, event_id: id } = mismatch;
    const yes = await confirmed({
      title: "Repair this copy?",
      question: `The copy of ${id} in ${backend} is replaced by what MongoDB has now. MongoDB itself is not changed.`,
      yes: "Repair",
      no: "Leave it",
    });
    if (!yes) return;
    button.disabled = true;
    try {
      const path = `v1/mismatches/${encodeURIComponent(backend)}/${encodeURIComponent(id)}/repair`;
      const { mended, outcome } = await call("POST", path);
      if (mended) tell(`the copy of ${id} in ${backend} is right again`);
      else tell(`the copy of ${id} in ${backend} was written again, but it is ${outcome}`, true);
    } catch (error) {
      tell(`the copy of ${id} in ${backend} was not repaired: ${error.message}`, true);
    } finally {
      button.disabled = false;
      refresh();
    }
  }

  function create(mismatch) {
    const { event_id: id, backend } = mismatch;
    const button = el("button", { type: "button", "aria-label": `Repair ${id} in ${backend}` }, "Repair");
    const card = el("article", { class: "card", "aria-label": `Mismatch of ${id} in ${backend}` });
    const about = el("p", { class: "muted" });
    const kind = el("span", { class: "badge bad" });
    const title = el("h3", {}, el("code", {}, id), " ", kind);
    const body = el("div", {});
    card.append(el("div", { class: "card-head" }, el("div", {}, title, about), button), body);
    // What is repaired is the newest state of the row.
    button.addEventListener("click", () => repair(contents.get(card).mismatch, button));
    contents.set(card, { mismatch, about, kind, body, shown: null });
    return card;
  }

  function update(card, mismatch) {
    const parts = contents.get(card);
    parts.mismatch = mismatch;
    const [shape, words] = KINDS[mismatch.kind] ?? ["?", mismatch.kind];
    if (parts.kind.textContent !== `${shape} ${words}`) {
      parts.kind.replaceChildren(el("span", { class: "shape", "aria-hidden": "true" }, shape), ` ${words}`);
    }
    text(parts.about, `in ${mismatch.backend}, first seen ${when(mismatch.first_seen)}, confirmed ${when(mismatch.confirmed_at)}`);
    const now = JSON.stringify([mismatch.kind, mismatch.differences]);
    if (parts.shown !== now) parts.body.replaceChildren(...comparison(mismatch));
    parts.shown = now;
  }

  return (items, hasBackends) => {
    keyed(list, items.slice(0, MOST_SHOWN), (one) => `${one.backend}/${one.event_id}`, create, update);
    list.hidden = items.length === 0;
    empty.hidden = items.length > 0;
    text(
      empty,
      hasBackends
        ? "No mismatch is known. Reads find them, and so does a verify job, which looks at all of a backend."
        : "No mismatch is known, for there is no backend to compare with.",
    );
    more.hidden = items.length <= MOST_SHOWN;
    text(more, `The newest ${MOST_SHOWN} of ${count(items.length)}. GET /v1/mismatches has all of them; a repair job mends them together.`);
  };
}
