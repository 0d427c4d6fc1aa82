// The page as a whole: asks the host every two seconds how it is, and shows it. What is asked for rests while nobody looks.

import { Refused, Unauthorized, Unreachable, call, setToken, token } from "./api.js";
import * as backends from "./backends.js";
import * as config from "./config.js";
import { askForToken, tell } from "./dialogs.js";
import { showBadge, text } from "./dom.js";
import { timeOfDay } from "./format.js";
import * as jobs from "./jobs.js";
import * as mismatches from "./mismatches.js";
import * as summary from "./summary.js";
import * as theme from "./theme.js";
import * as validation from "./validation.js";

const EVERY = 2000;
const LONGEST_PAUSE = 30_000;

/** Jobs are asked for each time while one runs, and else only now and then; the configuration hardly ever changes. */
const RARELY = 10_000;

const byId = (id) => document.getElementById(id);
const content = (id) => byId(id).querySelector(".content");

theme.start(byId("theme"));

const show = {
  summary: summary.start(byId("summary")),
  backends: backends.start(content("backends"), tell),
  validation: validation.start(content("validation")),
  mismatches: mismatches.start(content("mismatches"), tell, () => soon()),
  jobs: jobs.start(content("jobs"), tell, () => soon()),
  config: config.start(content("config")),
};

/** What is known of the host. */
const known = { startedAt: null, samples: [], version: null, jobsRun: false, jobsAt: 0, configAt: 0 };

let timer = null;
let isAsking = false;
let isSignedOut = false;
let failures = 0;

/** Asks at once, also for what isn't due yet. */
function soon() {
  known.version = null;
  known.jobsAt = 0;
  known.configAt = 0;
  turn();
}

async function turn() {
  clearTimeout(timer);
  if (isAsking || isSignedOut || document.hidden) return;
  isAsking = true;
  let pause = EVERY;
  try {
    await refresh();
    failures = 0;
    connection(["●", "ok"], "Live");
    text(byId("updated"), `as of ${timeOfDay(new Date())}`);
  } catch (error) {
    failures += 1;
    pause = Math.min(EVERY * 2 ** (failures - 1), LONGEST_PAUSE);
    await failed(error);
  } finally {
    isAsking = false;
  }
  if (!isSignedOut) timer = setTimeout(turn, pause);
}

async function refresh() {
  let overview = await call("GET", `v1/overview?since=${known.samples.at(-1)?.number ?? 0}`);
  if (known.startedAt !== null && overview.started_at !== known.startedAt) {
    // Another process: its numbers begin anew.
    known.samples = [];
    known.version = null;
    overview = await call("GET", "v1/overview");
  }
  known.startedAt = overview.started_at;
  const { most, samples } = overview.history;
  known.samples = [...known.samples, ...samples].slice(-most);
  text(byId("host"), overview.host);
  document.title = overview.mismatches.count > 0 ? `(${overview.mismatches.count}) memcell` : "memcell";
  show.summary(overview, known.samples, most);
  show.backends(overview.backends, known.samples, most);
  show.validation(known.samples, most);
  show.jobs.offer(overview.backends);
  byId("sign").hidden = token() === null;
  if (overview.mismatches.version !== known.version) {
    const { items } = await call("GET", "v1/mismatches");
    show.mismatches(items, overview.backends.length > 0);
    known.version = overview.mismatches.version;
  }
  await Promise.all([refreshJobs(), refreshConfig()]);
}

/** Jobs are kept in MongoDB: while it is away, all else is to be seen nevertheless. */
async function refreshJobs() {
  if (!known.jobsRun && Date.now() - known.jobsAt < RARELY) return;
  try {
    const { items } = await call("GET", "v1/jobs");
    show.jobs.show(items);
    known.jobsRun = items.some((job) => job.state === "running");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    show.jobs.show(null, error.message);
    known.jobsRun = false;
  }
  known.jobsAt = Date.now();
}

async function refreshConfig() {
  if (Date.now() - known.configAt < RARELY) return;
  try {
    show.config(await call("GET", "v1/config"));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    show.config(null, error.message);
  }
  known.configAt = Date.now();
}

function connection(look, words) {
  showBadge(byId("connection"), look, words);
  const isLive = words === "Live";
  byId("retry").hidden = isLive || isSignedOut;
  if (isLive) byId("main").hidden = false;
  document.body.classList.toggle("stale", !isLive);
}

async function failed(error) {
  if (error instanceof Unauthorized) {
    const wasGiven = token() !== null;
    setToken(null);
    await signIn(wasGiven ? `The token was not accepted: ${error.message}.` : "This host asks for an access token.");
  } else if (error instanceof Unreachable) {
    connection(["✕", "bad"], "Host not reachable, trying again");
  } else if (error instanceof Refused) {
    connection(["▲", "warn"], `Refused: ${error.message}`);
  } else {
    connection(["▲", "warn"], "This page has a fault, trying again");
    console.error(error);
  }
}

async function signIn(reason) {
  connection(["■", "quiet"], "Signed out");
  const given = await askForToken(reason);
  if (given === null || given === "") {
    signedOut();
    return;
  }
  setToken(given);
  failures = 0;
  isSignedOut = false;
  timer = setTimeout(soon);
}

/** Nothing is asked until the reader wants to. */
function signedOut() {
  isSignedOut = true;
  // Nothing of what was seen with a token is shown to whoever has none.
  byId("main").hidden = true;
  byId("sign").hidden = false;
  text(byId("sign"), "Sign in");
  connection(["■", "quiet"], "Signed out");
}

byId("sign").addEventListener("click", () => {
  if (isSignedOut) {
    text(byId("sign"), "Sign out");
    signIn("This host asks for an access token.");
  } else {
    setToken(null);
    // Nothing of what was seen with the token stays.
    location.reload();
  }
});

byId("retry").addEventListener("click", turn);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) turn();
});

turn();
