//! Backfill, verify, repair and restore, with real backends, while others write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod faults;
mod foreign;
mod lifecycle;
mod restore;
mod shared;

pub(crate) use memcell_tests::work::{append, done, ended, figures, job, order};
