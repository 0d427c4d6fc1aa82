//! The HTTP API, end to end: a real MongoDB server, the real store, the real in-memory component, real HTTP. Every
//! operation is here, and after every write the backend must hold exactly the live documents.

#![expect(clippy::indexing_slicing, reason = "a check of what is not there must fail, and does")]

mod bulk;
mod checks;
mod concurrency;
mod errors;
mod fidelity;
mod lists;
mod many;
mod memcells;
mod observe;
mod openapi;
mod outage;
mod transactions;
mod wire;
