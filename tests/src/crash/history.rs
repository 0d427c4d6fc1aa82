//! What is known of a document: the state it was acknowledged to be in, and the one it may be in instead.
//!
//! Operations on a key follow each other, so before each of them there is exactly one state. One of unknown fate makes it two,
//! and the key is left alone from then on until MongoDB was looked at. Which of the two it found is what happened.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document};

/// The fields that operations number themselves in: the latest of all, and those that one may leave as they are.
pub(super) const LATEST: &str = "op";
pub(super) const OTHERS: [&str; 3] = ["a", "b", "c"];

/// How many operations a key remembers, to be shown with what went wrong.
const TRAIL: usize = 8;

/// What can be predicted of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) user: String,
    pub(super) numbers: BTreeMap<&'static str, i64>,
    /// Whether it is soft-deleted.
    pub(super) hidden: bool,
}

/// The state of a key in MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Present(Cell),
}

impl State {
    /// The state that a document is in.
    ///
    /// # Errors
    /// If it is none of ours.
    pub(super) fn of(document: Option<&Document>) -> Result<Self> {
        let Some(document) = document else { return Ok(Self::Absent) };
        let mut numbers = BTreeMap::new();
        for name in OTHERS.into_iter().chain([LATEST]) {
            match document.get(name) {
                None => {}
                Some(Bson::Int32(number)) => drop(numbers.insert(name, i64::from(*number))),
                Some(Bson::Int64(number)) => drop(numbers.insert(name, *number)),
                Some(other) => anyhow::bail!("{name} is {other}"),
            }
        }
        let user = document.get_str("user_id").context("it has no user")?.to_owned();
        let hidden = document.get("deleted_at").is_some_and(|at| *at != Bson::Null);
        Ok(Self::Present(Cell { user, numbers, hidden }))
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Present(cell) if !cell.hidden)
    }

    /// The document, if it is soft-deleted.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self, Self::Present(cell) if cell.hidden)
    }
}

/// A key and its history.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: ObjectId,
    /// Whose documents it has, whenever it has one.
    pub(super) user: String,
    state: State,
    /// Whether the fate of an operation is unknown.
    in_doubt: bool,
    /// What it is if that operation took place, if that makes a difference.
    doubtful: Option<State>,
    /// The highest revision that an answer of the host has told.
    revision: u64,
    trail: VecDeque<String>,
}

/// How a key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    AsAcknowledged,
    /// The operation of unknown fate took place.
    Changed,
    /// It did not.
    Unchanged,
}

impl Key {
    /// A key that was never used.
    pub(super) fn new(id: ObjectId, user: String) -> Self {
        Self { id, user, state: State::Absent, in_doubt: false, doubtful: None, revision: 0, trail: VecDeque::new() }
    }

    /// The state before the next operation. Only of a key that is not in doubt.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Notes what was done and how it ended.
    pub(super) fn note(&mut self, what: String) {
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back(what);
    }

    /// An operation was acknowledged.
    pub(super) fn acknowledge(&mut self, state: State) {
        self.state = state;
    }

    /// An operation may or may not have made this the state, or may still do so.
    pub(super) fn doubt(&mut self, state: State) {
        self.rest();
        self.doubtful = (state != self.state).then_some(state);
    }

    /// An operation that has no effect in this state may still be under way: it must not come upon another state.
    pub(super) fn rest(&mut self) {
        self.in_doubt = true;
    }

    /// An answer of the host bears this revision.
    ///
    /// # Errors
    /// If it did not grow since the one before, whatever happened to the document meanwhile.
    pub(super) fn revise(&mut self, revision: u64) -> Result<()> {
        anyhow::ensure!(
            revision > self.revision,
            "the revision of {} did not grow: it was {}, and is {revision}; {}",
            self.id,
            self.revision,
            self.story()
        );
        self.revision = revision;
        Ok(())
    }

