// The first look: is MongoDB there, what is going on, and is the mirror right?

import { sparkline } from "./chart.js";
import { attribute, badge, el, text } from "./dom.js";
import { count, counted, duration, percent, rate } from "./format.js";

const UP = ["●", "ok"];
const DOWN = ["✕", "bad"];
const LOOK_AT = ["▲", "warn"];

/** How many of the newest samples a rate is the average of. */
const RECENT = 3;

export function perSecond(samples, valueOf) {
  const recent = samples.slice(-RECENT);
  const seconds = recent.reduce((sum, sample) => sum + sample.seconds, 0);
  return seconds === 0 ? 0 : recent.reduce((sum, sample) => sum + valueOf(sample), 0) / seconds;
}

/** The rate of each interval. */
export const rates = (samples, valueOf) =>
  samples.map((sample) => (sample.seconds === 0 ? 0 : valueOf(sample) / sample.seconds));

/** Validated reads of an outcome in these samples. */
export function validated(samples, outcome) {
  const of = (backend) => backend.validations[outcome] ?? 0;
  return samples.reduce((sum, sample) => sum + sample.backends.reduce((all, backend) => all + of(backend), 0), 0);
}

export const COMPARED = ["consistent", "missing", "different", "corrupt"];

function tile(title) {
  const value = el("p", { class: "value" });
  const note = el("p", { class: "note muted" });
  const node = el("div", { class: "tile" }, el("h2", {}, title), value, note);
  return { node, value, note };
}

export function start(section) {
  const mongodb = tile("MongoDB");
  const state = badge();
  mongodb.value.append(state.node);
  const reads = tile("Reads");
  const readLine = sparkline();
  reads.node.append(readLine.node);
  const writes = tile("Writes");
  const writeLine = sparkline();
  writes.node.append(writeLine.node);
  const agreement = tile("Reads that agree");
  const mismatches = tile("Mismatches");
  const found = badge();
  mismatches.value.append(found.node);
  const host = tile("Up for");
  const tiles = [mongodb, reads, writes, agreement, mismatches, host];
  section.append(...tiles.map(({ node }) => node));

  return (overview, samples, most) => {
    const { mongodb: server, mismatches: listed } = overview;
    state.show(server.reachable ? UP : DOWN, server.reachable ? "reachable" : "not reachable");
    text(mongodb.note, server.reachable ? `${server.database}.${server.collection}` : server.problem);
    attribute(mongodb.node, "title", server.server);
    for (const [one, line, name] of [
      [reads, readLine, "reads"],
      [writes, writeLine, "writes"],
    ]) {
      const now = perSecond(samples, (sample) => sample[name]);
      const all = rates(samples, (sample) => sample[name]);
      text(one.value, rate(now));
      text(one.note, `${count(overview.operations[name])} since the start`);
      const label = `${name} over the last five minutes: now ${rate(now)}, at most ${rate(Math.max(0, ...all))}`;
      line.update(all, most, label);
    }
    const compared = COMPARED.reduce((sum, outcome) => sum + validated(samples, outcome), 0);
    text(agreement.value, percent(validated(samples, "consistent"), compared));
    text(agreement.note, `${counted(compared, "read", "reads")} compared in the last five minutes`);
    found.show(listed.count === 0 ? UP : LOOK_AT, count(listed.count));
    text(mismatches.note, listed.count === 0 ? "none is known" : "confirmed, and not mended");
    text(host.value, duration(overview.uptime_seconds));
    const failed = overview.operations.failed;
    text(host.note, `version ${overview.version}, ${counted(failed, "failed operation", "failed operations")}`);
  };
}
