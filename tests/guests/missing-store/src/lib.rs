//! A component that can be opened and closed, and exports no `store`.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "package guest:missing-store; world half { export memcell:kv/lifecycle@0.1.0; }",
        path: "../../../wit",
        world: "guest:missing-store/half",
        generate_all,
    });
}

use bindings::exports::memcell::kv::lifecycle::{Error, Guest, Limits};

struct Half;

impl Guest for Half {
    fn open(_shard: u32, _settings: Vec<(String, String)>) -> Result<Limits, Error> {
        Ok(Limits { max_key_bytes: 256, max_value_bytes: 1024, max_batch: 1, persistent: false, shared: false })
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

bindings::export!(Half with_types_in bindings);
