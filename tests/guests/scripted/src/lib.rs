//! A backend whose answers are what its setting `script` says, whatever it is asked. See `tests/guests/README.md`.
#![cfg(target_family = "wasm")]

mod script;

use memcell_plugin::guest::bindings::exports::memcell::kv::digests::{Digest, Guest as Digests};
use memcell_plugin::guest::bindings::exports::memcell::kv::fencing::Guest as Fencing;
use memcell_plugin::guest::bindings::exports::memcell::kv::lifecycle::{Guest as Lifecycle, Limits};
use memcell_plugin::guest::bindings::exports::memcell::kv::store::{
    Condition, Entry, Error, Guest as Store, Mark, Outcome, Page, Usage,
};
use memcell_plugin::guest::bindings::exports::memcell::kv::two_phase::Guest as TwoPhase;

use script::{Script, read};

struct Scripted;

memcell_plugin::export_component!(Scripted);

/// The answer, or one of all errors.
fn answer<T>(value: impl FnOnce(&mut Script) -> T) -> Result<T, Error> {
    read(|script| match script.byte() {
        0xff => Err(Error::InvalidArgument(script.text())),
        0xfe => Err(Error::TooLarge(script.text())),
        0xfd => Err(Error::Unavailable(script.text())),
        0xfc => Err(Error::Timeout),
        0xfb => Err(Error::QuotaExceeded(script.text())),
        0xfa => Err(Error::Corrupt(script.text())),
        0xf9 => Err(Error::Unsupported(script.text())),
        0xf8 => Err(Error::Other(script.text())),
        _ => Ok(value(script)),
    })
}

/// The key that was asked for, or another.
fn key(script: &mut Script, due: Option<&String>) -> String {
    match due {
        Some(due) if !script.is_one_in(16) => due.clone(),
        _ => script.text(),
    }
}

fn outcomes(due: usize) -> Result<Vec<Outcome>, Error> {
    answer(|script| script.list(due, |script, _| if script.is_one_in(2) { Outcome::Stale } else { Outcome::Applied }))
}

impl Lifecycle for Scripted {
    fn open(_shard: u32, settings: Vec<(String, String)>) -> Result<Limits, Error> {
        script::begin(settings.first().map_or("", |(_, text)| text));
        answer(|script| {
            if !script.is_one_in(2) {
                let (max_key_bytes, max_value_bytes, max_batch) = (1024, 1 << 20, 64);
                return Limits { max_key_bytes, max_value_bytes, max_batch, persistent: false, shared: false };
            }
            Limits {
                max_key_bytes: script.small_number(),
                max_value_bytes: script.small_number(),
                max_batch: script.small_number(),
                persistent: script.is_one_in(2),
                shared: script.is_one_in(2),
            }
        })
    }

    fn flush() -> Result<(), Error> {
        answer(|_| ())
    }

    fn health() -> Result<(), Error> {
        answer(|_| ())
    }

    fn close() -> Result<(), Error> {
        answer(|_| ())
    }
}

impl Store for Scripted {
    fn get_many(keys: Vec<String>) -> Result<Vec<Option<Entry>>, Error> {
        answer(|script| {
            script.list(keys.len(), |script, index| {
                script.optional(|script| Entry {
                    key: key(script, keys.get(index)),
                    stamp: script.number(),
                    expires_at: script.optional(Script::number),
                    value: script.bytes(),
                })
            })
        })
    }

    fn put_many(entries: Vec<Entry>, _condition: Condition) -> Result<Vec<Outcome>, Error> {
        outcomes(entries.len())
    }

    fn delete_many(marks: Vec<Mark>, _condition: Condition) -> Result<Vec<Outcome>, Error> {
        outcomes(marks.len())
    }

    fn scan(_cursor: Option<String>, _limit: u32) -> Result<Page, Error> {
        answer(|script| {
            let count = usize::from(script.byte());
            let marks = script.list(count, |script, _| Mark {
                key: script.text(),
                stamp: script.number(),
                expires_at: script.optional(Script::number),
            });
            Page { marks, next: script.optional(Script::text) }
        })
    }

    fn stats() -> Result<Usage, Error> {
        answer(|script| Usage { entries: script.number(), bytes: script.number() })
    }
}

impl Digests for Scripted {
    fn digest_many(keys: Vec<String>, head_bytes: u32) -> Result<Vec<Option<Digest>>, Error> {
        answer(|script| {
            script.list(keys.len(), |script, _| {
                script.optional(|script| {
                    let mut head = script.bytes();
                    head.truncate(head_bytes as usize);
                    let value_bytes = u32::try_from(head.len()).unwrap_or(u32::MAX);
                    Digest {
                        stamp: script.number(),
                        expires_at: script.optional(Script::number),
                        head,
                        value_bytes: if script.is_one_in(4) { script.small_number() } else { value_bytes },
                        rest_hash: script.number(),
                    }
                })
            })
        })
    }
}

impl Fencing for Scripted {
    fn hold(_token: u64) -> Result<(), Error> {
        answer(|_| ())
    }
}

impl TwoPhase for Scripted {
    fn prepare(_transaction: String, _puts: Vec<Entry>, _deletes: Vec<Mark>) -> Result<(), Error> {
        answer(|_| ())
    }

    fn commit(_transaction: String) -> Result<(), Error> {
        answer(|_| ())
    }

    fn abort(_transaction: String) -> Result<(), Error> {
        answer(|_| ())
    }

    fn in_doubt() -> Result<Vec<String>, Error> {
        answer(|script| {
            let count = usize::from(script.byte());
            script.list(count, |script, _| script.text())
        })
    }
}
