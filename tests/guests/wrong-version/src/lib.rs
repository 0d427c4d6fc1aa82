//! A component for a version of the contract that this host doesn't know.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package memcell:kv@0.2.0;
            interface lifecycle { open: func(shard: u32); }
            interface store { stats: func() -> u64; }
            world backend { export lifecycle; export store; }
        ",
    });
}

use bindings::exports::memcell::kv::{lifecycle, store};

struct Later;

impl lifecycle::Guest for Later {
    fn open(_shard: u32) {}
}

impl store::Guest for Later {
    fn stats() -> u64 {
        0
    }
}

bindings::export!(Later with_types_in bindings);
