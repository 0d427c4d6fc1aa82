//! The program as an operator uses it: keys in files, a reload, a rekey that is killed in the middle, a dictionary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memcell_tests::artifacts;
use memcell_tests::child::free_port;
use memcell_tests::host::TestHost;
use memcell_tests::mongo::MongoDb;
use memcell_tests::program::Memcell;
use memcell_tests::sample::Samples;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{append, done, figures, in_the_end, job, order};

/// A folder with a configuration, for a MongoDB that outlives its hosts.
struct Place {
    mongodb: MongoDb,
    folder: TempDir,
    port: u16,
}

impl Place {
    async fn new() -> Result<Self> {
        Ok(Self { mongodb: MongoDb::start().await?, folder: TempDir::new()?, port: free_port()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self, name: &str, digit: char) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, format!("{}\n", digit.to_string().repeat(64)))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// Writes the file: with these lines in [encryption] and in the backend's table.
    fn configure(&self, encryption: &str, backend: &str) -> Result<Memcell> {
        let (uri, port) = (self.mongodb.uri(), self.port);
        let plugin = json!(artifacts::plugin("file")?.to_string_lossy());
        let text = format!(
            "[mongodb]\nuri = \"{uri}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[encryption]\n{encryption}\n[backends.local]\nplugin = \
             {plugin}\nrequired = true\n{backend}\n[backends.local.grants]\ndirectory = \"data\"\n"
        );
        fs::write(self.path("memcell.toml"), text)?;
        Memcell::new(self.path("memcell.toml"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(reqwest::get(self.url(path)).await?.json().await?)
    }
}

async fn run(memcell: &Memcell, command: &str, arguments: &[&str]) -> Result<Output> {
    Ok(memcell.command(command).args(arguments).output().await?)
}

/// Runs a command that has to end well, and answers what it prints.
async fn good(memcell: &Memcell, command: &str, arguments: &[&str]) -> Result<Value> {
    let output = run(memcell, command, arguments).await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command} {arguments:?}: {}: {complaint}", output.status);
    let text = String::from_utf8(output.stdout)?;
    serde_json::from_str(&text).with_context(|| text)
}

fn samples(path: &Path, count: usize) -> Result<()> {
    let lines: Vec<String> = Samples::new(71).take(count).map(|sample| sample.to_string()).collect();
    Ok(fs::write(path, lines.join("\n"))?)
}

/// Longer than a new stream of changes reaches back.
const STREAMS_REACH_BACK: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn a_rekey_goes_on_after_a_kill_and_the_old_key_can_be_removed() -> Result<()> {
    let place = Place::new().await?;
    place.key("first.key", '1')?;
    place.key("second.key", '2')?;
    samples(&place.path("in.jsonl"), 1200)?;
    let first = "keys.first.file = \"first.key\"";
    let both = format!("{first}\nkeys.second.file = \"second.key\"");
    let memcell = place.configure(first, "encryption_key = \"first\"")?;
    memcell.import(&place.path("in.jsonl")).await?;
    // A stream of changes begins some seconds back. What it told after the reload would be written under the new key, and leave nothing
    // to be rewritten.
    tokio::time::sleep(STREAMS_REACH_BACK).await;
    let host = memcell.serve(&place.path("log")).await?;
    let backend = async || Ok::<Value, anyhow::Error>(place.get("/v1/backends").await?["items"][0].clone());
    let is_live = async || Ok(backend().await?["state"] == "live" && backend().await?["entries"] == 1200);
    in_the_end("everything is copied", is_live).await?;

    // The file says another key by now, and the running host takes it over.
    let memcell = place.configure(&both, "encryption_key = \"second\"")?;
    let reloaded = good(&memcell, "config", &["reload"]).await?;
    let changed: Vec<&str> =
        reloaded["changes"].as_array().unwrap().iter().filter_map(|one| one["key"].as_str()).collect();
    assert_eq!(changed, ["encryption.keys", "backends.local"], "{reloaded}");
    in_the_end("it is live again", is_live).await?;
    let ordered = good(&memcell, "rekey", &["--rate", "150", "--detach"]).await?;
    let path = format!("/v1/jobs/{}", ordered["id"].as_str().unwrap());
    let examined = async |at_least: u64| Ok(place.get(&path).await?["report"]["rewritten"].as_u64() >= Some(at_least));
    in_the_end("a part of it is done", async || examined(300).await).await?;
    // Killed without a warning.
    drop(host);
    let host = memcell.serve(&place.path("log")).await?;
    let client = reqwest::Client::new();
    in_the_end("the job has ended", async || {
        // Others write meanwhile.
        client.post(place.url("/v1/memcells")).json(&Samples::new(72).next()).send().await?;
        Ok(place.get(&path).await?["state"] != "running")
    })
    .await?;
    let job = place.get(&path).await?;
    assert_eq!((&job["state"], &job["report"]["outdated"]), (&json!("done"), &json!(0)), "{job}");
    assert!(job["report"]["rewritten"].as_u64() >= Some(300), "what was done before the kill is not done again: {job}");
    let keys = job["report"]["keys"].as_object().unwrap();
    assert_eq!(keys.len(), 1, "{job}");
    let verified = good(&memcell, "verify", &["--deep"]).await?;
    assert_eq!(verified["report"]["differences"], 0, "{verified}");
    host.stop().await?;

    // The old key goes, and nothing misses it.
    fs::remove_file(place.path("first.key"))?;
    let memcell = place.configure("keys.second.file = \"second.key\"", "encryption_key = \"second\"")?;
    let host = memcell.serve(&place.path("log")).await?;
    let verified = good(&memcell, "verify", &["--deep"]).await?;
    assert_eq!(verified["report"]["differences"], 0, "{verified}");
    host.stop().await?;
    // With nobody serving, the command does it by itself.
    let rekeyed = good(&memcell, "rekey", &[]).await?;
    assert_eq!((&rekeyed["report"]["rewritten"], &rekeyed["state"]), (&json!(0), &json!("done")), "{rekeyed}");

    // The wrong key, and none at all.
    place.key("second.key", '3')?;
    let refused = run(&memcell, "serve", &[]).await?;
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && complaint.contains("the key that is named second now is another one"),
        "{complaint}"
    );
    fs::remove_file(place.path("second.key"))?;
    let refused = run(&memcell, "serve", &[]).await?;
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{complaint}");
    assert!(
        complaint.contains("memcell.toml:6: encryption.keys.second.file: ")
            && complaint.contains("second.key can't be read"),
        "{complaint}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_is_trained_and_used() -> Result<()> {
    let place = Place::new().await?;
    samples(&place.path("in.jsonl"), 1500)?;
    let memcell = place.configure("", "compression = \"zstd\"")?;
    let (input, output) =
        (place.path("in.jsonl").display().to_string(), place.path("local.dictionary").display().to_string());
    let trained =
        good(&memcell, "codec", &["train", "--input", &input, "--size", "16KiB", "--output", &output]).await?;
    let bytes = |name: &str| trained[name].as_u64().unwrap();
    assert!(
        bytes("dictionary_zstd_bytes") < bytes("zstd_bytes") && bytes("zstd_bytes") < bytes("raw_bytes"),
        "{trained}"
    );
    assert_eq!((bytes("trained_on"), bytes("measured_on")), (1200, 300));
    let metadata = fs::metadata(&output)?;
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, bytes("dictionary_bytes")));
    // It may be needed: nothing overwrites it.
    let again = run(&memcell, "codec", &["train", "--input", &input, "--output", &output]).await?;
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    // From the collection.
    memcell.import(&place.path("in.jsonl")).await?;
    let other = place.path("other.dictionary").display().to_string();
    let drawn = good(
        &memcell,
        "codec",
        &["train", "--backend", "local", "--samples", "800", "--size", "16KiB", "--output", &other],
    )
    .await?;
    assert_eq!((&drawn["trained_on"], &drawn["measured_on"]), (&json!(640), &json!(160)), "{drawn}");
    fs::write(place.path("few.jsonl"), Samples::new(73).next().unwrap().to_string())?;
    let few = place.path("few.jsonl").display().to_string();
    let none = place.path("none.dictionary");
    let refused = run(&memcell, "codec", &["train", "--input", &few, "--output", &none.display().to_string()]).await?;
    assert!(refused.status.code() == Some(1) && !none.exists(), "{refused:?}");

