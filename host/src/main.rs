//! The `memcell` binary.
fn main() {}
