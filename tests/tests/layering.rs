//! The architecture's invariants of absence, and the house rules that no compiler checks, read off the source text.
//!
//! - only `host/src/mongo` names the crate `mongodb`, only `host/src/kv` names `wasmtime` (so neither does `host/src/http`)
//! - `host/src/store.rs` never names `axum`
//! - no manifest in `plugins/` depends on the host
//! - every source file opens with `//!`
//! - every guest in `tests/guests` is named by a test
//!
//! Comments and literals don't count as naming a crate, nor does a field or module of our own that has the same name.

#![expect(clippy::unwrap_used, reason = "a source file that can't be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use memcell_tests::artifacts::workspace;

/// A file, by its path from the root of the workspace with `/` between folders, and what is in it.
struct Source {
    path: String,
    text: String,
}

/// Crates whose names begin with `prefix` may only be named in files whose paths begin with `home`.
struct Confined {
    prefix: &'static str,
    home: &'static str,
}

const CONFINED: &[Confined] =
    &[Confined { prefix: "mongodb", home: "host/src/mongo" }, Confined { prefix: "wasmtime", home: "host/src/kv" }];

#[test]
fn crates_stay_where_they_belong() {
    let sources = sources("host/src", "rs");
    for home in CONFINED.iter().map(|confined| confined.home) {
        assert!(sources.iter().any(|source| is_below(&source.path, home)), "{home} is gone: correct this test");
    }
    no_violations(sources.iter().flat_map(check_crates).collect());
}

#[test]
fn plugins_depend_on_nothing_in_the_host() {
    let manifests = sources("plugins", "toml");
    assert!(!manifests.is_empty());
    no_violations(manifests.iter().flat_map(check_manifest).collect());
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let sources: Vec<Source> =
        ["host", "plugins", "tests", "xtask"].iter().flat_map(|folder| sources(folder, "rs")).collect();
    assert!(sources.len() > 10);
    no_violations(sources.iter().filter_map(check_opening).collect());
}

#[test]
fn every_guest_is_named_by_a_test() {
    let tests = ["tests/tests", "tests/fuzz", "host/tests"];
    let tests: Vec<Source> = tests.iter().flat_map(|folder| sources(folder, "rs")).collect();
    let tests: Vec<Source> = tests.into_iter().filter(|source| source.path != "tests/tests/layering.rs").collect();
    no_violations(guests().iter().filter_map(|guest| check_guest(guest, &tests)).collect());
}

/// Reports all violations at once.
fn no_violations(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} violation(s):\n{}", violations.len(), violations.join("\n"));
}

/// Where a file of the host names a crate that has no business there.
fn check_crates(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(code_of(&source.text).lines()) {
        for Confined { prefix, home } in CONFINED {
            if !is_below(&source.path, home) && names_crate(line, prefix) {
                violations.push(format!("{}:{number}: names the crate {prefix}, which only {home} may", source.path));
            }
        }
        if is_below(&source.path, "host/src/store") && names_crate(line, "axum") {
            violations.push(format!("{}:{number}: names the crate axum: the store knows no transport", source.path));
        }
    }
    violations
}

/// Where a plugin's manifest names the host, be it by package or by path.
fn check_manifest(source: &Source) -> Vec<String> {
    let names_host = |line: &str| {
        let setting = line.split_once('#').map_or(line, |(setting, _)| setting);
        setting.contains("memcell-host")
            || setting.split('"').any(|text| text.ends_with("../host") || text.contains("../host/"))
    };
    let lines = (1..).zip(source.text.lines()).filter(|(_, line)| names_host(line));
    lines.map(|(number, _)| format!("{}:{number}: a plugin depends on the host", source.path)).collect()
}

/// Whether a file fails to open with `//!` and some words.
fn check_opening(source: &Source) -> Option<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    (!says_something).then(|| format!("{}:1: does not open with `//!` and what the file is for", source.path))
}

/// Whether a guest (the name of its folder) occurs in no test. Tests may name it as a file, with underscores.
fn check_guest(guest: &str, tests: &[Source]) -> Option<String> {
    let names = [guest.to_owned(), guest.replace('-', "_")];
    let is_named = tests.iter().any(|test| {
        let text = without_comments(&test.text);
        let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
        words.any(|word| names.iter().any(|name| name == word))
    });
    (!is_named).then(|| format!("tests/guests/{guest}/Cargo.toml:1: no test names this guest"))
}

