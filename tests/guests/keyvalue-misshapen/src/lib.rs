//! A component that exports `wasi:keyvalue/store` of the right draft, with a function that has another type.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, reason = "the generated exports are made of it")]

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "package wasi:keyvalue@0.2.0-draft2; interface store { open: func(identifier: string) -> u32; } \
                 world misshapen { export store; }",
        world: "wasi:keyvalue/misshapen",
    });
}

use bindings::exports::wasi::keyvalue::store::Guest;

struct Misshapen;

impl Guest for Misshapen {
    fn open(_identifier: String) -> u32 {
        0
    }
}

bindings::export!(Misshapen with_types_in bindings);
