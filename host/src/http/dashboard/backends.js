// Each backend: its state, how far it is behind, what goes into it, what it takes.

import { sparkline } from "./chart.js";
import { attribute, badge, cell, el, keyed, row, rowHeader, table, text } from "./dom.js";
import { bytes, count, counted, duration, rate } from "./format.js";
import { perSecond, rates } from "./summary.js";

const LOOKS = {
  live: ["●", "ok"],
  "catching-up": ["◐", "info"],
  backfilling: ["◔", "info"],
  loading: ["○", "info"],
  degraded: ["▲", "warn"],
  failed: ["✕", "bad"],
  detached: ["◇", "info"],
  closed: ["■", "quiet"],
};

const COLUMNS = [
  "Backend",
  "State",
  { title: "Lag", className: "number" },
  "Written",
  { title: "Memory", className: "number" },
  { title: "Entries", className: "number" },
  { title: "Queue", className: "number" },
  { title: "Restarts", className: "number" },
];

const parts = new WeakMap();

function create() {
  const name = el("strong");
  const about = el("span", { class: "muted about" });
  const state = badge();
  const reason = el("span", { class: "reason" });
  const line = sparkline();
  const written = el("span", { class: "figure" });
  const cells = {
    lag: cell("Lag", "number"),
    memory: cell("Memory", "number"),
    entries: cell("Entries", "number"),
    queue: cell("Queue", "number"),
    restarts: cell("Restarts", "number"),
  };
  const node = row(
    rowHeader("Backend", el("span", { class: "stack" }, name, about)),
    cell("State", "", el("span", { class: "stack" }, state.node, reason)),
    cells.lag,
    cell("Written", "", el("span", { class: "throughput" }, line.node, written)),
    cells.memory,
    cells.entries,
    cells.queue,
    cells.restarts,
  );
  parts.set(node, { name, about, state, reason, line, written, cells });
  return node;
}

function update(node, backend, samples, most) {
  const { name, about, state, reason, line, written, cells } = parts.get(node);
  text(name, backend.name);
  const plugin = backend.plugin.split(/[\\/]/).pop();
  const shards = counted(backend.shards, "shard", "shards");
  const role = backend.validates ? ", compared with" : "";
  text(about, `${plugin}, ${shards}, ${backend.format}${role}`);
  attribute(about, "title", backend.sha256 === null ? backend.plugin : `${backend.plugin} (SHA-256 ${backend.sha256})`);
  state.show(LOOKS[backend.state] ?? ["?", "quiet"], backend.state);
  const tailed = backend.tailed_by === undefined ? null : `kept up to date by ${backend.tailed_by}`;
  text(reason, [backend.reason, tailed].filter((part) => part).join("; "));
  const of = (sample) => sample.backends.find((one) => one.name === backend.name)?.written ?? 0;
  const now = perSecond(samples, of);
  const all = rates(samples, of);
  text(written, rate(now));
  const label = `written to ${backend.name} over the last five minutes: now ${rate(now)}, at most ${rate(Math.max(0, ...all))}`;
  line.update(all, most, label);
  // One that was given up isn't behind: nobody is bringing it anything.
  text(cells.lag, backend.state === "failed" || backend.lag_seconds === null ? "–" : duration(backend.lag_seconds));
  text(cells.memory, bytes(backend.memory_bytes));
  text(cells.entries, count(backend.entries));
  attribute(cells.entries, "title", backend.bytes === null ? null : bytes(backend.bytes));
  text(cells.queue, count(backend.queue_depth));
  text(cells.restarts, count(backend.restarts));
}

export function start(content, tell) {
  const { node, body } = table("Backends", COLUMNS, "backends stacking");
  const empty = el(
    "p",
    { class: "empty", hidden: true },
    "No backend is configured: MemCells are kept in MongoDB alone. Add a table [backends.NAME] with a plugin to the " +
      "configuration file, and reload it: POST /v1/config/reload, or SIGHUP.",
  );
  content.append(node, empty);
  let before = null;

  return (backends, samples, most) => {
    node.hidden = backends.length === 0;
    empty.hidden = backends.length > 0;
    keyed(body, backends, (one) => one.name, create, (line, one) => update(line, one, samples, most));
    const states = new Map(backends.map((one) => [one.name, one.state]));
    for (const [name, state] of states) {
      if (before?.has(name) && before.get(name) !== state) {
        tell(`backend ${name} is ${state}`, state === "failed" || state === "degraded");
      }
    }
    before = states;
  };
}
