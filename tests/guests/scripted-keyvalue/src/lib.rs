//! A plain `wasi:keyvalue@0.2.0-draft2` component with `batch`, whose answers are what the name of the bucket says, whatever it is
//! asked. See `tests/guests/README.md`.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "package guest:scripted-keyvalue; world both { \
                 export wasi:keyvalue/store@0.2.0-draft2; export wasi:keyvalue/batch@0.2.0-draft2; }",
        path: "../../../host/wit/keyvalue-0.2.0-draft2",
        world: "guest:scripted-keyvalue/both",
        generate_all,
    });
}

#[allow(dead_code, reason = "the other guest reads more kinds of things")]
#[path = "../../scripted/src/script.rs"]
mod script;

use bindings::exports::wasi::keyvalue::batch::Guest as Batch;
use bindings::exports::wasi::keyvalue::store::{Bucket, BucketBorrow, Error, Guest as Store, GuestBucket, KeyResponse};

use script::{Script, read};

struct Component;

/// A bucket, all of whose contents are invented.
struct Invented;

/// The answer, or one of all errors.
fn answer<T>(value: impl FnOnce(&mut Script) -> T) -> Result<T, Error> {
    read(|script| match script.byte() {
        0xff => Err(Error::NoSuchStore),
        0xfe => Err(Error::AccessDenied),
        0xfd => Err(Error::Other(script.text())),
        _ => Ok(value(script)),
    })
}

impl Store for Component {
    type Bucket = Invented;

    fn open(identifier: String) -> Result<Bucket, Error> {
        script::begin(&identifier);
        answer(|_| Bucket::new(Invented))
    }
}

impl GuestBucket for Invented {
    fn get(&self, _key: String) -> Result<Option<Vec<u8>>, Error> {
        answer(|script| script.optional(Script::bytes))
    }

    fn set(&self, _key: String, _value: Vec<u8>) -> Result<(), Error> {
        answer(|_| ())
    }

    fn delete(&self, _key: String) -> Result<(), Error> {
        answer(|_| ())
    }

    fn exists(&self, _key: String) -> Result<bool, Error> {
        answer(|script| script.is_one_in(2))
    }

    fn list_keys(&self, _cursor: Option<String>) -> Result<KeyResponse, Error> {
        answer(|script| {
            let count = usize::from(script.byte());
            KeyResponse { keys: script.list(count, |script, _| script.text()), cursor: script.optional(Script::text) }
        })
    }
}

impl Batch for Component {
    fn get_many(_bucket: BucketBorrow<'_>, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        answer(|script| {
            script.list(keys.len(), |script, index| {
                script.optional(|script| {
                    let key = match keys.get(index) {
                        Some(key) if !script.is_one_in(16) => key.clone(),
                        _ => script.text(),
                    };
                    (key, script.bytes())
                })
            })
        })
    }

    fn set_many(_bucket: BucketBorrow<'_>, _key_values: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        answer(|_| ())
    }

    fn delete_many(_bucket: BucketBorrow<'_>, _keys: Vec<String>) -> Result<(), Error> {
        answer(|_| ())
    }
}

bindings::export!(Component with_types_in bindings);
