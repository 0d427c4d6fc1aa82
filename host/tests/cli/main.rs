//! The command line as a user has it: the real binary, and a private MongoDB server where documents are needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of this file is tests, which fail by panicking"
)]

mod bench;
mod jobs;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use bench::{Bench, Ended, Host, PATIENCE};

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let bench = Bench::new("");
    for arguments in [&["conquer"][..], &["get"], &["get", "nonsense"], &["import", "-", "--batch", "0"]] {
        let ended = bench.run(arguments).with(2);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("--help"), "{ended:#?}");
    }
    assert!(bench.run(&[]).with(2).stderr.contains("Examples:"));
    let help = bench.run(&["import", "--help"]).with(0).stdout;
    assert!(help.contains("mongoexport") && help.contains("Exit code 1"), "{help}");
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let bench = Bench::new(
        "[mongodb]\nuri = \"mongodb://u:s3cret@h1/\"\n[http]\nlisten = \"here\"\nmax_body = 5\n[backends.local]\n\
         plugin = \"x.wasm\"\nshards = 0\ncolour = \"red\"\n",
    );
    for arguments in [&["config", "check"][..], &["serve"], &["import", "-"], &["export"]] {
        let ended = bench.run(arguments).with(64);
        assert!(ended.stdout.is_empty(), "{ended:#?}");
        assert!(!ended.stderr.contains("s3cret"));
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 4, "{ended:#?}");
        let expected = ["4: http.listen", "5: http.max_body", "8: backends.local.shards", "9: backends.local.colour"];
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(&format!("memcell.toml:{expected}: ")), "{line}");
        }
    }
    let report = &bench.run(&["config", "check", "--json"]).with(64).lines()[0];
    assert_eq!(report["fine"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 4);
    assert_eq!(report["problems"][0]["line"], 4);
}

/// What a command would stumble over is found by a check.
#[test]
fn a_uri_that_the_driver_does_not_take_is_a_problem() {
    for uri in
        ["mongodb://h:99999/", "mongodb://h/?serverSelectionTimeoutMS=x", "mongodb://h/?w=0", "mongodb+srv://a:1/"]
    {
        let bench = Bench::new(&format!("[mongodb]\nuri = \"{uri}\"\n"));
        let ended = bench.run(&["config", "check"]).with(64);
        assert!(ended.stdout.is_empty() && ended.stderr.starts_with("memcell.toml:2: mongodb.uri: "), "{ended:#?}");
        let report = &bench.run(&["config", "check", "--json"]).with(64).lines()[0];
        assert_eq!((&report["fine"], &report["problems"][0]["key"]), (&json!(false), &json!("mongodb.uri")));
    }
    Bench::new("[mongodb]\nuri = \"mongodb+srv://u:p@no.such.host.invalid/\"\n").run(&["config", "check"]).with(0);
}

#[test]
fn a_missing_configuration_is_a_bad_one() {
    let bench = Bench::new("");
    let ended = bench.run(&["serve", "--config", "elsewhere.toml"]).with(64);
    assert!(ended.stderr.contains("elsewhere.toml") && ended.stderr.contains("config example"), "{ended:#?}");
    let ended = Ended::from(bench.command(&["serve"]).env("MEMCELL_CONFIG", "away.toml").output().unwrap()).with(64);
    assert!(ended.stderr.contains("away.toml"), "{ended:#?}");
    // An empty one is none.
    let ended = Ended::from(bench.command(&["config", "check"]).env("MEMCELL_CONFIG", "").output().unwrap()).with(64);
    assert!(ended.stderr.contains("memcell.toml: mongodb"), "{ended:#?}");
}

