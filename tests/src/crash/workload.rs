//! The writers: each has keys of its own, changes them through the host and behind its back, and knows what must have become of
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::{Collection, error::Error as MongoError};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::client::{Answer, Api, text};
use super::history::{Key, State};
use super::shared::Shared;
use super::steps::{Refusal, Step, foreign, memcell, patch};
use crate::random::Random;

/// Keys of each worker at the start. Documents whose ids the host makes add to them.
const KEYS: usize = 40;

/// Users of each worker, among whom its keys are divided: what a bulk operation is about.
const USERS: usize = 4;

/// After this many operations of unknown fate, a worker waits for the next round: the keys concerned can't be used until then.
const MAX_UNKNOWN: u32 = 4;

/// Pause of a worker that finds no host, or that has nothing left to do.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the other program waits for MongoDB. What a killed host leaves of a transaction can hold a document back.
const FOREIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// MongoDB's error for an `_id` that is taken.
const DUPLICATE_KEY: i32 = 11_000;

/// How operations ended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

/// One writer.
pub(super) struct Worker {
    number: usize,
    of: usize,
    operations: i64,
    random: Random,
    pub(super) keys: Vec<Key>,
    /// Transactions of unknown fate, by the places of their keys: either all of them took place, or none.
    pub(super) together: Vec<Vec<usize>>,
    /// Documents with ids of the host's making whose answers were lost, by the number of the operation.
    pub(super) strays: BTreeMap<i64, (State, String)>,
    pub(super) tally: Tally,
    api: Api,
    collection: Collection<Document>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(
        number: usize,
        of: usize,
        seed: u64,
        api: &Api,
        collection: &Collection<Document>,
        shared: &Arc<Shared>,
    ) -> Self {
        let mut random = Random::new(seed ^ (number as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93));
        let user = |index: usize| format!("user-{number}-{}", index % USERS);
        let keys = (0..KEYS).map(|index| Key::new(object_id(&mut random), user(index))).collect();
        Self {
            number,
            of,
            operations: 0,
            random,
            keys,
            together: Vec::new(),
            strays: BTreeMap::new(),
            tally: Tally::default(),
            api: api.clone(),
            collection: collection.clone(),
            shared: Arc::clone(shared),
        }
    }

