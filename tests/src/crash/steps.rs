//! The changes of one document that the workload makes, what each of them must lead to, and how it is asked for.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use serde_json::{Value, json};

use super::history::{Cell, LATEST, OTHERS, State};
use crate::random::Random;

/// A change of one document: by the host, or by another program that knows nothing of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Append,
    Update(&'static str),
    Hide,
    Remove,
    Restore,
    ForeignInsert,
    /// Leaves `revision` alone.
    ForeignUpdate(&'static str),
    ForeignReplace,
    /// Takes `revision` away, and changes nothing else.
    ForeignForget,
    ForeignHide,
    ForeignShow,
    ForeignRemove,
}

/// Why a step has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    Taken,
}

impl Step {
    /// A step of the host that changes something in this state.
    pub(super) fn by_host(random: &mut Random, state: &State) -> Self {
        let update = Self::Update(field(random));
        let choice: &[Self] = match state {
            State::Absent => &[Self::Append],
            State::Present(cell) if cell.hidden => &[Self::Restore, Self::Restore, Self::Remove],
            State::Present(_) => &[update, update, update, Self::Hide, Self::Remove],
        };
        random.pick(choice).copied().unwrap_or(Self::Append)
    }

    /// A step of the other program that changes something in this state.
    pub(super) fn by_foreigner(random: &mut Random, state: &State) -> Self {
        let update = Self::ForeignUpdate(field(random));
        let choice: &[Self] = match state {
            State::Absent => &[Self::ForeignInsert],
            State::Present(cell) if cell.hidden => &[Self::ForeignShow, Self::ForeignRemove, update],
            State::Present(_) => {
                &[update, update, Self::ForeignReplace, Self::ForeignForget, Self::ForeignHide, Self::ForeignRemove]
            }
        };
        random.pick(choice).copied().unwrap_or(Self::ForeignInsert)
    }

    /// Any step of the host, whether or not it has an effect.
    pub(super) fn any(random: &mut Random) -> Self {
        let choice = [Self::Append, Self::Update(field(random)), Self::Hide, Self::Remove, Self::Restore];
        random.pick(&choice).copied().unwrap_or(Self::Append)
    }

    pub(super) fn is_foreign(self) -> bool {
        !matches!(self, Self::Append | Self::Update(_) | Self::Hide | Self::Remove | Self::Restore)
    }

    /// The state after the step number `op`.
    ///
    /// # Errors
    /// Why there is none: the state stays.
    pub(super) fn after(self, op: i64, state: &State, user: &str) -> Result<State, Refusal> {
        let fresh = |field| {
            let numbers = [(LATEST, op), (field, op)].into_iter().collect();
            Ok(State::Present(Cell { user: user.to_owned(), numbers, hidden: false }))
        };
        let changed = |cell: &Cell, change: &dyn Fn(&mut Cell)| {
            let mut cell = cell.clone();
            change(&mut cell);
            Ok(State::Present(cell))
        };
        let set = |field| {
            move |cell: &mut Cell| {
                cell.numbers.insert(LATEST, op);
                cell.numbers.insert(field, op);
            }
        };
        match (self, state) {
            (Self::Append | Self::ForeignInsert, State::Absent) => fresh("a"),
            (Self::Append | Self::ForeignInsert, State::Present(_)) => Err(Refusal::Taken),
            (_, State::Absent) => Err(Refusal::NotFound),
            (Self::Update(_) | Self::Hide, State::Present(cell)) if cell.hidden => Err(Refusal::NotFound),
            (Self::Update(field) | Self::ForeignUpdate(field), State::Present(cell)) => changed(cell, &set(field)),
            (Self::ForeignReplace, State::Present(_)) => fresh("b"),
            (Self::ForeignForget, State::Present(_)) => Ok(state.clone()),
            (Self::Hide | Self::ForeignHide, State::Present(cell)) => changed(cell, &|cell| cell.hidden = true),
            (Self::Restore | Self::ForeignShow, State::Present(cell)) => changed(cell, &|cell| cell.hidden = false),
            (Self::Remove | Self::ForeignRemove, State::Present(_)) => Ok(State::Absent),
        }
    }

    /// The element of `POST /v1/transactions`; nothing for a foreign step.
    pub(super) fn in_transaction(self, op: i64, id: ObjectId, user: &str) -> Value {
        let event_id = id.to_hex();
        match self {
            Self::Append => json!({ "op": "append", "memcell": memcell(op, Some(id), user) }),
            Self::Update(field) => json!({ "op": "update", "event_id": event_id, "patch": patch(op, field) }),
            Self::Hide => json!({ "op": "delete", "event_id": event_id }),
            Self::Remove => json!({ "op": "hard_delete", "event_id": event_id }),
            Self::Restore => json!({ "op": "restore", "event_id": event_id }),
            _ => Value::Null,
        }
    }
}

/// The number of a document's fields that a step changes besides the latest.
fn field(random: &mut Random) -> &'static str {
    random.pick(&OTHERS).copied().unwrap_or("a")
}

/// A document of the API, as [`Step::Append`] makes it.
pub(super) fn memcell(op: i64, id: Option<ObjectId>, user: &str) -> Value {
    let mut cell =
        json!({ "user_id": user, "timestamp": "2025-06-26T00:03:30.123Z", "summary": text(op), "op": op, "a": op });
    if let (Some(id), Some(fields)) = (id, cell.as_object_mut()) {
        fields.insert("event_id".into(), json!(id.to_hex()));
    }
    cell
}

/// The patch of [`Step::Update`].
pub(super) fn patch(op: i64, field: &str) -> Value {
    json!({ "op": op, (field): op, "summary": text(op) })
}

/// A document as [`Step::ForeignInsert`] (with `field` "a") and [`Step::ForeignReplace`] (with "b") leave it: without a revision.
pub(super) fn foreign(op: i64, id: ObjectId, field: &str, user: &str) -> Document {
    doc! { "_id": id, "user_id": user, "timestamp": DateTime::now(), "summary": text(op), "op": op, field: op }
}

/// Some text of a length that differs.
fn text(op: i64) -> String {
    let words = usize::try_from(op % 40).unwrap_or(0);
    format!("after operation {op}{}", ", and a few words more".repeat(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_chosen_for_a_state_has_an_effect_there() {
        let mut random = Random::new(1);
        let absent = State::Absent;
        let live = Step::Append.after(1, &absent, "u").unwrap();
        let hidden = Step::Hide.after(2, &live, "u").unwrap();
        for state in [absent, live, hidden] {
            for _ in 0..50 {
                let step = Step::by_host(&mut random, &state);
                assert!(!step.is_foreign());
                assert_ne!(step.after(9, &state, "u").as_ref(), Ok(&state), "{step:?}");
                let step = Step::by_foreigner(&mut random, &state);
                assert!(step.is_foreign() && step.after(9, &state, "u").is_ok(), "{step:?}");
            }
        }
    }

    #[test]
    fn what_the_host_refuses() {
        let live = Step::Append.after(1, &State::Absent, "u").unwrap();
        let hidden = Step::Hide.after(2, &live, "u").unwrap();
        assert_eq!(Step::Append.after(3, &hidden, "u"), Err(Refusal::Taken));
        assert_eq!(Step::Update("a").after(3, &hidden, "u"), Err(Refusal::NotFound));
        assert_eq!(Step::Restore.after(3, &State::Absent, "u"), Err(Refusal::NotFound));
        assert_eq!(Step::Restore.after(3, &live, "u"), Ok(live));
    }
}
