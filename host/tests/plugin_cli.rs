//! `memcell plugin` as an author has it: the real binary, on real components, and a scaffold followed to the letter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this file is tests, which fail by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A component that `cargo xtask plugins --guests` has built.
fn component(kind: &str, name: &str) -> String {
    let folder = match std::env::var_os("MEMCELL_COMPONENTS").filter(|given| !given.is_empty()) {
        Some(given) => workspace().join(given),
        None => workspace().join("target"),
    };
    let file = folder.join(kind).join(format!("{name}.wasm"));
    assert!(file.is_file(), "there is no {}: run `cargo xtask plugins --guests` first", file.display());
    file.to_str().unwrap().to_owned()
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"))).collect()
    }
}

fn plugin_in(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memcell"));
    command.arg("plugin").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env_remove("MEMCELL_CONFIG").env_remove("MEMCELL_LOG");
    Ended::from(command.output().unwrap())
}

fn plugin(arguments: &[&str]) -> Ended {
    plugin_in(Path::new("/"), arguments)
}

#[test]
fn a_plugin_that_keeps_the_contract_passes() {
    let file = component("plugins", "in_memory");
    let ended = plugin(&["test", &file, "--case", "position", "--case", "survives", "--seed", "7"]).with(0);
    assert!(ended.stdout.contains("ok       reads_are_answered_by_position"), "{ended:#?}");
    assert!(ended.stdout.contains("skipped  what_was_flushed_survives_a_crash"), "{ended:#?}");
    assert!(ended.stdout.contains("2 passed, 0 failed, 3 skipped") && ended.stdout.contains("(seed 7)"), "{ended:#?}");
    let lines =
        plugin(&["test", &file, "--json", "--case", "opens", "--case", "malformed", "--malformed", "max_bytes=x"])
            .with(0)
            .lines();
    assert_eq!(
        (lines[0]["case"].as_str(), lines[0]["verdict"].as_str()),
        (Some("opens_and_is_healthy"), Some("passed"))
    );
    assert_eq!(lines[1]["verdict"], "passed");
    assert_eq!(
        (lines[2]["summary"]["passed"].as_u64(), lines[2]["capabilities"]["persistent"].as_bool()),
        (Some(2), Some(false))
    );
}

#[test]
fn a_plugin_that_breaks_it_fails_and_says_how() {
    let file = component("guests", "mutant");
    let arguments = ["test", &file, "--setting", "mode=takes-empty-keys", "--case", "empty"];
    let ended = plugin(&arguments).with(1);
    for expected in [
        "FAILED   empty_keys_are_refused",
        "expected  put of an empty key: the error invalid-argument",
        "found     no error, but the answer [applied]",
        "contract  “Any character may occur, NUL included; an empty key doesn't.”",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}: {ended:#?}");
    }
    let lines = plugin(&[&arguments[..], &["--format", "json"]].concat()).with(1).lines();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["verdict"] == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["found"], "no error, but the answer [applied]");
}

#[test]
fn a_report_for_ci_goes_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = component("guests", "mutant");
    let arguments = ["test", &file, "--setting", "mode=takes-empty-keys", "--case", "empty", "--case", "malformed"];
    let ended =
        plugin_in(folder.path(), &[&arguments[..], &["--format", "junit", "--output", "report.xml"]].concat()).with(1);
    assert!(ended.stdout.contains("FAILED   empty_keys_are_refused"), "{ended:#?}");
    let xml = std::fs::read_to_string(folder.path().join("report.xml")).unwrap();
    assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites><testsuite "), "{xml}");
    assert!(xml.contains("failures=\"1\"") && xml.contains("skipped=\"1\""), "{xml}");
    assert!(xml.contains("<failure message=\"no error, but the answer [applied]\">"), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), xml.matches("</testcase>").count());
}

#[test]
fn what_can_not_be_tested_says_why() {
    let ended = plugin(&["test", "/nonexistent.wasm"]).with(1);
    assert!(ended.stderr.contains("can't read the plugin /nonexistent.wasm"), "{ended:#?}");
    let ended = plugin(&["test", &component("guests", "missing_store")]).with(1);
    assert!(ended.stderr.contains("memcell:kv/store@0.1.0"), "{ended:#?}");
    // It loads, and refuses to be opened: one case says so, and the others need not.
    let ended = plugin(&["test", &component("plugins", "in_memory"), "--setting", "max_bytes=lots"]).with(1);
    assert!(ended.stdout.contains("0 passed, 1 failed, 0 skipped") && ended.stdout.contains("max_bytes"), "{ended:#?}");
    let file = component("plugins", "in_memory");
    for arguments in [
        &["test"][..],
        &["test", &file, "--setting", "x"],
        &["test", &file, "--connect", "x"],
        &["test", &file, "--case", "no such case"],
        &["test", &file, "--format", "yaml"],
        &["new", "Bad_Name"],
        &["new", "fn"],
    ] {
        let ended = plugin(arguments).with(2);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{ended:#?}");
    }
}

#[test]
fn a_backend_of_the_configuration_is_tested_as_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let file = component("guests", "mutant");
    let config = format!(
        "[mongodb]\nuri = \"embedded\"\n[backends.local]\nplugin = {file:?}\n[backends.local.settings]\nmode = \"takes-empty-keys\"\n"
    );
    std::fs::write(folder.path().join("memcell.toml"), config).unwrap();
    let case = ["--case", "empty_keys"];
    plugin_in(folder.path(), &[&["test", "--backend", "local"], &case[..]].concat()).with(1);
    plugin_in(folder.path(), &[&["test", &file], &case[..]].concat()).with(0);
    let ended = plugin_in(folder.path(), &["test", "--backend", "other"]).with(2);
    assert!(ended.stderr.contains("it has local"), "{ended:#?}");
    plugin_in(folder.path(), &["test", "--backend", "local", "--config", "absent.toml"]).with(64);
}

