//! Jobs as MongoDB keeps them: what is to be done, cut into parts that hosts take under leases, and how far each part is.
//!
//! A part is taken by one worker at a time, as a lease is (`leases`): under a token that grows each time, and for as long as it
//! gives signs of life. Whatever is noted of its progress bears holder and token; a host that lost the part without knowing notes
//! nothing any more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt as _;
use mongodb::Collection;
use mongodb::options::ReturnDocument;
use serde::{Deserialize, Serialize};

use super::connect::bounded;
use super::leases::Sighting;
use super::repository::Repository;
use crate::{Error, ErrorKind, Result};

/// How many jobs that have ended are kept to be looked at.
const KEPT: u64 = 100;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Copies all documents to a backend.
    Backfill,
    /// Compares all documents with their copies, and all copies with their documents.
    Verify,
    /// As verify, and mends what it finds.
    Repair,
    /// Brings documents back to MongoDB that only a backend has.
    Restore,
    /// Rewrites entries that are written otherwise than the configuration says by now: under another key, say.
    Rekey,
}

impl JobKind {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Backfill, Self::Verify, Self::Repair, Self::Restore, Self::Rekey];

    /// The word for it in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Verify => "verify",
            Self::Repair => "repair",
            Self::Restore => "restore",
            Self::Rekey => "rekey",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Parts of it are waiting or being worked on.
    Running,
    /// All of it was done.
    Done,
    /// It can't go on.
    Failed,
    /// Somebody had enough of it.
    Cancelled,
}

impl JobState {
    /// Those that a job can end in.
    pub const ENDS: [Self; 3] = [Self::Done, Self::Failed, Self::Cancelled];

    /// The word for it in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    #[serde(rename = "_id")]
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// Which backend it is about.
    pub backend: String,
    /// The host whose backend it is; `None`: any host that shares it.
    pub host: Option<String>,
    /// Whether whole documents are compared, and not only what digests tell.
    pub deep: bool,
    /// Whether a backfill also removes entries whose document is gone.
    #[serde(default)]
    pub sweep: bool,
    /// Documents and entries a second that each host works on at the most; `None`: no limit.
    pub rate: Option<u32>,
    /// How far it is.
    pub state: JobState,
    /// Why it failed.
    pub reason: Option<String>,
    /// Whether it is to be given up.
    pub cancel: bool,
    /// About how many documents and entries there are to look at.
    pub estimate: u64,
    /// When it was begun.
    pub created_at: DateTime,
    /// When it ended.
    pub ended_at: Option<DateTime>,
}

/// A part of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its id.
    #[serde(rename = "_id")]
    pub id: String,
    /// The job that it belongs to.
    pub job: String,
    /// What it is about.
    pub scope: PartScope,
    /// Where to go on; `None`: at the beginning.
    pub place: Option<Place>,
    /// Whether all of it is done.
    pub done: bool,
    /// Who works on it, or did.
    pub holder: Option<String>,
    /// Grows each time it is taken.
    pub token: i64,
    /// Grows each time that somebody says that he works on it.
    pub beat: i64,
    /// What it came to so far.
    pub tally: Tally,
    /// Some of what it found.
    pub findings: Vec<Finding>,
    /// Of a rekey: what the entries need to be read.
    #[serde(default)]
    pub needs: Needs,
}

/// How many entries need which key and which dictionary to be read, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Also [`Needs::NO_KEY`] and [`Needs::UNREADABLE`].
    pub keys: BTreeMap<String, u64>,
    /// Those without one are not counted.
    pub dictionaries: BTreeMap<String, u64>,
}

impl Needs {
    /// In the place of a key's id: entries that are not encrypted.
    pub const NO_KEY: &str = "none";

    /// In the place of a key's id: entries that don't say.
    pub const UNREADABLE: &str = "unreadable";

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        other.keys.iter().for_each(|(id, count)| *self.keys.entry(id.clone()).or_default() += count);
        other.dictionaries.iter().for_each(|(id, count)| *self.dictionaries.entry(id.clone()).or_default() += count);
        self
    }
}

/// What a part is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there are a few of them, and most are the large one")]
pub enum PartScope {
    /// The documents with an id after the first and up to the second bound, in MongoDB's order of ids.
    Documents {
        /// Not included; `None`: from the first on.
        after: Option<Bson>,
        /// Included; `None`: to the last.
        up_to: Option<Bson>,
    },
    /// The entries of a shard.
    Entries {
        /// Its number.
        shard: u32,
    },
}

/// How far a part is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Documents up to this id are done.
    Id(Bson),
    /// Some documents are done, and nobody can tell which: they were read in the order that MongoDB has them in.
    Natural,
    /// The pages before this one are done.
    Cursor {
        /// Where the scan goes on.
        cursor: String,
        /// The instance whose cursor it is: those of an instance that is gone mean nothing.
        instance: String,
    },
}

