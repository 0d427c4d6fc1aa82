//! Every input of the corpus, which is where findings are kept, tried again without a fuzzer.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its output is for whoever sees that"
)]

use std::fs;
use std::path::Path;

use memcell_fuzz::{TARGETS, target};

fn replay(name: &str) {
    let target = target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for file in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = file.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // What is printed last is what failed.
        println!("{}", path.display());
        (target.run)(&data);
        count += 1;
    }
    assert!(count > 3, "only {count} inputs in {}", folder.display());
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn envelope() {
    replay("envelope");
}

#[test]
fn http() {
    replay("http");
}

#[test]
fn import() {
    replay("import");
}

#[test]
fn plugin() {
    replay("plugin");
}

#[test]
fn every_target_has_a_test() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, ["config", "envelope", "http", "import", "plugin"]);
}
