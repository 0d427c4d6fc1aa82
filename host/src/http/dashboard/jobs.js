// Work on whole collections: what is under way and what came of it, and a way to begin and to stop it.

import { call } from "./api.js";
import { confirmed } from "./dialogs.js";
import { attribute, badge, cell, el, keyed, row, rowHeader, table, text } from "./dom.js";
import { count, counted, duration, rate, when } from "./format.js";

/** Ended jobs that are shown. */
const MOST_ENDED = 12;

const KINDS = {
  verify: "compares all MemCells with their copies, and changes nothing",
  repair: "compares all MemCells with their copies, and mends what differs in the backend",
  backfill: "copies all MemCells from MongoDB to the backend once more",
  restore: "inserts MemCells into MongoDB that only the backend has; nothing is overwritten",
  rekey: "rewrites copies that are written otherwise than the configuration says: under another key, say",
};

const LOOKS = {
  running: ["◔", "info"],
  done: ["✓", "ok"],
  failed: ["✕", "bad"],
  cancelled: ["■", "quiet"],
};

/** Figures of a report that are told if they aren't zero, in the words for them. */
const DIFFERENCES = ["missing", "stale", "different", "corrupt", "resurrected", "extra"];
const FIGURES = ["copied", "repaired", "restored", "rejected", "unsettled", "foreign"];

function came(job) {
  const { report } = job;
  const told = [];
  if (report.differences > 0) {
    const kinds = DIFFERENCES.filter((name) => report[name] > 0).map((name) => `${count(report[name])} ${name}`);
    told.push(`${counted(report.differences, "difference", "differences")} (${kinds.join(", ")})`);
  } else if (job.kind === "verify" || job.kind === "repair") {
    told.push(job.state === "done" ? "no difference" : "no difference so far");
  }
  told.push(...FIGURES.filter((name) => report[name] > 0).map((name) => `${count(report[name])} ${name}`));
  return told.join(", ");
}

