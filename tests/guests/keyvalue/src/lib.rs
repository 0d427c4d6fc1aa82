//! A plain `wasi:keyvalue@0.2.0-draft2` component with `batch`: byte values by key, in memory, in buckets. What a bucket does is
//! told by its name. See `tests/guests/README.md`.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "package guest:keyvalue; world both { \
                 export wasi:keyvalue/store@0.2.0-draft2; export wasi:keyvalue/batch@0.2.0-draft2; }",
        path: "../../../host/wit/keyvalue-0.2.0-draft2",
        world: "guest:keyvalue/both",
        generate_all,
    });
}

mod bucket;

use bindings::exports::wasi::keyvalue::batch::Guest as Batch;
use bindings::exports::wasi::keyvalue::store::{Bucket, BucketBorrow, Error, Guest as Store, GuestBucket, KeyResponse};

use bucket::{Held, Whim};

struct Component;

impl Store for Component {
    type Bucket = Held;

    fn open(identifier: String) -> Result<Bucket, Error> {
        Held::open(&identifier).map(Bucket::new)
    }
}

impl GuestBucket for Held {
    fn get(&self, key: String) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read(&key))
    }

    fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.write(key, value)
    }

    fn delete(&self, key: String) -> Result<(), Error> {
        self.forget(&key)
    }

    fn exists(&self, key: String) -> Result<bool, Error> {
        Ok(self.read(&key).is_some())
    }

    fn list_keys(&self, cursor: Option<String>) -> Result<KeyResponse, Error> {
        let (keys, cursor) = self.page(cursor)?;
        Ok(KeyResponse { keys, cursor })
    }
}

impl Batch for Component {
    fn get_many(bucket: BucketBorrow<'_>, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        let held: &Held = bucket.get();
        let mut answers: Vec<_> = keys.into_iter().map(|key| held.read(&key).map(|value| (key, value))).collect();
        match held.whim() {
            Whim::ShortAnswer => drop(answers.pop()),
            Whim::Swapped => answers.reverse(),
            Whim::None | Whim::EndlessListing => {}
        }
        Ok(answers)
    }

    fn set_many(bucket: BucketBorrow<'_>, key_values: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        let held: &Held = bucket.get();
        // The standard promises no order.
        key_values.into_iter().rev().try_for_each(|(key, value)| held.write(key, value))
    }

    fn delete_many(bucket: BucketBorrow<'_>, keys: Vec<String>) -> Result<(), Error> {
        let held: &Held = bucket.get();
        keys.iter().rev().try_for_each(|key| held.forget(key))
    }
}

bindings::export!(Component with_types_in bindings);
