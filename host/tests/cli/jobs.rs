//! `backfill`, `verify`, `repair`, `restore` and `status`, with a host that runs and without one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::bench::{Bench, Host};

/// The component of the file backend, as `cargo xtask plugins` has built it.
fn file_plugin() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = match std::env::var_os("MEMCELL_COMPONENTS").filter(|given| !given.is_empty()) {
        Some(given) => workspace.join(given),
        None => workspace.join("target"),
    };
    let file = folder.join("plugins/file.wasm");
    assert!(file.is_file(), "there is no {}: run `cargo xtask plugins` first", file.display());
    file
}

/// With a MongoDB server of its own and a file backend, which whoever runs has to himself.
fn bench(port: u16) -> Bench {
    Bench::new(&format!(
        "[host]\nname = \"one\"\n[mongodb]\nuri = \"embedded\"\ndata_directory = \"data\"\n[http]\nlisten = \
         \"127.0.0.1:{port}\"\n[backends.disk]\nplugin = {:?}\n[backends.disk.grants]\ndirectory = \"copies\"\n",
        file_plugin()
    ))
}

/// A port that nobody listens on, so that no host is found there.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn documents(count: usize) -> String {
    let document = |n: usize| {
        let id = format!("{:024x}", n + 1);
        json!({ "event_id": id, "timestamp": "2025-06-26T00:03:30Z", "n": n, "text": "x".repeat(200) }).to_string()
    };
    (0..count).map(|n| document(n) + "\n").collect()
}

fn import(bench: &Bench, count: usize) {
    fs::write(bench.path("in.jsonl"), documents(count)).unwrap();
    bench.run(&["import", "in.jsonl"]).with(0);
}

fn report(ended: &super::bench::Ended) -> Value {
    ended.lines()[0]["report"].clone()
}

#[test]
fn jobs_are_done_without_a_host_and_a_lost_mongodb_is_restored() {
    let bench = bench(free_port());
    import(&bench, 300);
    let copied = bench.run(&["backfill", "--json"]).with(0);
    assert_eq!((&report(&copied)["copied"], &copied.lines()[0]["state"]), (&json!(300), &json!("done")));
    let verified = bench.run(&["verify", "--deep"]).with(0);
    assert!(
        verified.stdout.contains("verify of disk: done") && verified.stdout.contains("0 differences"),
        "{verified:#?}"
    );
    assert!(verified.stderr.contains("no host is running"), "{verified:#?}");
    let before = bench.run(&["export"]).with(0).stdout;

    fs::remove_dir_all(bench.path("data")).unwrap();
    assert!(bench.run(&["export"]).with(0).stdout.is_empty(), "all is lost");
    let restored = bench.run(&["restore", "--json"]).with(0);
    assert_eq!(report(&restored)["restored"], 300);
    assert_eq!(bench.run(&["export"]).with(0).stdout, before);
    bench.run(&["verify"]).with(0);
    let again = bench.run(&["restore"]).with(0);
    assert!(again.stdout.contains("300 copies whose document was there"), "{again:#?}");

    for (arguments, said) in [
        (&["verify", "--backend", "other"][..], "there is no backend \"other\", there is disk"),
        (&["verify", "--detach"], "leave --detach out"),
        (&["status"], "no host is running at 127.0.0.1:"),
        (&["verify", "--url", "http://127.0.0.1:1"], "http://127.0.0.1:1: no host answers"),
    ] {
        let ended = bench.run(arguments);
        assert!(ended.code != Some(0) && ended.stderr.contains(said), "{arguments:?}: {ended:#?}");
    }
    bench.run(&["verify", "--rate", "0"]).with(2);
}

#[test]
fn a_running_host_does_the_jobs_and_goes_on_after_a_kill() {
    let port = free_port();
    let bench = bench(port);
    import(&bench, 600);
    let host = Host::start(&bench);
    host.comes_to_answer("/v1/backends", "\"state\":\"live\"");
    let status = bench.run(&["status"]).with(0);
    assert!(status.stdout.contains("backend disk: live, 600 entries"), "{status:#?}");
    let verified = bench.run(&["verify", "--json"]).with(0);
    assert_eq!((&report(&verified)["examined"], &report(&verified)["differences"]), (&json!(1200), &json!(0)));

    let unchanged = bench.run(&["config", "reload"]).with(0);
    assert_eq!(unchanged.stdout, "nothing has changed\n");
    let text = fs::read_to_string(bench.path("memcell.toml")).unwrap();
    fs::write(bench.path("memcell.toml"), format!("{text}[validation]\nsample = 0.5\n")).unwrap();
    assert_eq!(bench.run(&["config", "reload"]).with(0).stdout, "validation.sample: changed\n");
    fs::write(bench.path("memcell.toml"), text.replace("data_directory = \"data\"", "data_directory = \"other\""))
        .unwrap();
    let refused = bench.run(&["config", "reload"]).with(1);
    assert!(refused.stderr.contains("mongodb.data_directory"), "{refused:#?}");
    fs::write(bench.path("memcell.toml"), text).unwrap();

    let slow = bench.run(&["repair", "--deep", "--rate", "150", "--detach", "--json"]).with(0);
    let job = slow.lines()[0]["id"].as_str().unwrap().to_owned();
    host.comes_to_answer(&format!("/v1/jobs/{job}"), "\"kind\":\"repair\"");
    let status = bench.run(&["status", "--json"]).with(0).lines();
    assert_eq!(status[0]["jobs"][0]["id"], json!(job));
    host.kill();

    let host = Host::start(&bench);
    host.comes_to_answer(&format!("/v1/jobs/{job}"), "\"state\":\"done\"");
    let (status, body) = host.ask("GET", &format!("/v1/jobs/{job}"));
    let done: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &done["report"]["differences"]), (200, &json!(0)), "{body}");
    assert_eq!(done["report"]["examined"], 1200, "{body}");
    host.terminate().with(0);
}