#[test]
fn a_verdict_stands_though_nobody_reads_it() {
    let bench = Bench::new("[mongodb]\nurl = \"mistyped\"\n");
    let mut child = bench.command(&["config", "check", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(64));
}

#[test]
fn the_example_is_fine() {
    let bench = Bench::new("");
    fs::write(bench.path("memcell.toml"), bench.run(&["config", "example"]).with(0).stdout).unwrap();
    let ended = bench.run(&["config", "check"]).with(0);
    assert!(ended.stdout.starts_with("memcell.toml is fine\n"), "{ended:#?}");
    assert!(
        ended.stdout.contains("backend   local: target/plugins/in_memory.wasm, which is no file that is there"),
        "{ended:#?}"
    );
    let report = &bench.run(&["config", "check", "--json"]).with(0).lines()[0];
    assert_eq!((&report["fine"], &report["backends"][0]["plugin_found"]), (&json!(true), &json!(false)));
}

#[test]
fn a_required_plugin_has_to_be_there() {
    let bench = Bench::new("[mongodb]\nuri = \"embedded\"\n[backends.a]\nplugin = \"x.wasm\"\nrequired = true\n");
    let ended = bench.run(&["config", "check"]).with(64);
    assert!(ended.stdout.is_empty() && ended.stderr.contains("backends.a.plugin: x.wasm: there is no"), "{ended:#?}");
    fs::write(bench.path("x.wasm"), "").unwrap();
    let ended = bench.run(&["config", "check"]).with(64);
    assert!(ended.stderr.contains("backends.a.plugin: x.wasm is not a WebAssembly file"), "{ended:#?}");
}

#[test]
fn a_plugin_that_a_host_starts_without_is_checked_as_well() {
    let bench = Bench::new("[mongodb]\nuri = \"embedded\"\n[backends.a]\nplugin = \"x.wasm\"\n");
    fs::write(bench.path("x.wasm"), "").unwrap();
    let ended = bench.run(&["config", "check"]).with(0);
    let told = "can't be loaded, and the host starts without it: plugin: x.wasm is not a WebAssembly file";
    assert!(ended.stdout.contains(told), "{ended:#?}");
    let report = &bench.run(&["config", "check", "--json"]).with(0).lines()[0];
    let problem = report["backends"][0]["problem"].as_str().unwrap_or_default();
    assert!(report["fine"] == true && problem.contains("not a WebAssembly file"), "{report}");
}

/// Documents of every type in canonical Extended JSON, as `export` writes them: the host's own fields last.
fn typed_documents() -> Vec<Value> {
    let times = json!({ "$date": { "$numberLong": "1750896210123" } });
    let document = |id: Value, more: Value| {
        let mut document = json!({ "_id": id, "timestamp": times, "user_id": "u1" });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document["created_at"] = times.clone();
        document["updated_at"] = times.clone();
        document
    };
    vec![
        document(
            json!({ "$oid": "685c8c52a1b2c3d4e5f60701" }),
            json!({
                "extend": {
                    "int": { "$numberInt": "1" }, "long": { "$numberLong": "1" }, "double": { "$numberDouble": "1.0" },
                    "nan": { "$numberDouble": "NaN" }, "decimal": { "$numberDecimal": "1.50" }, "null": null,
                    "bytes": { "$binary": { "base64": "AAE=", "subType": "00" } }, "none": [], "nothing": {},
                    "text": "", "unicode": "h\u{e9} \u{1F600} \u{0} \"",
                },
                "summary": null,
            }),
        ),
        document(json!("a string"), json!({ "group_id": "g1" })),
        document(json!({ "$numberLong": "7" }), json!({ "user_id": null })),
        document(
            json!({ "$oid": "685c8c52a1b2c3d4e5f60702" }),
            json!({ "deleted_at": times, "deleted_by": "somebody", "unknown": { "deep": [{ "$numberInt": "1" }] } }),
        ),
    ]
}

fn json_lines(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("{document}\n")).collect()
}

/// What was exported, by id, without what an import sets anew.
fn without_revisions(mut documents: Vec<Value>) -> Vec<Value> {
    for document in &mut documents {
        document.as_object_mut().unwrap().shift_remove("revision").expect("a revision");
    }
    sorted(documents)
}

fn sorted(mut documents: Vec<Value>) -> Vec<Value> {
    documents.sort_by_key(|document| document["_id"].to_string());
    documents
}