/// Whether a path is `home` itself, with or without `.rs`, or in a folder of that name.
fn is_below(path: &str, home: &str) -> bool {
    path.strip_prefix(home).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Whether a line of code names a crate whose name begins with `prefix`: as the first part of a path (`prefix::…`,
/// `::prefix_more::…`), in a `use` without further parts, or in an `extern crate`.
fn names_crate(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(start, _)| {
        let (before, found) = (&line[..start], &line[start..]);
        let end = found.find(|c: char| !is_word(c)).unwrap_or(found.len());
        let (name, after) = (&found[..end], &found[end..]);
        let is_whole = name == prefix || name[prefix.len()..].starts_with('_');
        // After a dot it is a field, after `name::` an item of ours.
        let outer = before.trim_end().strip_suffix("::").map(str::trim_end);
        let is_inner = before.ends_with(|c: char| is_word(c) || c == '.')
            || outer.is_some_and(|outer| {
                outer.ends_with(|c: char| is_word(c) || c == '>') && words(outer).last() != Some("use")
            });
        let statement = before.trim_start();
        let is_import = statement.starts_with("extern crate") || words(statement).any(|word| word == "use");
        is_whole && !is_inner && (after.trim_start().starts_with("::") || is_import)
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text without comments and without the contents of literals; line breaks stay, so that lines keep their numbers.
fn code_of(text: &str) -> String {
    strip(text, true)
}

/// The text without comments.
fn without_comments(text: &str) -> String {
    strip(text, false)
}

/// Enough of Rust's lexical rules to tell code from comments and literals: nested block comments, escapes, raw strings,
/// characters, lifetimes.
fn strip(text: &str, literals_too: bool) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let (length, is_kept) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = string(rest, after_word) {
            (length, !literals_too)
        } else {
            (first.len_utf8(), true)
        };
        let (taken, left) = rest.split_at(length);
        if is_kept {
            code.push_str(taken);
        } else {
            code.push(' ');
            code.extend(taken.chars().filter(|c| *c == '\n'));
        }
        rest = left;
    }
    code
}

/// The length of the block comment that the text begins with.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string or character literal that the text begins with, if it begins with one.
fn string(text: &str, after_word: bool) -> Option<usize> {
    let raw = text.strip_prefix('r').filter(|_| !after_word || text.starts_with("r\""));
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return Some(text[body..].find(&close).map_or(text.len(), |end| body + end + close.len()));
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' {
        // A lifetime has no second quote after its first character.
        let mut chars = text.chars().skip(1);
        let (inner, next) = (chars.next()?, chars.next());
        if inner != '\\' && next != Some('\'') {
            return None;
        }
    }
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    Some(text.len())
}

/// All files below a folder of the workspace with this extension, in a stable order; none if there is no such folder.
fn sources(folder: &str, extension: &str) -> Vec<Source> {
    let root = workspace();
    let mut files = Vec::new();
    collect(&root.join(folder), extension, &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let parts = file.strip_prefix(&root).unwrap().components();
        let path: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        Source { path: path.join("/"), text: fs::read_to_string(&file).unwrap() }
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, extension, files);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

/// The folders in `tests/guests` that hold a crate.
fn guests() -> Vec<String> {
    let manifests = sources("tests/guests", "toml");
    let folder =
        |source: Source| Some(source.path.strip_prefix("tests/guests/")?.strip_suffix("/Cargo.toml")?.to_owned());
    let guests: Vec<String> = manifests.into_iter().filter_map(folder).collect();
    assert!(!guests.is_empty());
    guests
}

/// That the checks can fail.
mod checks {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn naming_a_crate_is_seen_however_it_is_done() {
        for line in [
            "use mongodb::Client;",
            "use ::mongodb::Client;",
            "pub(crate) use mongodb;",
            "    let client: mongodb::Client = x;",
            "fn f(x: &::mongodb::Client) {}",
            "use {std::fs, mongodb::bson};",
            "extern crate mongodb as m;",
            "use mongodb as m;",
            "Vec<mongodb::Client>",
        ] {
            let found = check_crates(&source("host/src/store.rs", &format!("//! x\n\n{line}\n")));
            assert_eq!(
                found,
                ["host/src/store.rs:3: names the crate mongodb, which only host/src/mongo may"],
                "{line}"
            );
        }
        assert_eq!(
            check_crates(&source("host/src/http/a.rs", "use wasmtime_wasi::p2;\nwasmtime::Engine::new()")).len(),
            2
        );
        assert_eq!(check_crates(&source("host/src/mongo/a.rs", "use wasmtime::Engine;")).len(), 1);
        assert_eq!(check_crates(&source("host/src/store.rs", "use axum::Router;")).len(), 1);
        assert_eq!(check_crates(&source("host/src/store/read.rs", "use axum::Router;")).len(), 1);
        assert_eq!(check_crates(&source("host/src/mongodb_uri.rs", "use mongodb::Client;")).len(), 1);
    }

    #[test]
    fn what_only_looks_like_it_is_not_reported() {
        for text in [
            "// use mongodb::Client;",
            "/* mongodb::Client /* wasmtime:: */ mongodb:: */",
            "//! [`mongodb::Client`]",
            "config.mongodb.uri",
            "crate::config::mongodb::Settings",
            "use crate::config::mongodb;",
            "let mongodb = config();",
            r#"let text = "use mongodb::Client";"#,
            "let text = r#\"a \" mongodb::x\"#;",
            "let quote = '\"'; let text = \"mongodb::x\";",
            "fn f<'a>(x: &'a str) -> &'a str { \"wasmtime::\" }",
            "my_mongodb::Client",
            "mongodblike::Client",
        ] {
            assert_eq!(check_crates(&source("host/src/cli.rs", text)), [""; 0], "{text}");
        }
        assert_eq!(check_crates(&source("host/src/mongo/mod.rs", "use mongodb::Client;")), [""; 0]);
        assert_eq!(check_crates(&source("host/src/kv/mod.rs", "use wasmtime::Engine;")), [""; 0]);
        assert_eq!(check_crates(&source("host/src/http/mod.rs", "use axum::Router;")), [""; 0]);
    }

    #[test]
    fn literals_and_comments_keep_the_line_numbers() {
        let text = "/* a\n b */ let x = \"c\n d\";\nuse mongodb::Client;";
        let found = check_crates(&source("host/src/cli.rs", text));
        assert!(found[0].starts_with("host/src/cli.rs:4:"), "{found:?}");
    }

    #[test]
    fn a_plugin_that_depends_on_the_host_is_seen() {
        for line in [
            "memcell-host.workspace = true",
            "host = { path = \"../../host\" }",
            "core = { package = \"memcell-host\", version = \"1\" }",
            "part = { path = \"../../host/core\" }",
        ] {
            let found = check_manifest(&source("plugins/x/Cargo.toml", &format!("[dependencies]\n{line}\n")));
            assert_eq!(found, ["plugins/x/Cargo.toml:2: a plugin depends on the host"], "{line}");
        }
        let fine = "memcell-plugin.workspace = true # not memcell-host\nhostname = \"0.4\"\n";
        assert_eq!(check_manifest(&source("plugins/x/Cargo.toml", fine)), [""; 0]);
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_seen() {
        assert_eq!(check_opening(&source("a.rs", "//! Reads.\n")), None);
        for text in ["", "use std::fs;\n//! Late.\n", "// Reads.\n", "//!\n//! Late.\n", "\n//! Late.\n"] {
            assert!(check_opening(&source("a.rs", text)).is_some_and(|found| found.starts_with("a.rs:1:")), "{text:?}");
        }
    }

    #[test]
    fn a_guest_without_a_test_is_seen() {
        let test = |text: &str| vec![source("tests/tests/hostile.rs", text)];
        assert_eq!(check_guest("wrong-key", &test("load(\"wrong_key\")")), None);
        assert_eq!(check_guest("wrong-key", &test("let file = \"target/guests/wrong-key.wasm\";")), None);
        assert!(check_guest("wrong-key", &test("// load(\"wrong_key\")")).is_some());
        assert!(check_guest("hang", &test("let hanging = \"hangs\";")).is_some());
        assert!(check_guest("hang", &[]).is_some());
    }
}
