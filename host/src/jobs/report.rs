//! How far a job is and what it came to, for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::rekey;
use crate::mongo::{Finding, JobKind, JobRecord, JobState, Needs, PartRecord, Tally};

/// Examples that are shown of each kind of difference.
const EXAMPLES: usize = 20;

/// A job as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// Its id.
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// Which backend it is about.
    pub backend: String,
    /// The host whose backend it is; absent if any host that shares it works on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How far it is.
    pub state: JobState,
    /// Why it failed; while it is running, why it does not get on just now, as far as the host knows that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether whole documents are compared.
    pub deep: bool,
    /// Documents and entries a second that each host works on at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// When it was begun, in ISO 8601.
    #[serde(serialize_with = "crate::memcell::as_time")]
    pub created_at: bson::DateTime,
    /// When it ended.
    #[serde(serialize_with = "as_time_if_any", skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<bson::DateTime>,
    /// How far it is, in figures.
    pub progress: JobProgress,
    /// What it came to so far.
    pub report: Findings,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JobProgress {
    /// Documents and entries looked at.
    pub examined: u64,
    /// About how many there are.
    pub estimate: u64,
    /// Parts that are done, and how many there are.
    pub parts_done: usize,
    /// See `parts_done`.
    pub parts: usize,
    /// Documents and entries a second, since it was begun.
    pub per_second: f64,
    /// About how much longer it takes, in seconds; absent once it has ended, and while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
}

/// What a job came to.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// All differences together.
    pub differences: u64,
    /// Each kind, and what else was counted.
    #[serde(flatten)]
    pub tally: Tally,
    /// Some of the differences of each kind.
    pub examples: Vec<Finding>,
    /// Of a rekey: how many entries need which key, by its id (`none`: not encrypted; `unreadable`: damaged).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, u64>,
    /// Of a rekey: how many entries need which dictionary, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dictionaries: BTreeMap<String, u64>,
}

impl JobReport {
    pub(super) fn new(job: JobRecord, parts: &[PartRecord]) -> Self {
        let tally = parts.iter().map(|part| part.tally).fold(Tally::default(), Tally::plus);
        let until = job.ended_at.unwrap_or_else(bson::DateTime::now);
        let millis = until.timestamp_millis().saturating_sub(job.created_at.timestamp_millis());
        let elapsed = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let mut examples: Vec<Finding> = Vec::new();
        for finding in parts.iter().flat_map(|part| &part.findings) {
            if examples.iter().filter(|other| other.kind == finding.kind).count() < EXAMPLES {
                examples.push(finding.clone());
            }
        }
        let Needs { keys, dictionaries } = rekey::needs(parts);
        Self {
            progress: JobProgress::new(&job, parts, tally.examined, elapsed),
            report: Findings { differences: tally.differences(), tally, examples, keys, dictionaries },
            id: job.id,
            kind: job.kind,
            backend: job.backend,
            host: job.host,
            state: job.state,
            reason: job.reason,
            deep: job.deep,
            rate: job.rate,
            created_at: job.created_at,
            ended_at: job.ended_at,
        }
    }

    /// Whether there is nothing left to do.
    pub fn has_ended(&self) -> bool {
        self.state != JobState::Running
    }

    /// Whether it did all that it was to do, and nothing is left to be mended.
    pub fn is_fine(&self) -> bool {
        let Tally { repaired, rejected, unsettled, outdated, .. } = self.report.tally;
        let nothing_left = rejected == 0 && unsettled == 0 && outdated == 0;
        self.state == JobState::Done && self.report.differences <= repaired && nothing_left
    }
}

impl JobProgress {
    fn new(job: &JobRecord, parts: &[PartRecord], examined: u64, elapsed: Duration) -> Self {
        let per_second = if elapsed.is_zero() { 0.0 } else { examined as f64 / elapsed.as_secs_f64() };
        let left = job.estimate.saturating_sub(examined) as f64;
        Self {
            examined,
            estimate: job.estimate,
            parts_done: parts.iter().filter(|part| part.done).count(),
            parts: parts.len(),
            per_second,
            seconds_left: (job.state == JobState::Running && per_second > 0.0).then(|| left / per_second),
        }
    }
}

fn as_time_if_any<S: Serializer>(time: &Option<bson::DateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::memcell::as_time(time, serializer),
        None => serializer.serialize_none(),
    }
}
