//! What `wit/kv.wit` says, as Rust: generated, and named by nothing but this folder.

#![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated code")]
#![allow(clippy::all, clippy::indexing_slicing, clippy::unwrap_used, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "backend",
    exports: { default: async },
    additional_derives: [Clone, PartialEq, Eq],
});

/// The optional interfaces.
pub mod with_digests {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "with-digests",
        exports: { default: async },
        with: { "memcell:kv/types": super::memcell::kv::types },
        additional_derives: [Clone, PartialEq, Eq],
    });
}

/// See [`with_digests`].
pub mod with_fencing {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "with-fencing",
        exports: { default: async },
        with: { "memcell:kv/types": super::memcell::kv::types },
    });
}

/// See [`with_digests`].
pub mod with_two_phase {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "with-two-phase",
        exports: { default: async },
        with: { "memcell:kv/types": super::memcell::kv::types },
    });
}

/// The package that a component must export the interfaces of.
pub const PACKAGE: &str = "memcell:kv";
/// The version of the contract that this host speaks.
pub const VERSION: &str = "0.1.0";
/// The interfaces that make a component a backend.
pub const REQUIRED_INTERFACES: [&str; 2] = ["lifecycle", "store"];
/// Those that it may leave out.
pub const OPTIONAL_INTERFACES: [&str; 3] = ["digests", "fencing", "two-phase"];
