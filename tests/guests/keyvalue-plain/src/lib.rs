//! The least that is a plain `wasi:keyvalue` component: `store` of the draft 0.2.0-draft, no `batch`, one bucket, in memory.
//! It lists its keys in the order in which they came, two at a time. See `tests/guests/README.md`.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "package guest:keyvalue-plain; world plain { export wasi:keyvalue/store@0.2.0-draft; }",
        path: "../../../host/wit/keyvalue-0.2.0-draft",
        world: "guest:keyvalue-plain/plain",
        generate_all,
    });
}

use std::cell::RefCell;

use bindings::exports::wasi::keyvalue::store::{Bucket, Error, Guest, GuestBucket, KeyResponse};

/// Keys in a page.
const PAGE: usize = 2;

/// A key with its value; `None` where one was deleted, so that the others keep their places.
type Place = Option<(String, Vec<u8>)>;

thread_local! {
    static VALUES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

struct Component;

/// The one bucket.
struct All;

impl Guest for Component {
    type Bucket = All;

    fn open(identifier: String) -> Result<Bucket, Error> {
        if identifier == "default" { Ok(Bucket::new(All)) } else { Err(Error::NoSuchStore) }
    }
}

impl GuestBucket for All {
    fn get(&self, key: String) -> Result<Option<Vec<u8>>, Error> {
        Ok(VALUES
            .with_borrow(|values| values.iter().flatten().find(|(k, _)| *k == key).map(|(_, value)| value.clone())))
    }

    fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        VALUES.with_borrow_mut(|values| match values.iter_mut().flatten().find(|(k, _)| *k == key) {
            Some((_, present)) => *present = value,
            None => values.push(Some((key, value))),
        });
        Ok(())
    }

    fn delete(&self, key: String) -> Result<(), Error> {
        VALUES.with_borrow_mut(|values| {
            if let Some(place) = values.iter_mut().find(|place| place.as_ref().is_some_and(|(k, _)| *k == key)) {
                *place = None;
            }
        });
        Ok(())
    }

    fn exists(&self, key: String) -> Result<bool, Error> {
        Ok(self.get(key)?.is_some())
    }

    fn list_keys(&self, cursor: Option<u64>) -> Result<KeyResponse, Error> {
        VALUES.with_borrow(|values| {
            let start = cursor.unwrap_or(0) as usize;
            let keys = values.iter().skip(start).take(PAGE).flatten().map(|(key, _)| key.clone()).collect();
            let next = start + PAGE;
            Ok(KeyResponse { keys, cursor: (next < values.len()).then_some(next as u64) })
        })
    }
}

bindings::export!(Component with_types_in bindings);
