//! The component's side of the contract: generated bindings, and their answers from a [`Session`].

use crate::{Backend, Session};
use crate::{backend, digest, error, rules, session};

/// What is generated from the contract.
#[allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "complete-backend",
        pub_export_macro: true,
        export_macro_name: "export_backend_component",
        default_bindings_module: "memcell_plugin::guest::bindings",
    });
}

use bindings::exports::memcell::kv::{digests, fencing, lifecycle, store, two_phase};
use bindings::memcell::kv::types as wit;

/// Where a component keeps the one session it has: a place that only the component's crate can declare.
pub trait Hosted {
    /// What the session is of.
    type Backend: Backend;

    /// Runs `call` on the session. The contract makes one call at a time, so that nobody else holds it.
    fn with<R>(call: impl FnOnce(&mut Session<Self::Backend>) -> R) -> R;
}

impl<H: Hosted> lifecycle::Guest for H {
    fn open(shard: u32, settings: Vec<(String, String)>) -> Result<wit::Limits, wit::Error> {
        Ok(H::with(|session| session.open(shard, settings))?.into())
    }

    fn flush() -> Result<(), wit::Error> {
        Ok(H::with(Session::flush)?)
    }

    fn health() -> Result<(), wit::Error> {
        Ok(H::with(Session::health)?)
    }

    fn close() -> Result<(), wit::Error> {
        Ok(H::with(Session::close)?)
    }
}

impl<H: Hosted> store::Guest for H {
    fn get_many(keys: Vec<String>) -> Result<Vec<Option<wit::Entry>>, wit::Error> {
        let entries = H::with(|session| session.get_many(keys))?;
        Ok(entries.into_iter().map(|entry| entry.map(Into::into)).collect())
    }

    fn put_many(entries: Vec<wit::Entry>, condition: wit::Condition) -> Result<Vec<wit::Outcome>, wit::Error> {
        let entries = entries.into_iter().map(Into::into);
        let outcomes = H::with(|session| session.put_many(entries, condition.into()))?;
        Ok(outcomes.into_iter().map(Into::into).collect())
    }

    fn delete_many(marks: Vec<wit::Mark>, condition: wit::Condition) -> Result<Vec<wit::Outcome>, wit::Error> {
        let marks = marks.into_iter().map(Into::into);
        let outcomes = H::with(|session| session.delete_many(marks, condition.into()))?;
        Ok(outcomes.into_iter().map(Into::into).collect())
    }

    fn scan(cursor: Option<String>, limit: u32) -> Result<wit::Page, wit::Error> {
        let page = H::with(|session| session.scan(cursor.as_deref(), limit))?;
        Ok(wit::Page { marks: page.marks.into_iter().map(Into::into).collect(), next: page.next })
    }

    fn stats() -> Result<wit::Usage, wit::Error> {
        let stats = H::with(Session::stats)?;
        Ok(wit::Usage { entries: stats.entries, bytes: stats.bytes })
    }
}

impl<H: Hosted> digests::Guest for H {
    fn digest_many(keys: Vec<String>, head_bytes: u32) -> Result<Vec<Option<digests::Digest>>, wit::Error> {
        let digests = H::with(|session| session.digest_many(keys, head_bytes))?;
        Ok(digests.into_iter().map(|digest| digest.map(Into::into)).collect())
    }
}

impl<H: Hosted> fencing::Guest for H {
    fn hold(token: u64) -> Result<(), wit::Error> {
        Ok(H::with(|session| session.hold(token))?)
    }
}

impl<H: Hosted> two_phase::Guest for H {
    fn prepare(transaction: String, puts: Vec<wit::Entry>, deletes: Vec<wit::Mark>) -> Result<(), wit::Error> {
        let (puts, deletes) = (puts.into_iter().map(Into::into), deletes.into_iter().map(Into::into));
        Ok(H::with(|session| session.prepare(transaction, puts, deletes))?)
    }

    fn commit(transaction: String) -> Result<(), wit::Error> {
        Ok(H::with(|session| session.commit(&transaction))?)
    }

    fn abort(transaction: String) -> Result<(), wit::Error> {
        Ok(H::with(|session| session.abort(&transaction))?)
    }

    fn in_doubt() -> Result<Vec<String>, wit::Error> {
        Ok(H::with(Session::in_doubt)?)
    }
}

impl From<error::Error> for wit::Error {
    fn from(error: error::Error) -> Self {
        let told = error::without_numbers;
        match error {
            error::Error::InvalidArgument(text) => Self::InvalidArgument(told(text)),
            error::Error::TooLarge(text) => Self::TooLarge(told(text)),
            error::Error::Unavailable(text) => Self::Unavailable(told(text)),
            error::Error::Timeout => Self::Timeout,
            error::Error::QuotaExceeded(text) => Self::QuotaExceeded(told(text)),
            error::Error::Corrupt(text) => Self::Corrupt(told(text)),
            error::Error::Unsupported(text) => Self::Unsupported(told(text)),
            error::Error::Other(text) => Self::Other(told(text)),
        }
    }
}

impl From<backend::Limits> for wit::Limits {
    fn from(limits: backend::Limits) -> Self {
        let backend::Limits { max_key_bytes, max_value_bytes, max_batch, persistent, shared } = limits;
        Self { max_key_bytes, max_value_bytes, max_batch, persistent, shared }
    }
}

impl From<session::Entry> for wit::Entry {
    fn from(entry: session::Entry) -> Self {
        let session::Entry { key, stamp, expires_at, value } = entry;
        Self { key, stamp, expires_at, value }
    }
}

impl From<wit::Entry> for session::Entry {
    fn from(entry: wit::Entry) -> Self {
        let wit::Entry { key, stamp, expires_at, value } = entry;
        Self { key, stamp, expires_at, value }
    }
}

impl From<session::Mark> for wit::Mark {
    fn from(mark: session::Mark) -> Self {
        let session::Mark { key, stamp, expires_at } = mark;
        Self { key, stamp, expires_at }
    }
}

impl From<digest::Digest> for digests::Digest {
    fn from(digest: digest::Digest) -> Self {
        let digest::Digest { stamp, expires_at, head, value_bytes, rest_hash } = digest;
        Self { stamp, expires_at, head, value_bytes, rest_hash }
    }
}

impl From<wit::Mark> for session::Mark {
    fn from(mark: wit::Mark) -> Self {
        let wit::Mark { key, stamp, expires_at } = mark;
        Self { key, stamp, expires_at }
    }
}

impl From<wit::Condition> for rules::Condition {
    fn from(condition: wit::Condition) -> Self {
        match condition {
            wit::Condition::Newer => Self::Newer,
            wit::Condition::NotOlder => Self::NotOlder,
            wit::Condition::Always => Self::Always,
        }
    }
}

impl From<rules::Outcome> for wit::Outcome {
    fn from(outcome: rules::Outcome) -> Self {
        match outcome {
            rules::Outcome::Applied => Self::Applied,
            rules::Outcome::Stale => Self::Stale,
        }
    }
}