/// What a job has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Documents and entries looked at.
    pub examined: u64,
    /// Copies written by a backfill.
    pub copied: u64,
    /// Documents that a backend doesn't take.
    pub rejected: u64,
    /// Documents without a copy.
    pub missing: u64,
    /// Copies of an older revision.
    pub stale: u64,
    /// Copies of the same revision, or a newer one, with other contents.
    pub different: u64,
    /// Copies that are damaged.
    pub corrupt: u64,
    /// Copies of documents that are soft-deleted.
    pub resurrected: u64,
    /// Copies of documents that MongoDB doesn't have.
    pub extra: u64,
    /// What kept changing while it was looked at.
    pub unsettled: u64,
    /// Entries that no host can have written, left alone.
    pub foreign: u64,
    /// Differences that were mended.
    pub repaired: u64,
    /// Documents that were brought back.
    pub restored: u64,
    /// Entries whose document was there.
    pub present: u64,
    /// Entries that were rewritten by a rekey.
    pub rewritten: u64,
    /// Entries that a rekey found written otherwise than the configuration says, and had to leave so.
    pub outdated: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            examined: self.examined + other.examined,
            copied: self.copied + other.copied,
            rejected: self.rejected + other.rejected,
            missing: self.missing + other.missing,
            stale: self.stale + other.stale,
            different: self.different + other.different,
            corrupt: self.corrupt + other.corrupt,
            resurrected: self.resurrected + other.resurrected,
            extra: self.extra + other.extra,
            unsettled: self.unsettled + other.unsettled,
            foreign: self.foreign + other.foreign,
            repaired: self.repaired + other.repaired,
            restored: self.restored + other.restored,
            present: self.present + other.present,
            rewritten: self.rewritten + other.rewritten,
            outdated: self.outdated + other.outdated,
        }
    }

    /// What stays of it when everything is gone through once more: what was mended is not found again. `repairs`: differences were.
    #[must_use]
    pub fn mended(self, repairs: bool) -> Self {
        let kept = Self { restored: self.restored, rewritten: self.rewritten, ..Self::default() };
        if !repairs {
            return kept;
        }
        Self {
            missing: self.missing,
            stale: self.stale,
            different: self.different,
            corrupt: self.corrupt,
            resurrected: self.resurrected,
            extra: self.extra,
            repaired: self.repaired,
            ..kept
        }
    }

    /// Differences found.
    pub fn differences(&self) -> u64 {
        self.missing + self.stale + self.different + self.corrupt + self.resurrected + self.extra
    }
}

/// A difference, as an example for its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The document.
    pub event_id: String,
    /// The field of [`Tally`] that it is counted in.
    pub kind: String,
    /// What differs: dotted paths, never contents.
    pub paths: Vec<String>,
    /// Of a copy that can't be read: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was mended.
    pub repaired: bool,
}

/// A part that this host works on.
#[derive(Debug, Clone)]
pub struct TakenPart {
    /// As it was when it was taken.
    pub record: PartRecord,
    holder: String,
}