    let memcell = place.configure("", "compression = \"zstd\"\ndictionary = \"local.dictionary\"")?;
    let host = memcell.serve(&place.path("log")).await?;
    in_the_end("everything is copied", async || Ok(place.get("/v1/backends").await?["items"][0]["entries"] == 1500))
        .await?;
    let rekeyed = good(&memcell, "rekey", &[]).await?;
    let used = rekeyed["report"]["dictionaries"].as_object().unwrap();
    assert_eq!(used.keys().collect::<Vec<_>>(), [trained["dictionary"].as_str().unwrap()], "{rekeyed}");
    let verified = good(&memcell, "verify", &["--deep"]).await?;
    assert_eq!(verified["report"]["differences"], 0, "{verified}");
    host.stop().await?;
    Ok(())
}

/// The same, in the test's process, with what a reload refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_key_over_and_refuses_one_that_can_not_be_read() -> Result<()> {
    let folder = TempDir::new()?;
    let key = |name: &str, digit: char| -> Result<String> {
        let path = folder.path().join(name);
        fs::write(&path, digit.to_string().repeat(64))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    };
    let (first, second) = (key("first", '1')?, key("second", '2')?);
    let plugin = json!(artifacts::plugin("file")?.to_string_lossy());
    let sections = |keys: &str, active: &str| {
        let data = folder.path().join("data");
        format!(
            "[validation]\nread_budget = \"2s\"\n[encryption]\n{keys}\n[backends.local]\nplugin = {plugin}\nencryption_key = \
             \"{active}\"\ngrants.directory = \"{}\"\n",
            data.display()
        )
    };
    let (with_first, with_second) =
        (format!("keys.first.file = \"{first}\"\n"), format!("keys.second.file = \"{second}\"\n"));
    let host = TestHost::start_from_file(&sections(&with_first, "first")).await?;
    host.live().await?;
    append(&host, 74, 60).await?;
    host.settled().await?;
    let reload = async || host.request("POST", "/v1/config/reload").await;

    // Without the key that the values need: the backend is given up, as any that can't be used.
    host.rewrite_config(&sections(&with_second, "second"))?;
    assert_eq!(reload().await?.status, 200);
    in_the_end("the backend is refused", async || {
        let backends = host.request("GET", "/v1/backends").await?.body;
        Ok(backends["items"][0]["state"] == "failed")
    })
    .await?;
    // A file that isn't there: nothing changes.
    host.rewrite_config(&sections("keys.first.file = \"nowhere\"\n", "first"))?;
    let refused = reload().await?;
    assert!(refused.status == 422 || refused.status == 400, "{refused:?}");
    assert!(refused.body.to_string().contains("nowhere"), "{refused:?}");

    host.rewrite_config(&sections(&format!("{with_first}{with_second}"), "second"))?;
    assert_eq!(reload().await?.status, 200);
    host.live().await?;
    let id = order(&host, &json!({ "kind": "rekey" })).await?;
    in_the_end("it has ended", async || Ok(job(&host, &id).await?["state"] == "done")).await?;
    assert_eq!(job(&host, &id).await?["report"]["rewritten"], 60);
    host.rewrite_config(&sections(&with_second, "second"))?;
    assert_eq!(reload().await?.status, 200);
    host.live().await?;
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    host.stop().await?;
    Ok(())
}