    /// Works until it is told to stop, and ends what it has begun.
    ///
    /// # Errors
    /// If the host answers what it must not.
    pub(super) async fn work(&mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let unknown_before = self.tally.unknown;
        while !*stop.borrow_and_update() {
            if self.tally.unknown - unknown_before >= u64::from(MAX_UNKNOWN) {
                // The sender outlives the workers.
                let _ = stop.changed().await;
                continue;
            }
            let was_sent = self.operate().await?;
            self.shared.finished.fetch_add(1, Ordering::Relaxed);
            if !was_sent {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// One operation. Answers whether it was sent.
    async fn operate(&mut self) -> Result<bool> {
        self.operations += 1;
        // The same number is never used twice, by whomever.
        let op = self.operations * i64::try_from(self.of)? + i64::try_from(self.number)?;
        match self.random.below(100) {
            0..2 => self.append_anywhere(op).await,
            2..4 => self.bulk(op).await,
            4..10 => self.transaction(op).await,
            10..35 => self.single(op, Step::by_foreigner).await,
            35..45 => self.single(op, |random, _| Step::any(random)).await,
            _ => self.single(op, Step::by_host).await,
        }
    }

    /// The places of some different keys that are not in doubt.
    fn pick(&mut self, count: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.keys.len()).filter(|at| !self.is_in_doubt(*at)).collect();
        (0..count.min(places.len())).map(|_| places.swap_remove(self.random.index(places.len()))).collect()
    }

    fn is_in_doubt(&self, at: usize) -> bool {
        self.keys.get(at).is_none_or(Key::is_in_doubt)
    }

    fn key(&mut self, at: usize) -> Result<&mut Key> {
        self.keys.get_mut(at).context("no such key")
    }

    /// A change of one document.
    async fn single(&mut self, op: i64, choose: impl Fn(&mut Random, &State) -> Step) -> Result<bool> {
        let Some(at) = self.pick(1).pop() else { return Ok(false) };
        let key = self.keys.get(at).context("no such key")?;
        let step = choose(&mut self.random, key.state());
        let expected = step.after(op, key.state(), &key.user);
        let (id, user) = (key.id, key.user.clone());
        let mongodb = self.shared.mongodb();
        let answer = match step.is_foreign() {
            true => match tokio::time::timeout(FOREIGN_TIMEOUT, self.as_foreigner(step, op, id, &user)).await {
                Ok(answer) => answer?,
                Err(_) => Answer::Unknown(format!("MongoDB did not answer within {FOREIGN_TIMEOUT:?}")),
            },
            false => self.through_host(step, op, id, &user).await?,
        };
        let is_disturbed = self.shared.was_disturbed_since(mongodb);
        let told = format!("#{op} {step:?}: {answer}");
        let key = self.key(at)?;
        match (expected, answer) {
            (_, Answer::NotSent) => return Ok(false),
            (Ok(state), Answer::Done { revision, .. }) => {
                key.note(format!("#{op} {step:?}: done"));
                key.acknowledge(state);
                if let Some(revision) = revision {
                    key.revise(revision)?;
                }
                self.tally.acknowledged += 1;
            }
            (Err(expected), Answer::Refused(refusal)) if expected == refusal => {
                key.note(format!("#{op} {step:?}: {refusal:?}"));
                self.tally.refused += 1;
            }
            (Ok(state), Answer::Unknown(_)) => {
                key.note(told);
                key.doubt(state);
                self.tally.unknown += 1;
            }
            (Ok(state), Answer::Refused(_)) if is_disturbed => {
                key.note(told);
                key.doubt(state);
                self.tally.unknown += 1;
            }
            (Err(_), Answer::Unknown(_)) => {
                key.note(told);
                key.rest();
                self.tally.unknown += 1;
            }
            (expected, _) => bail!("{id}: {told}, expected {expected:?}; {}", key.story()),
        }
        Ok(true)
    }

    async fn through_host(&self, step: Step, op: i64, id: ObjectId, user: &str) -> Result<Answer> {
        let path = format!("/v1/memcells/{}", id.to_hex());
        match step {
            Step::Update(field) => self.api.write(Method::PATCH, &path, Some(&patch(op, field))).await,
            Step::Hide => self.api.write(Method::DELETE, &path, None).await,
            Step::Remove => self.api.write(Method::DELETE, &format!("{path}?hard=true"), None).await,
            Step::Restore => self.api.write(Method::POST, &format!("{path}/restore"), None).await,
            _ => self.api.write(Method::POST, "/v1/memcells", Some(&memcell(op, Some(id), user))).await,
        }
    }

    async fn as_foreigner(&self, step: Step, op: i64, id: ObjectId, user: &str) -> Result<Answer> {
        let (all, which) = (&self.collection, doc! { "_id": id });
        let change = match step {
            Step::ForeignInsert => return Ok(fate(all.insert_one(foreign(op, id, "a", user)).await.map(|_| 1))),
            Step::ForeignReplace => {
                let replaced = all.replace_one(which, foreign(op, id, "b", user)).await;
                return Ok(fate(replaced.map(|result| result.matched_count)));
            }
            Step::ForeignRemove => return Ok(fate(all.delete_one(which).await.map(|result| result.deleted_count))),
            Step::ForeignUpdate(field) => doc! { "$set": { "op": op, field: op } },
            Step::ForeignForget => doc! { "$unset": { "revision": 1 } },
            Step::ForeignHide => doc! { "$set": { "deleted_at": DateTime::now() } },
            Step::ForeignShow => doc! { "$unset": { "deleted_at": 1 } },
            _ => bail!("{step:?} is no step of another program"),
        };
        Ok(fate(all.update_one(which, change).await.map(|result| result.matched_count)))
    }

    /// A document whose id the host makes.
    async fn append_anywhere(&mut self, op: i64) -> Result<bool> {
        let user = format!("user-{}-{}", self.number, self.random.index(USERS));
        let Ok(state) = Step::Append.after(op, &State::Absent, &user) else { bail!("nothing can be appended") };
        let mongodb = self.shared.mongodb();
        let answer = self.api.write(Method::POST, "/v1/memcells", Some(&memcell(op, None, &user))).await?;
        let is_disturbed = self.shared.was_disturbed_since(mongodb);
        match answer {
            Answer::NotSent => return Ok(false),
            Answer::Done { body, revision } => {
                let id = ObjectId::parse_str(text(&body, "event_id"))?;
                ensure!(self.keys.iter().all(|key| key.id != id), "the host made the id {id} twice");
                let mut key = Key::new(id, user);
                key.note(format!("#{op} Append without id: done"));
                key.acknowledge(state);
                key.revise(revision.context("an append told no revision")?)?;
                self.keys.push(key);
                self.tally.acknowledged += 1;
            }
            answer if is_disturbed || matches!(answer, Answer::Unknown(_)) => {
                self.strays.insert(op, (state, user));
                self.tally.unknown += 1;
            }
            refused => bail!("#{op} Append without id: {refused}"),
        }
        Ok(true)
    }

    /// Soft or hard deletion, or restoration, of all documents of a user.
    async fn bulk(&mut self, op: i64) -> Result<bool> {
        let user = format!("user-{}-{}", self.number, self.random.index(USERS));
        let places: Vec<usize> = (0..).zip(&self.keys).filter(|(_, key)| key.user == user).map(|(at, _)| at).collect();
        if !self.strays.is_empty() || places.iter().any(|at| self.is_in_doubt(*at)) {
            // How many it would concern isn't known.
            return self.single(op, Step::by_host).await;
        }
        let path = format!("/v1/memcells?user_id={user}");
        let (method, path, step, count) = match self.random.below(4) {
            0 => (Method::DELETE, format!("{path}&hard=true"), Step::Remove, "deleted"),
            1 => (Method::DELETE, path, Step::Hide, "deleted"),
            _ => (Method::POST, format!("/v1/memcells/restore?user_id={user}"), Step::Restore, "restored"),
        };
        let concerns = |state: &State| match step {
            Step::Hide => state.is_live(),
            Step::Restore => state.is_hidden(),
            _ => *state != State::Absent,
        };
        let mut after = Vec::new();
        for at in places.iter().copied() {
            let key = self.key(at)?;
            if let (true, Ok(state)) = (concerns(key.state()), step.after(op, key.state(), &user)) {
                after.push((at, state));
            }
        }
        let mongodb = self.shared.mongodb();
        let answer = self.api.write(method, &path, None).await?;
        let is_certain = match &answer {
            Answer::NotSent => return Ok(false),
            Answer::Done { body, .. } if *body == json!({ count: after.len() }) => true,
            Answer::Done { .. } if self.shared.was_disturbed_since(mongodb) => false,
            Answer::Unknown(_) => false,
            _ => bail!(
                "#{op} {step:?} of all of {user}: {answer:?}, expected {}; {}",
                after.len(),
                self.left_out(&after).await?
            ),
        };
        if !is_certain {
            self.rest(&places)?;
        }
        self.conclude(after, is_certain, &format!("#{op} {step:?} of all of {user}: {answer}"))?;
        Ok(true)
    }

    /// Changes of several documents that take place together.
    async fn transaction(&mut self, op: i64) -> Result<bool> {
        let count = 2 + self.random.index(3);
        let (mut requests, mut after, mut refusal) = (Vec::new(), Vec::new(), None);
        let places = self.pick(count);
        for at in places.iter().copied() {
            let is_any = self.random.one_in(12);
            let key = self.keys.get(at).context("no such key")?;
            let step = if is_any { Step::any(&mut self.random) } else { Step::by_host(&mut self.random, key.state()) };
            requests.push(step.in_transaction(op, key.id, &key.user));
            match step.after(op, key.state(), &key.user) {
                Ok(state) => after.push((at, state)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        let mongodb = self.shared.mongodb();
        let body = json!({ "operations": requests });
        let answer = self.api.write(Method::POST, "/v1/transactions", Some(&body)).await?;
        let is_disturbed = self.shared.was_disturbed_since(mongodb);
        let told = format!("#{op} transaction of {}: {answer}", requests.len());
        match (refusal, answer) {
            (_, Answer::NotSent) => return Ok(false),
            (None, Answer::Done { .. }) => {
                self.conclude(after, true, &format!("#{op} transaction of {}: done", requests.len()))?;
            }
            (Some(expected), Answer::Refused(refusal)) if expected == refusal => self.tally.refused += 1,
            (Some(_), Answer::Unknown(_)) => {
                self.rest(&places)?;
                self.tally.unknown += 1;
            }
            (None, Answer::Unknown(_)) => self.together(after, &told)?,
            (None, Answer::Refused(_)) if is_disturbed => self.together(after, &told)?,
            (refusal, _) => bail!("{told}, expected {refusal:?}; it was {}", Value::Array(requests)),
        }
        Ok(true)
    }

    /// A transaction of unknown fate.
    fn together(&mut self, after: Vec<(usize, State)>, told: &str) -> Result<()> {
        let changed = after.iter().filter(|(at, state)| self.keys.get(*at).is_some_and(|key| key.state() != state));
        self.together.push(changed.map(|(at, _)| *at).collect());
        self.conclude(after, false, told)
    }

    /// Those that an operation ought to have changed and did not, for people.
    async fn left_out(&self, after: &[(usize, State)]) -> Result<String> {
        let mut told = Vec::new();
        for (at, state) in after {
            let key = self.keys.get(*at).context("no such key")?;
            let document = self.collection.find_one(doc! { "_id": key.id }).await?;
            if State::of(document.as_ref())? != *state {
                told.push(format!("{} is {document:?}; {}", key.id, key.story()));
            }
        }
        Ok(told.join("; "))
    }

    fn rest(&mut self, places: &[usize]) -> Result<()> {
        places.iter().try_for_each(|at| self.key(*at).map(Key::rest))
    }

    /// Notes an operation on several keys.
    fn conclude(&mut self, after: Vec<(usize, State)>, is_certain: bool, told: &str) -> Result<()> {
        for (at, state) in after {
            let key = self.key(at)?;
            key.note(told.to_owned());
            if is_certain { key.acknowledge(state) } else { key.doubt(state) }
        }
        if is_certain {
            self.tally.acknowledged += 1;
        } else {
            self.tally.unknown += 1;
        }
        Ok(())
    }
}

/// What the driver's answer says; `count` documents were concerned.
fn fate(answer: Result<u64, MongoError>) -> Answer {
    match answer {
        Ok(0) => Answer::Refused(Refusal::NotFound),
        Ok(_) => Answer::Done { body: Value::Null, revision: None },
        Err(error) => match &*error.kind {
            ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY => {
                Answer::Refused(Refusal::Taken)
            }
            _ => Answer::Unknown(error.to_string()),
        },
    }
}

/// An id that depends on nothing but the seed.
fn object_id(random: &mut Random) -> ObjectId {
    let mut bytes = [0; 12];
    for (byte, chosen) in
        bytes.iter_mut().zip(random.bits().to_be_bytes().into_iter().chain(random.bits().to_be_bytes()))
    {
        *byte = chosen;
    }
    ObjectId::from_bytes(bytes)
}