#[test]
fn inspecting_tells_what_a_file_is() {
    let file = component("plugins", "in_memory");
    let report = &plugin(&["inspect", &file, "--json"]).with(0).lines()[0];
    assert_eq!((report["loads"].as_bool(), report["contract"].as_str()), (Some(true), Some("memcell:kv")));
    assert_eq!(report["capabilities"]["max_batch"], 4096);
    assert_eq!(report["bytes"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    let names = |key: &str| -> BTreeSet<String> {
        report[key].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        names("exports").contains("memcell:kv/store@0.1.0")
            && names("imports").contains("wasi:clocks/wall-clock@0.2.6")
    );
    assert!(!report["may_want"].as_array().unwrap().contains(&Value::from("files")), "{report}");
    let text = plugin(&["inspect", &file]).with(0).stdout;
    assert!(text.contains("backend   yes, of memcell:kv") && text.contains("get-many, put-many"), "{text}");

    let ended = plugin(&["inspect", &file, "--setting", "max_bytes=lots"]).with(0);
    assert!(ended.stdout.contains("can't be opened like this") && ended.stdout.contains("max_bytes"), "{ended:#?}");
    let ended = plugin(&["inspect", &component("guests", "missing_store")]).with(1);
    assert!(ended.stdout.contains("NO: ") && ended.stdout.contains("memcell:kv/lifecycle@0.1.0: close"), "{ended:#?}");
    let report = &plugin(&["inspect", &component("guests", "unsatisfied_import"), "--json"]).with(1).lines()[0];
    assert!(report["problem"].as_str().unwrap().contains("acme:radio/antenna"), "{report}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.wasm"), "#!/bin/sh").unwrap();
    let report = &plugin_in(folder.path(), &["inspect", "x.wasm", "--json"]).with(1).lines()[0];
    assert_eq!((report["loads"].as_bool(), report["contract"].is_null()), (Some(false), true));
}

/// Forbids what `MemoryDenyWriteExecute=` of systemd forbids, and becomes the program. A kernel that is older than Linux 6.3
/// doesn't know that: then it ends with 77.
const WITHOUT_EXECUTABLE_MEMORY: &str = "\
import ctypes, os, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN, NONE = 65, ctypes.c_ulong(1), ctypes.c_ulong(0)
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, NONE, NONE, NONE) != 0:
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn a_process_without_executable_memory_says_so_and_does_not_blame_the_plugin() {
    let mut command = Command::new("python3");
    command.args(["-c", WITHOUT_EXECUTABLE_MEMORY, env!("CARGO_BIN_EXE_memcell")]);
    command.args(["plugin", "inspect", &component("plugins", "in_memory"), "--json"]).stdin(Stdio::null());
    let ended = Ended::from(command.output().unwrap());
    if ended.code == Some(77) {
        eprintln!("not tried: this kernel can't forbid executable memory");
        return;
    }
    let report = &ended.with(1).lines()[0];
    let problem = report["problem"].as_str().unwrap();
    for part in ["in_memory.wasm can't be run", "may not make memory executable", "MemoryDenyWriteExecute="] {
        assert!(problem.contains(part), "{part} is not in {problem}");
    }
    assert!(!problem.contains("damaged"), "{problem}");
}

#[test]
fn a_benchmark_has_a_row_for_each_contender() {
    let file = component("plugins", "in_memory");
    let arguments = ["bench", &file, "--keys", "100", "--value-bytes", "100", "--time", "16", "--batch", "10"];
    let rows = plugin(&[&arguments[..], &["--json"]].concat()).with(0).lines();
    assert_eq!(rows.len(), 4 * 3, "scan, put, get, delete; the plugin, the baseline beside it, the native map");
    for row in &rows {
        let (p50, p99) = (row["p50_us"].as_f64().unwrap(), row["p99_us"].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= row["max_us"].as_f64().unwrap(), "{row}");
        assert!(row["items_per_second"].as_f64().unwrap() > 0.0 && row["calls"].as_u64().unwrap() > 0, "{row}");
    }
    let text = plugin(&arguments).with(0).stdout;
    assert!(text.contains("native    a HashMap") && text.contains("p99 µs"), "{text}");
}

/// Follows the scaffold's README, with the versions that this repository uses, so that nothing has to be fetched.
#[test]
fn a_scaffold_builds_and_passes_as_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let report = &plugin_in(folder.path(), &["new", "my-store", "--json"]).with(0).lines()[0];
    let ended = plugin_in(folder.path(), &["new", "my-store"]).with(1);
    assert!(ended.stderr.contains("is there already"), "{ended:#?}");
    let scaffold = folder.path().join("my-store");
    std::fs::copy(workspace().join("Cargo.lock"), scaffold.join("Cargo.lock")).unwrap();

    let readme = std::fs::read_to_string(scaffold.join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let commands: Vec<&str> = block.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    let component = report["component"].as_str().unwrap();
    let expected = [
        "rustup target add wasm32-wasip2".to_owned(),
        "cargo test".to_owned(),
        "cargo build --release --target wasm32-wasip2".to_owned(),
        format!("memcell plugin test {component}"),
    ];
    assert_eq!(commands, expected);
    for command in ["cargo test", "cargo build --release --target wasm32-wasip2"] {
        let arguments = command.split(' ').skip(1);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(arguments).arg("--offline").current_dir(&scaffold);
        for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
            cargo.env_remove(variable);
        }
        Ended::from(cargo.output().unwrap()).with(0);
    }
    let ended = plugin_in(&scaffold, &["test", component]).with(0);
    assert!(ended.stdout.contains(" 0 failed, "), "{ended:#?}");
}