function field(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

function form() {
  const kind = el("select", { id: "job-kind", name: "kind" }, ...Object.keys(KINDS).map((name) => el("option", { value: name }, name)));
  const backend = el("select", { id: "job-backend", name: "backend" });
  const rateInput = el("input", { id: "job-rate", type: "number", min: 1, max: 10000000, step: 1, inputmode: "numeric", placeholder: "no limit" });
  const deep = el("input", { id: "job-deep", type: "checkbox" });
  const sweep = el("input", { id: "job-sweep", type: "checkbox" });
  const begin = el("button", { type: "submit", class: "primary" }, "Start job");
  const what = el("p", { class: "muted", id: "job-what" });
  attribute(kind, "aria-describedby", "job-what");
  const check = (input, words) => el("label", { class: "check" }, input, " ", words);
  const sweepField = check(sweep, "also remove copies of MemCells that are gone");
  const deepField = check(deep, "compare whole documents");
  const node = el(
    "form",
    { class: "job-form", "aria-label": "Start a job" },
    field("Job", kind),
    field("Backend", backend),
    field("MemCells a second", rateInput),
    el("div", { class: "checks" }, deepField, sweepField),
    begin,
    what,
  );
  const adjust = () => {
    sweepField.hidden = kind.value !== "backfill";
    deepField.hidden = kind.value !== "verify" && kind.value !== "repair";
    text(what, `A ${kind.value} ${KINDS[kind.value]}.`);
  };
  kind.addEventListener("change", adjust);
  adjust();
  const order = () => ({
    kind: kind.value,
    backend: backend.value,
    ...(deepField.hidden || !deep.checked ? {} : { deep: true }),
    ...(sweepField.hidden || !sweep.checked ? {} : { sweep: true }),
    ...(rateInput.value === "" ? {} : { rate: Number(rateInput.value) }),
  });
  return { node, backend, begin, order };
}

export function start(content, tell, refresh) {
  const { node: orderForm, backend: backendSelect, begin, order } = form();
  const columns = ["Job", "State", "Progress", "Result", "Begun", { title: "", className: "action" }];
  const { node, body } = table("Jobs", columns, "stacking");
  node.querySelector("thead th:last-child").append(el("span", { class: "hidden" }, "Action"));
  const empty = el("p", { class: "empty", hidden: true });
  content.append(orderForm, node, empty);
  const parts = new WeakMap();

  orderForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = order();
    if (wanted.kind !== "verify") {
      const sweeping = wanted.sweep ? " Copies of MemCells that are gone from MongoDB are removed, even if those are most of all." : "";
      const yes = await confirmed({
        title: `Start a ${wanted.kind} of ${wanted.backend}?`,
        question: `It ${KINDS[wanted.kind]}.${sweeping}`,
        yes: `Start ${wanted.kind}`,
        no: "Don't start",
      });
      if (!yes) return;
    }
    begin.disabled = true;
    try {
      const job = await call("POST", "v1/jobs", wanted);
      tell(`${job.kind} of ${job.backend} has begun`);
    } catch (error) {
      tell(`the job was not started: ${error.message}`, true);
    } finally {
      begin.disabled = false;
      refresh();
    }
  });

  async function cancel(job, button) {
    const yes = await confirmed({
      title: `Cancel the ${job.kind} of ${job.backend}?`,
      question: "What it has done stays done. It can't be taken up again; a new one begins from the start.",
      yes: "Cancel the job",
      no: "Let it run",
    });
    if (!yes) return;
    button.disabled = true;
    try {
      await call("DELETE", `v1/jobs/${encodeURIComponent(job.id)}`);
      tell(`${job.kind} of ${job.backend} is being cancelled`);
    } catch (error) {
      tell(`the job was not cancelled: ${error.message}`, true);
    } finally {
      button.disabled = false;
      refresh();
    }
  }

  function create(job) {
    const name = el("strong", {}, job.kind);
    const about = el("span", { class: "muted about" });
    const state = badge();
    const reason = el("span", { class: "reason" });
    const progress = el("progress", { "aria-label": `Progress of ${job.kind} of ${job.backend}` });
    const figures = el("span", { class: "muted" });
    const result = el("span", {});
    const examples = el("details", { hidden: true }, el("summary", {}, "Examples"), el("ul", {}));
    const begun = cell("Begun", "");
    const button = el("button", { type: "button", "aria-label": `Cancel ${job.kind} of ${job.backend}` }, "Cancel");
    const line = row(
      rowHeader("Job", el("span", { class: "stack" }, name, about)),
      cell("State", "", el("span", { class: "stack" }, state.node, reason)),
      cell("Progress", "", el("span", { class: "stack" }, progress, figures)),
      cell("Result", "", el("span", { class: "stack" }, result, examples)),
      begun,
      cell("", "action", button),
    );
    button.addEventListener("click", () => cancel(parts.get(line).job, button));
    parts.set(line, { job, about, state, reason, progress, figures, result, examples, begun, button });
    return line;
  }

  function update(line, job) {
    const known = parts.get(line);
    known.job = job;
    const { examined, estimate, per_second: speed, seconds_left: left } = job.progress;
    const details = [job.deep ? "deep" : null, job.rate === undefined ? null : `${count(job.rate)} a second at most`];
    text(known.about, [`of ${job.backend}`, ...details.filter((part) => part !== null)].join(", "));
    known.state.show(LOOKS[job.state] ?? ["?", "quiet"], job.state);
    text(known.reason, job.reason ?? "");
    const running = job.state === "running";
    known.progress.hidden = !running;
    // An estimate can be too low; a bar that is full while the job runs would be a lie.
    attribute(known.progress, "max", Math.max(estimate, examined + 1));
    attribute(known.progress, "value", examined);
    const remaining = left === undefined ? "" : `, about ${duration(left)} left`;
    const took = job.ended_at === undefined ? "" : `, took ${duration((new Date(job.ended_at) - new Date(job.created_at)) / 1000)}`;
    text(known.figures, running ? `${count(examined)} of about ${count(estimate)}, ${rate(speed)}${remaining}` : `${count(examined)} looked at${took}`);
    text(known.result, came(job));
    const findings = job.report.examples;
    known.examples.hidden = findings.length === 0;
    const said = ({ event_id: id, kind, paths, reason, repaired }) =>
      `${id}: ${kind}${paths.length === 0 ? "" : ` at ${paths.join(", ")}`}${reason ? ` (${reason})` : ""}${repaired ? ", mended" : ""}`;
    keyed(known.examples.querySelector("ul"), findings, said, (one) => el("li", {}, said(one)), () => {});
    text(known.begun, when(job.created_at));
    known.button.hidden = !running;
  }

  /** `items` is null while they can't be read, for `problem`. */
  const show = (items, problem) => {
    const ended = (items ?? []).filter((job) => job.state !== "running").slice(0, MOST_ENDED);
    const shown = (items ?? []).filter((job) => job.state === "running" || ended.includes(job));
    keyed(body, shown, (job) => job.id, create, update);
    node.hidden = shown.length === 0;
    empty.hidden = shown.length > 0;
    text(empty, items === null ? `The jobs can't be read: ${problem}.` : "No job was done yet. A verify tells whether a backend is right as a whole.");
  };

  const offer = (backends) => {
    orderForm.hidden = backends.length === 0;
    const create = (one) => el("option", { value: one.name }, one.name);
    keyed(backendSelect, backends, (one) => one.name, create, () => {});
  };

  return { show, offer };
}
