//! The rules, the dashboard and the table of metrics, checked with promtool and with a real Prometheus that scrapes a real host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod dashboard;
mod live;
mod promql;
mod rules;