    /// Compares with what MongoDB has, and takes it for the state from now on.
    ///
    /// # Errors
    /// A readable text, if the history doesn't explain it.
    pub(super) fn resolve(&mut self, actual: State) -> Result<Found, String> {
        self.in_doubt = false;
        let found = match self.doubtful.take() {
            None if actual == self.state => Found::AsAcknowledged,
            Some(_) if actual == self.state => Found::Unchanged,
            Some(doubtful) if actual == doubtful => Found::Changed,
            doubtful => {
                let what = match (&self.state, &doubtful, &actual) {
                    (State::Present(_), None | Some(State::Present(_)), State::Absent) => "lost",
                    (State::Absent, None | Some(State::Absent), State::Present(_)) => "resurrected",
                    _ => "wrong",
                };
                let or = doubtful.map(|state| format!(" or {state:?}")).unwrap_or_default();
                return Err(format!(
                    "{} is {what} in MongoDB: expected {:?}{or}, found {actual:?}; {}",
                    self.id,
                    self.state,
                    self.story()
                ));
            }
        };
        self.state = actual;
        Ok(found)
    }

    /// The last operations, for people.
    pub(super) fn story(&self) -> String {
        let trail: Vec<&str> = self.trail.iter().map(String::as_str).collect();
        format!("its last operations: {}", trail.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(op: i64, hidden: bool) -> State {
        State::Present(Cell { user: "u".into(), numbers: BTreeMap::from([(LATEST, op)]), hidden })
    }

    fn key(state: State) -> Key {
        let mut key = Key::new(ObjectId::new(), "u".into());
        key.acknowledge(state);
        key
    }

    #[test]
    fn what_was_acknowledged_has_to_be_there() {
        assert_eq!(key(present(1, false)).resolve(present(1, false)), Ok(Found::AsAcknowledged));
        assert!(key(present(1, false)).resolve(State::Absent).unwrap_err().contains("is lost"));
        assert!(key(State::Absent).resolve(present(1, false)).unwrap_err().contains("is resurrected"));
        assert!(key(present(2, false)).resolve(present(1, false)).unwrap_err().contains("is wrong"));
        assert!(key(present(2, true)).resolve(present(2, false)).unwrap_err().contains("is wrong"));
    }

    #[test]
    fn an_operation_of_unknown_fate_took_place_or_did_not() {
        let doubtful = || {
            let mut key = key(present(1, false));
            key.doubt(present(2, false));
            key
        };
        assert_eq!(doubtful().resolve(present(1, false)), Ok(Found::Unchanged));
        assert_eq!(doubtful().resolve(present(2, false)), Ok(Found::Changed));
        assert!(doubtful().resolve(present(3, false)).is_err());
        assert!(doubtful().resolve(State::Absent).unwrap_err().contains("is lost"));
        let mut key = doubtful();
        key.resolve(present(2, false)).unwrap();
        assert!(!key.is_in_doubt() && *key.state() == present(2, false));
    }

    #[test]
    fn what_changes_nothing_is_waited_for_all_the_same() {
        let mut key = key(State::Absent);
        key.doubt(State::Absent);
        assert!(key.is_in_doubt());
        assert_eq!(key.resolve(State::Absent), Ok(Found::AsAcknowledged));
        assert!(!key.is_in_doubt());
    }

    #[test]
    fn revisions_grow() {
        let mut key = key(State::Absent);
        key.revise(5).unwrap();
        key.note("#7 hide: acknowledged".into());
        let error = key.revise(5).unwrap_err().to_string();
        assert!(error.contains("did not grow") && error.contains("#7 hide"), "{error}");
    }

    #[test]
    fn states_are_read_from_documents() {
        use mongodb::bson::doc;
        assert_eq!(State::of(None).unwrap(), State::Absent);
        let document = doc! { "user_id": "u", "op": 3_i32, "other": 1, "deleted_at": Bson::Null };
        assert_eq!(State::of(Some(&document)).unwrap(), present(3, false));
        let document = doc! { "user_id": "u", "op": 3_i64, "deleted_at": mongodb::bson::DateTime::now() };
        assert_eq!(State::of(Some(&document)).unwrap(), present(3, true));
        assert!(State::of(Some(&doc! { "op": 1 })).is_err());
    }
}