#[test]
fn what_is_exported_is_imported_with_identical_types() {
    let bench = Bench::with_server();
    let documents = typed_documents();
    fs::write(bench.path("in.jsonl"), json_lines(&documents)).unwrap();
    let ended = bench.run(&["import", "in.jsonl"]).with(0);
    assert!(ended.stdout.starts_with("read 4: imported 4; "), "{ended:#?}");

    let exported = bench.run(&["export", "--include-deleted"]).with(0);
    assert_eq!(without_revisions(exported.lines()), sorted(documents));
    let to_file = bench.run(&["export", "out.jsonl", "--include-deleted", "--json"]).with(0);
    assert_eq!(to_file.lines()[0]["exported"], 4);
    assert_eq!(fs::read_to_string(bench.path("out.jsonl")).unwrap(), exported.stdout);

    // Whatever bears an id that is there already is left alone, and that is no failure.
    let again = bench.run(&["import", "out.jsonl", "--strict", "--json"]).with(0);
    assert_eq!(again.figures(), [4, 0, 4, 0, 0]);

    let live = bench.run(&["export"]).with(0).lines();
    assert_eq!(live.len(), 3);
    let of_user = bench.run(&["export", "--user-id", "u1", "--format", "api"]).with(0).lines();
    let ids: Vec<&str> = of_user.iter().map(|document| document["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2, "{of_user:#?}");
    assert!(ids.contains(&"685c8c52a1b2c3d4e5f60701"), "{ids:?}");
    assert_eq!(bench.run(&["export", "--group-id", "g1"]).with(0).lines().len(), 1);
    let ranges = [("2025-06-26T00:03:30.123Z", 3), ("2025-06-26T00:03:30.124Z", 0), ("2025-06-26T08:03:30+08:00", 3)];
    for (start, count) in ranges {
        assert_eq!(bench.run(&["export", "--start", start]).with(0).lines().len(), count, "{start}");
    }
    assert_eq!(bench.run(&["export", "--end", "2025-06-26T00:03:30.123Z"]).with(0).lines().len(), 0);
    bench.run(&["export", "--start", "2025-01-02", "--end", "2025-01-01"]).with(1);
}

#[test]
fn documents_are_got_by_id() {
    let bench = Bench::with_server();
    bench.run_with_input(&["import", "-"], json_lines(&typed_documents()).as_bytes()).with(0);
    let upper = "685C8C52A1B2C3D4E5F60701";
    let one = bench.run(&["get", upper]).with(0);
    assert!(one.stdout.starts_with("{\n  \"event_id\": \"685c8c52a1b2c3d4e5f60701\""), "{one:#?}");
    assert_eq!(bench.run(&["get", "--json", upper, upper]).with(0).lines().len(), 2);

    let deleted = "685c8c52a1b2c3d4e5f60702";
    let missing = bench.run(&["get", "--json", deleted, upper]).with(1);
    assert_eq!(missing.lines().len(), 1);
    assert!(missing.stderr.contains(&format!("there is no MemCell {deleted}")), "{missing:#?}");
}

#[test]
fn bad_lines_are_told_and_skipped() {
    let bench = Bench::with_server();
    let input = "\u{feff}{\"timestamp\": \"2025-06-26T00:03:30Z\", \"user_id\": \"private\"}\r\n\r\n\
                 {\"timestamp\": \"2025-06-26 00:03\",, \"user_id\": \"private\"}\r\n   \n\
                 {\"user_id\": \"private\"}\n\
                 {\"timestamp\": \"2025-06-26\", \"keywords\": [\"private\", 7]}\n\
                 {\"timestamp\": \"2025-06-26\"}";
    let ended = bench.run_with_input(&["import", "-", "--log", "trace"], input.as_bytes()).with(1);
    assert!(ended.stdout.starts_with("read 5: imported 2, 3 invalid; "), "{ended:#?}");
    assert!(ended.stderr.contains("line 3, column 34: not valid json: "), "{ended:#?}");
    assert!(ended.stderr.contains("line 5: timestamp: a MemCell needs a timestamp\n"), "{ended:#?}");
    assert!(ended.stderr.contains("line 6: keywords[1]: expected a string, found a number\n"), "{ended:#?}");
    // Whatever is logged, no contents are.
    assert!(!ended.stderr.contains("private"), "{ended:#?}");

    let as_json = bench.run_with_input(&["import", "-", "--json"], b"?\n").with(1);
    let complaint: Value = serde_json::from_str(as_json.stderr.trim()).unwrap();
    assert_eq!((&complaint["line"], &complaint["column"]), (&json!(1), &json!(1)));
}

/// Nothing that is in MongoDB is lost by an export and an import, whoever wrote it.
#[test]
fn what_no_rule_would_let_pass_is_brought_back_exactly() {
    let foreign = [
        json!({ "_id": { "$oid": "685c8c52a1b2c3d4e5f60703" } }),
        json!({ "_id": "no dates", "timestamp": "2025-06-26", "created_at": null, "updated_at": { "$numberInt": "5" } }),
        json!({ "_id": { "$numberInt": "3" }, "event_id": "x", "timestamp": null, "user_id": { "$numberInt": "7" } }),
        json!({ "_id": "fields", "": null, "deleted_at": "yes", "extend": [], "participants": [null], "sub": { "$oid": "zz" } }),
    ];
    let bench = Bench::with_server();
    fs::write(bench.path("in.jsonl"), json_lines(&foreign)).unwrap();
    assert_eq!(bench.run(&["import", "in.jsonl", "--json"]).with(1).figures()[1], 0, "they are no MemCells");
    let ended = bench.run(&["import", "in.jsonl", "--exact"]).with(0);
    assert!(ended.stdout.starts_with("read 4: imported 4; "), "{ended:#?}");
    let exported = bench.run(&["export", "--include-deleted"]).with(0);
    assert_eq!(without_revisions(exported.lines()), sorted(foreign.to_vec()));
}

#[test]
fn strict_imports_nothing_behind_the_first_bad_line() {
    let bench = Bench::with_server();
    let good = |number: u32| format!("{{\"_id\": {number}, \"timestamp\": \"2025-06-26\"}}\n");
    let mut input: String = (1..=25).map(good).collect();
    input.push_str("{\"_id\": 26}\n");
    input.extend((27..=500).map(good));
    fs::write(bench.path("in.jsonl"), input).unwrap();
    let ended = bench.run(&["import", "in.jsonl", "--strict", "--batch", "10", "--json"]).with(1);
    assert_eq!(ended.figures(), [26, 25, 0, 1, 0]);
    assert!(ended.stderr.contains("\"line\":26"), "{ended:#?}");
    assert_eq!(bench.run(&["export"]).with(0).lines().len(), 25);
    let ended = bench.run(&["import", "in.jsonl", "--batch", "10", "--json"]).with(1);
    assert_eq!(ended.figures(), [500, 474, 25, 1, 0]);
}

#[test]
fn arrays_are_imported_also_pretty_and_damaged_ones() {
    let bench = Bench::with_server();
    let documents: Vec<Value> =
        (0..50).map(|n| json!({ "_id": n, "timestamp": "2025-06-26", "keywords": ["],"] })).collect();
    let pretty = serde_json::to_string_pretty(&documents).unwrap();
    let import = |input: &str| bench.run_with_input(&["import", "-", "--json", "--batch", "7"], input.as_bytes());
    assert_eq!(import(&format!("\u{feff}\r\n{pretty}\n")).with(0).figures(), [50, 50, 0, 0, 0]);
    assert_eq!(import(&Value::from(documents).to_string()).with(0).figures(), [50, 0, 50, 0, 0]);
    assert_eq!(import("[]").with(0).figures(), [0; 5]);
    assert_eq!(import("").with(0).figures(), [0; 5]);
    let ended =
        import("[\n{\"_id\": 100, \"timestamp\": \"2025-06-26\"},\n{\"_id\": 101, \"timestamp\": \"no\"},\n{\"_id\"")
            .with(1);
    assert_eq!(ended.figures(), [3, 1, 0, 2, 0]);
    assert!(ended.stderr.contains("\"line\":3") && ended.stderr.contains("the array is not closed"), "{ended:#?}");
}

#[test]
fn what_mongoexport_writes_is_imported() {
    let bench = Bench::with_server();
    let relaxed = r#"{"_id":{"$oid":"685c8c52a1b2c3d4e5f60711"},"timestamp":{"$date":"2025-06-26T00:03:30.123Z"},"extend":{"n":5,"l":{"$numberLong":"5"}}}"#;
    let canonical = r#"{"_id":{"$oid":"685c8c52a1b2c3d4e5f60712"},"timestamp":{"$date":{"$numberLong":"1750896210123"}},"extend":{"n":{"$numberInt":"5"},"d":{"$numberDouble":"5.0"}},"revision":{"$numberLong":"12"}}"#;
    let api = r#"{"event_id":"685C8C52A1B2C3D4E5F60713","timestamp":"2025-06-26T08:03:30.1239+08:00"}"#;
    let again = r#"{"_id":{"$oid":"685c8c52a1b2c3d4e5f60711"},"timestamp":"2025-01-01"}"#;
    let input = format!("{relaxed}\n{canonical}\n{api}\n{again}\n");
    let ended = bench.run_with_input(&["import", "-", "--json"], input.as_bytes()).with(0);
    assert_eq!(ended.figures(), [4, 3, 1, 0, 0]);
    let stored = sorted(bench.run(&["export"]).with(0).lines());
    assert_eq!(stored.len(), 3);
    for (document, last) in stored.iter().zip(["1", "2", "3"]) {
        assert_eq!(document["_id"]["$oid"], format!("685c8c52a1b2c3d4e5f6071{last}"));
        assert_eq!(document["timestamp"], json!({ "$date": { "$numberLong": "1750896210123" } }));
    }
    assert_eq!(stored[0]["extend"], json!({ "n": { "$numberInt": "5" }, "l": { "$numberLong": "5" } }));
    assert_eq!(stored[1]["extend"], json!({ "n": { "$numberInt": "5" }, "d": { "$numberDouble": "5.0" } }));
}

#[test]
fn whoever_has_seen_enough_ends_an_export_quietly() {
    let bench = Bench::with_server();
    let filler = "x".repeat(10_000);
    let input: String =
        (0..200).map(|_| format!("{{\"timestamp\": \"2025-06-26\", \"summary\": \"{filler}\"}}\n")).collect();
    bench.run_with_input(&["import", "-"], input.as_bytes()).with(0);
    let mut child = bench.command(&["export"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with('{'));
    let ended = Ended::from(child.wait_with_output().unwrap()).with(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_mongodb_that_is_down_ends_an_import_within_bounds() {
    let bench = Bench::new("[mongodb]\nuri = \"mongodb://127.0.0.1:1/\"\nconnect_timeout = \"300ms\"\n");
    let started = Instant::now();
    let ended = bench.run_with_input(&["import", "-", "--json"], b"{\"timestamp\": \"2025-06-26\"}\n").with(1);
    assert_eq!(ended.figures(), [1, 0, 0, 0, 1]);
    assert!(ended.stderr.lines().any(|line| line.starts_with("error: ")), "{ended:#?}");
    bench.run(&["get", "685c8c52a1b2c3d4e5f60701"]).with(1);
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let bench = Bench::with_server();
    let ended = bench.run(&["import", "nowhere.jsonl"]).with(1);
    assert!(ended.stderr.starts_with("error: nowhere.jsonl: "), "{ended:#?}");
    let ended = bench.run(&["import", "."]).with(1);
    assert!(ended.stderr.contains("a directory"), "{ended:#?}");
}

#[test]
fn a_host_serves_until_it_is_told_to_end() {
    let bench = Bench::with_server();
    let host = Host::start(&bench);
    assert_eq!(host.status_of("/healthz"), 200);
    assert_eq!(host.status_of("/v1/memcells/count"), 200);
    let ended = host.terminate().with(0);
    // Not a terminal, so the log is for programs.
    let events: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["message"] == "starting" && event["mongodb"] == "embedded"), "{ended:#?}");
}

#[test]
fn a_hangup_has_the_configuration_read_again() {
    let head = "[mongodb]\nuri = \"embedded\"\ndata_directory = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
    let bench = Bench::new(head);
    let write = |sections: &str| fs::write(bench.path("memcell.toml"), format!("{head}{sections}")).unwrap();
    let host = Host::start(&bench);
    // There is no such plugin. That is no reason not to add it, and it shows where relative paths are taken from.
    write("[backends.first]\nplugin = \"plugins/none.wasm\"\n[log]\nlevel = \"debug\"\n");
    host.signal("HUP");
    host.comes_to_answer("/v1/backends", "\"name\":\"first\",\"plugin\":\"plugins/none.wasm\"");
    host.comes_to_answer("/v1/backends", "\"state\":\"failed\"");

    write("[backends.second]\nplugin = \"plugins/none.wasm\"\n");
    host.signal("HUP");
    host.comes_to_answer("/v1/backends", "second");
    assert_eq!(host.status_of("/healthz"), 200);

    let ended = host.terminate().with(0);
    let events: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changed = |key: &str, change: &str| {
        events.iter().any(|event| {
            event["message"] == "configuration changed" && event["key"] == key && event["change"] == change
        })
    };
    assert!(changed("backends.first", "added") && changed("backends.first", "removed"), "{ended:#?}");
    assert!(changed("backends.second", "added") && changed("log.level", "changed"), "{ended:#?}");
    assert!(events.iter().any(|event| event["level"] == "DEBUG"), "the new level is in effect: {ended:#?}");
}

#[test]
fn a_wrong_configuration_on_a_hangup_is_an_error_in_the_log() {
    let bench = Bench::with_server();
    let mut host = Host::start(&bench);
    fs::write(bench.path("memcell.toml"), "[mongodb]\nuri = 1\n[http]\nlisen = 1\n").unwrap();
    host.signal("HUP");
    let event = host.wait_for_event("the configuration was not reloaded, nothing was changed");
    assert_eq!(event["level"], "ERROR");
    let error = event["error"].as_str().unwrap();
    assert!(
        error.contains("memcell.toml:2: mongodb.uri: ") && error.contains("memcell.toml:4: http.lisen: "),
        "{error}"
    );
    assert_eq!(host.status_of("/healthz"), 200);
}

#[test]
fn a_host_serves_without_mongodb_and_says_so() {
    let bench = Bench::new(
        "[mongodb]\nuri = \"mongodb://u:s3cret@127.0.0.1:1/\"\nconnect_timeout = \"200ms\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
    );
    let host = Host::start(&bench);
    assert_eq!(host.status_of("/healthz"), 200);
    assert_eq!(host.status_of("/readyz"), 503);
    let ended = host.terminate().with(0);
    assert!(ended.stderr.contains("mongodb://u:***@127.0.0.1:1/") && !ended.stderr.contains("s3cret"), "{ended:#?}");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::with_server();
    let mut serve = bench.command(&["serve"]);
    let ended =
        Ended::from(serve.env("MEMCELL_HTTP_LISTEN", taken.local_addr().unwrap().to_string()).output().unwrap());
    let ended = ended.with(1);
    assert!(ended.stderr.contains("error: http.listen 127.0.0.1:"), "{ended:#?}");
}

#[test]
fn a_required_backend_that_fails_keeps_the_host_from_serving() {
    let bench = Bench::new(
        "[mongodb]\nuri = \"embedded\"\ndata_directory = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n[backends.vital]\n\
         plugin = \"x.wasm\"\nrequired = true\n",
    );
    fs::write(bench.path("x.wasm"), "no component").unwrap();
    let ended = bench.run(&["serve"]);
    assert_ne!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stdout.is_empty() && ended.stderr.contains("vital"), "{ended:#?}");
}
