//! A backend that takes everything, keeps nothing, and is content at any time: before it is opened, and after it is closed.
#![cfg(target_family = "wasm")]

use memcell_plugin::guest::bindings::exports::memcell::kv::digests::{Digest, Guest as Digests};
use memcell_plugin::guest::bindings::exports::memcell::kv::fencing::Guest as Fencing;
use memcell_plugin::guest::bindings::exports::memcell::kv::lifecycle::{Guest as Lifecycle, Limits};
use memcell_plugin::guest::bindings::exports::memcell::kv::store::{
    Condition, Entry, Error, Guest as Store, Mark, Outcome, Page, Usage,
};
use memcell_plugin::guest::bindings::exports::memcell::kv::two_phase::Guest as TwoPhase;

struct BlackHole;

memcell_plugin::export_component!(BlackHole);

impl Lifecycle for BlackHole {
    fn open(_shard: u32, _settings: Vec<(String, String)>) -> Result<Limits, Error> {
        let (max_key_bytes, max_value_bytes, max_batch) = (1024, 1 << 20, 1024);
        Ok(Limits { max_key_bytes, max_value_bytes, max_batch, persistent: false, shared: false })
    }

    fn flush() -> Result<(), Error> {
        Ok(())
    }

    fn health() -> Result<(), Error> {
        Ok(())
    }

    fn close() -> Result<(), Error> {
        Ok(())
    }
}

impl Store for BlackHole {
    fn get_many(keys: Vec<String>) -> Result<Vec<Option<Entry>>, Error> {
        Ok(keys.iter().map(|_| None).collect())
    }

    fn put_many(entries: Vec<Entry>, _condition: Condition) -> Result<Vec<Outcome>, Error> {
        Ok(vec![Outcome::Applied; entries.len()])
    }

    fn delete_many(marks: Vec<Mark>, _condition: Condition) -> Result<Vec<Outcome>, Error> {
        Ok(vec![Outcome::Applied; marks.len()])
    }

    fn scan(_cursor: Option<String>, _limit: u32) -> Result<Page, Error> {
        Ok(Page { marks: Vec::new(), next: None })
    }

    fn stats() -> Result<Usage, Error> {
        Ok(Usage { entries: 0, bytes: 0 })
    }
}

impl Digests for BlackHole {
    fn digest_many(keys: Vec<String>, _head_bytes: u32) -> Result<Vec<Option<Digest>>, Error> {
        Ok(keys.iter().map(|_| None).collect())
    }
}

impl Fencing for BlackHole {
    fn hold(_token: u64) -> Result<(), Error> {
        Ok(())
    }
}

impl TwoPhase for BlackHole {
    fn prepare(_transaction: String, _puts: Vec<Entry>, _deletes: Vec<Mark>) -> Result<(), Error> {
        Ok(())
    }

    fn commit(_transaction: String) -> Result<(), Error> {
        Ok(())
    }

    fn abort(_transaction: String) -> Result<(), Error> {
        Ok(())
    }

    fn in_doubt() -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}