impl Repository {
    /// Notes a new job and its parts. Those that ended long ago are forgotten.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn create_job(&self, job: &JobRecord, parts: &[PartRecord]) -> Result<()> {
        // The parts first: a job whose parts are not all there could be taken for done.
        if !parts.is_empty() {
            bounded(self.timeout, self.parts().insert_many(parts)).await?;
        }
        bounded(self.timeout, self.jobs().insert_one(job)).await?;
        self.forget_jobs().await
    }

    async fn forget_jobs(&self) -> Result<()> {
        let ended = doc! { "state": { "$ne": "running" } };
        let jobs = self.jobs();
        let find = jobs.find(ended).sort(doc! { "created_at": -1 }).skip(KEPT);
        let old: Vec<JobRecord> = bounded(self.timeout, async { find.await?.try_collect().await }).await?;
        if old.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = old.iter().map(|job| job.id.as_str()).collect();
        bounded(self.timeout, self.parts().delete_many(of_jobs(&ids))).await?;
        bounded(self.timeout, self.jobs().delete_many(doc! { "_id": { "$in": &ids } })).await?;
        Ok(())
    }

    /// Jobs, the newest first; all, or those that have not ended.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn list_jobs(&self, only_running: bool) -> Result<Vec<JobRecord>> {
        let filter = if only_running {
            doc! { "state": "running" }
        } else {
            doc! {}
        };
        let jobs = self.jobs();
        let find = jobs.find(filter).sort(doc! { "created_at": -1, "_id": -1 });
        bounded(self.timeout, async { find.await?.try_collect().await }).await
    }

    /// One job.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn job(&self, id: &str) -> Result<Option<JobRecord>> {
        bounded(self.timeout, self.jobs().find_one(doc! { "_id": id })).await
    }

    /// The parts of some jobs.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn job_parts(&self, jobs: &[&str]) -> Result<Vec<PartRecord>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let parts = self.parts();
        let find = parts.find(of_jobs(jobs));
        bounded(self.timeout, async { find.await?.try_collect().await }).await
    }

    /// Asks for a job to be given up. Answers whether there was one to ask.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn cancel_job(&self, id: &str) -> Result<bool> {
        let running = doc! { "_id": id, "state": "running" };
        let jobs = self.jobs();
        let update = jobs.update_one(running, doc! { "$set": { "cancel": true } });
        Ok(bounded(self.timeout, update).await?.matched_count == 1)
    }

    /// Notes that a running job has ended. Answers whether it had not before.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn end_job(&self, id: &str, state: JobState, reason: Option<&str>) -> Result<bool> {
        let state = to_bson(&state)?;
        let ended = doc! { "$set": { "state": state, "reason": reason, "ended_at": DateTime::now() } };
        let jobs = self.jobs();
        let update = jobs.update_one(doc! { "_id": id, "state": "running" }, ended);
        Ok(bounded(self.timeout, update).await?.matched_count == 1)
    }

    /// Takes a part of one of these jobs that nobody works on. `holder` names one worker: what it has, it is not given again.
    /// `sightings` is what this process has seen of parts that others work on, by their ids: keep it from one call to the next.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn take_part(
        &self,
        jobs: &[&str],
        holder: &str,
        length: Duration,
        sightings: &mut HashMap<String, Sighting>,
    ) -> Result<Option<TakenPart>> {
        let parts = self.parts();
        let find = parts.find(doc! { "$and": [of_jobs(jobs), { "done": false }] }).sort(doc! { "_id": 1 });
        let open: Vec<PartRecord> = bounded(self.timeout, async { find.await?.try_collect().await }).await?;
        sightings.retain(|id, _| open.iter().any(|part| part.id == *id));
        for part in open {
            let is_free = match &part.holder {
                None => true,
                Some(current) if current == holder => false,
                Some(_) => sightings.entry(part.id.clone()).or_default().is_abandoned(part.token, part.beat, length),
            };
            if !is_free {
                continue;
            }
            let unchanged = doc! { "_id": &part.id, "token": part.token, "beat": part.beat, "done": false };
            let taken = doc! { "$set": { "holder": holder }, "$inc": { "token": 1_i64, "beat": 1_i64 } };
            let update = parts.find_one_and_update(unchanged, taken).return_document(ReturnDocument::After);
            if let Some(record) = bounded(self.timeout, update).await? {
                return Ok(Some(TakenPart { record, holder: holder.to_owned() }));
            }
        }
        Ok(None)
    }

    /// Notes how far a part is, and that somebody works on it. Answers whether it is still this holder's; if not, nothing is noted.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn advance_part(&self, part: &TakenPart) -> Result<bool> {
        let PartRecord { place, done, tally, findings, needs, .. } = &part.record;
        let noted = doc! {
            "place": to_bson(place)?,
            "done": *done,
            "tally": to_bson(tally)?,
            "findings": to_bson(findings)?,
            "needs": to_bson(needs)?,
        };
        self.update_part(part, doc! { "$set": noted, "$inc": { "beat": 1_i64 } }).await
    }

    /// Only says that somebody works on a part. Answers whether it is still this holder's.
    ///
    /// # Errors
    /// Those of MongoDB being away.
    pub async fn keep_part(&self, part: &TakenPart) -> Result<bool> {
        self.update_part(part, doc! { "$inc": { "beat": 1_i64 } }).await
    }

    /// Gives a part back, for whoever takes it next.
    ///
    /// # Errors
    /// Those of MongoDB being away; others get it a while later then.
    pub async fn release_part(&self, part: &TakenPart) -> Result<()> {
        self.update_part(part, doc! { "$set": { "holder": Bson::Null }, "$inc": { "beat": 1_i64 } }).await.map(drop)
    }

    async fn update_part(&self, part: &TakenPart, update: Document) -> Result<bool> {
        let mine = doc! { "_id": &part.record.id, "holder": &part.holder, "token": part.record.token, "done": false };
        let parts = self.parts();
        Ok(bounded(self.timeout, parts.update_one(mine, update)).await?.matched_count == 1)
    }

    fn jobs(&self) -> Collection<JobRecord> {
        self.beside("jobs")
    }

    fn parts(&self) -> Collection<PartRecord> {
        self.beside("job_parts")
    }
}

/// The parts of these jobs, of which there must be some: by their ids, which begin with the job's and a `/`.
fn of_jobs(jobs: &[&str]) -> Document {
    // '0' comes next after '/'.
    let of_job = |job: &&str| doc! { "_id": { "$gte": format!("{job}/"), "$lt": format!("{job}0") } };
    doc! { "$or": jobs.iter().map(of_job).collect::<Vec<Document>>() }
}

impl PartRecord {
    /// A part that nobody has begun.
    pub fn new(job: &str, number: usize, scope: PartScope) -> Self {
        Self {
            id: format!("{job}/{number:05}"),
            job: job.to_owned(),
            scope,
            place: None,
            done: false,
            holder: None,
            token: 0,
            beat: 0,
            tally: Tally::default(),
            findings: Vec::new(),
            needs: Needs::default(),
        }
    }
}

fn to_bson(value: &impl Serialize) -> Result<Bson> {
    bson::serialize_to_bson(value)
        .map_err(|source| Error::new(ErrorKind::Internal, "a job can't be written down").with_source(source))
}
