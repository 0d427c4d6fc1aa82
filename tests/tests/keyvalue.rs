//! Plain `wasi:keyvalue` components as backends: `keyvalue` (draft 0.2.0-draft2, with `batch`) and `keyvalue-plain` (draft
//! 0.2.0-draft, without), and what is wrong with `keyvalue-misshapen`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{
    Backend, Condition, Engine, Entry, KvError, LoadError, Mark, Outcome, Plugin, ShardState, Write,
};
use memcell_host::metrics::Metrics;
use memcell_tests::artifacts;
use memcell_tests::host::{PATIENCE, TestHost, eventually};
use serde_json::json;

/// `keyvalue` with that bucket, or `keyvalue-plain`, which has only one.
fn config(guest: &str, settings: &[(&str, &str)]) -> Result<BackendConfig> {
    let mut config = BackendConfig::new("local", artifacts::guest(guest)?);
    config.settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    config.supervision.backoff_min = Duration::from_millis(10);
    config.supervision.backoff_max = Duration::from_millis(50);
    Ok(config)
}

fn both() -> Result<[BackendConfig; 2]> {
    Ok([config("keyvalue", &[])?, config("keyvalue_plain", &[])?])
}

fn load(config: &BackendConfig) -> Result<Plugin> {
    Ok(Plugin::load(&Engine::new(Engine::default_cache_directory())?, artifacts::file_of(config)?, None)?)
}

fn start(config: BackendConfig) -> Result<Backend> {
    let plugin = load(&config)?;
    let metrics = Arc::new(Metrics::new()).backend(&config.name);
    Ok(Backend::start(&plugin, &Arc::new(config), &metrics)?)
}

async fn open(config: BackendConfig) -> Result<Backend> {
    let backend = start(config)?;
    for mut state in backend.watch() {
        let running = state.wait_for(|state| matches!(state, ShardState::Running { .. }));
        tokio::time::timeout(PATIENCE, running).await.context("no instance was opened")??;
    }
    Ok(backend)
}

/// Why the first shard was given up.
async fn refused(config: BackendConfig) -> Result<String> {
    let backend = start(config)?;
    let mut state = backend.watch().into_iter().next().context("there is no shard")?;
    let failed = state.wait_for(|state| matches!(state, ShardState::Failed { .. }));
    match tokio::time::timeout(PATIENCE, failed).await.context("it was not given up")??.clone() {
        ShardState::Failed { reason } => Ok(reason),
        other => bail!("{other:?}"),
    }
}

fn entry(key: &str, stamp: u64, value: &[u8]) -> Entry {
    Entry { key: key.into(), stamp, expires_at: None, value: value.to_vec() }
}

fn put(key: &str, stamp: u64, value: &[u8]) -> Write {
    Write::Put(entry(key, stamp, value))
}

fn delete(key: &str, stamp: u64) -> Write {
    Write::Delete(Mark { key: key.into(), stamp, expires_at: None })
}

/// Writes that are all expected to end in an outcome.
async fn write(backend: &Backend, writes: Vec<Write>, condition: Condition) -> Result<Vec<Outcome>> {
    Ok(backend.write(writes, condition).await.into_iter().collect::<Result<_, KvError>>()?)
}

async fn get(backend: &Backend, key: &str) -> Result<Option<Entry>, KvError> {
    Ok(backend.get_many(&[key.to_owned()]).await?.pop().flatten())
}

/// All marks, in steps of `limit`; how many steps that took.
async fn scan(backend: &Backend, limit: u32) -> Result<(Vec<Mark>, usize)> {
    let (mut marks, mut steps, mut cursor) = (Vec::new(), 0, None);
    loop {
        let page = backend.scan(0, cursor, limit).await?;
        assert!(page.marks.len() <= limit as usize, "{} marks in a step of {limit}", page.marks.len());
        marks.extend(page.marks);
        steps += 1;
        cursor = page.next;
        if cursor.is_none() {
            return Ok((marks, steps));
        }
    }
}

fn unix_millis() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

#[test]
fn a_plain_component_is_told_by_its_exports() -> Result<()> {
    let [with_batch, without] = both()?;
    let draft2 = ["wasi:keyvalue/store@0.2.0-draft2", "wasi:keyvalue/batch@0.2.0-draft2"];
    assert_eq!(load(&with_batch)?.interfaces(), draft2);
    assert_eq!(load(&without)?.interfaces(), ["wasi:keyvalue/store@0.2.0-draft"]);
    let engine = Engine::new(Engine::default_cache_directory())?;
    let misshapen = Plugin::load(&engine, &artifacts::guest("keyvalue_misshapen")?, None);
    let error = misshapen.err().context("it was accepted")?;
    assert!(matches!(error, LoadError::WrongShape { .. }), "{error}");
    assert!(error.to_string().contains("`open` is (string) -> u32, where (string) -> result<own, variant"), "{error}");
    Ok(())
}

#[tokio::test]
async fn stamps_and_tombstones_are_the_hosts() -> Result<()> {
    for config in both()? {
        let backend = open(config).await?;
        let (applied, stale) = (Outcome::Applied, Outcome::Stale);
        assert_eq!(
            write(&backend, vec![put("a", 5, b"five"), put("b", 5, b"")], Condition::Newer).await?,
            [applied; 2]
        );
        assert_eq!(
            write(&backend, vec![put("a", 5, b"late"), put("a", 4, b"old")], Condition::Newer).await?,
            [stale; 2]
        );
        assert_eq!(get(&backend, "a").await?, Some(entry("a", 5, b"five")));
        assert_eq!(get(&backend, "b").await?, Some(entry("b", 5, b"")), "an empty value is a value");
        assert_eq!(write(&backend, vec![put("a", 5, b"tail")], Condition::NotOlder).await?, [applied]);
        assert_eq!(write(&backend, vec![put("a", 1, b"forced")], Condition::Always).await?, [applied]);
        assert_eq!(get(&backend, "a").await?, Some(entry("a", 5, b"forced")), "a stamp never goes down");
        assert_eq!(
            write(&backend, vec![delete("a", 6), delete("never there", 3)], Condition::Newer).await?,
            [applied; 2]
        );
        assert_eq!(get(&backend, "a").await?, None);
        assert_eq!(
            write(&backend, vec![put("a", 6, b"late"), put("never there", 2, b"late")], Condition::Newer).await?,
            [stale; 2]
        );
        assert_eq!(write(&backend, vec![put("a", 7, b"again")], Condition::Newer).await?, [applied]);
        // The same key several times in one call.
        let writes = vec![put("c", 2, b"2"), put("c", 1, b"1"), put("c", 3, b"3"), put("c", 3, b"late")];
        assert_eq!(write(&backend, writes, Condition::Newer).await?, [applied, stale, applied, stale]);
        let keys: Vec<String> = ["c", "x", "a", "c"].map(str::to_owned).to_vec();
        let found = backend.get_many(&keys).await?;
        let c = Some(entry("c", 3, b"3"));
        assert_eq!(found, [c.clone(), None, Some(entry("a", 7, b"again")), c]);
        let usage = backend.stats().await?;
        assert_eq!((usage.entries, usage.bytes), (3, 3 + 5 + 1));
        backend.flush().await?;
        assert!(backend.close(PATIENCE).await);
    }
    Ok(())
}

#[tokio::test]
async fn what_has_expired_is_absent_and_goes() -> Result<()> {
    for config in both()? {
        let backend = open(config).await?;
        let past = unix_millis()? - 1;
        let soon = unix_millis()? + 300;
        let expiring = |key: &str, at| Write::Put(Entry { expires_at: Some(at), ..entry(key, 9, b"v") });
        write(&backend, vec![expiring("past", past), expiring("soon", soon), put("stays", 9, b"v")], Condition::Newer)
            .await?;
        assert_eq!(get(&backend, "past").await?, None);
        assert_eq!(get(&backend, "stays").await?, Some(entry("stays", 9, b"v")));
        eventually("the entry expires", async || Ok(get(&backend, "soon").await?.is_none())).await?;
        assert!(unix_millis()? >= soon);
        assert_eq!(backend.stats().await?.entries, 1);
        let (marks, _) = scan(&backend, 10).await?;
        assert_eq!(marks, [Mark { key: "stays".into(), stamp: 9, expires_at: None }]);
        // Its stamp counts no more.
        assert_eq!(write(&backend, vec![put("soon", 1, b"new")], Condition::Newer).await?, [Outcome::Applied]);
    }
    Ok(())
}

#[tokio::test]
async fn scans_go_in_steps_of_the_callers_size() -> Result<()> {
    for (config, entries) in both()?.into_iter().zip([1025, 101]) {
        let backend = open(config).await?;
        let key = |n: usize| format!("key {n:04}");
        write(&backend, (0..entries).map(|n| put(&key(n), 7, b"v")).collect(), Condition::Newer).await?;
        write(&backend, vec![delete(&key(50), 8)], Condition::Newer).await?;
        let expected: Vec<String> = (0..entries).filter(|n| *n != 50).map(key).collect();
        for limit in [1, 7, 1000] {
            let (marks, steps) = scan(&backend, limit).await?;
            let mut keys: Vec<String> = marks.into_iter().map(|mark| mark.key).collect();
            keys.sort_unstable();
            assert_eq!(keys, expected, "in steps of {limit}");
            assert!(steps >= entries / limit as usize);
        }
        // Two scans at once, while entries come and go.
        let first = backend.scan(0, None, 5).await?;
        let second = backend.scan(0, None, 5).await?;
        assert_eq!(first.marks, second.marks);
        write(&backend, vec![delete(&key(2), 8), put("new", 1, b"v")], Condition::Newer).await?;
        let mut seen: Vec<String> = first.marks.into_iter().map(|mark| mark.key).collect();
        let mut cursor = first.next;
        while cursor.is_some() {
            let page = backend.scan(0, cursor, 5).await?;
            seen.extend(page.marks.into_iter().map(|mark| mark.key));
            cursor = page.next;
        }
        for n in (0..entries).filter(|n| ![2, 50].contains(n)) {
            assert!(seen.contains(&key(n)), "{n} was there all the time");
        }
        let error = backend.scan(0, Some("slot:1".into()), 5).await.err().context("a foreign cursor was taken")?;
        assert_eq!(error.label(), "invalid_argument");
        let rest = backend.scan(0, second.next, 5).await?;
        assert!(!rest.marks.is_empty(), "the other scan goes on");
    }
    Ok(())
}

#[tokio::test]
async fn buckets_that_cannot_be_had_say_why() -> Result<()> {
    for (settings, expected) in [
        (vec![("bucket", "nowhere")], "has no bucket \"nowhere\""),
        (vec![("bucket", "locked")], "denies access to the bucket \"locked\""),
        (vec![("bucket", "leftover")], "isn't empty"),
        (vec![("max_bytes", "1MiB")], "unknown setting \"max_bytes\"; known: bucket, persistent"),
    ] {
        let reason = refused(config("keyvalue", &settings)?).await?;
        assert!(reason.contains(expected), "{reason}");
    }
    let mut sharded = config("keyvalue", &[])?;
    sharded.shards = 2;
    assert!(refused(sharded).await?.contains("{shard}"));
    let mut sharded = config("keyvalue", &[("bucket", "m{shard}")])?;
    sharded.shards = 2;
    open(sharded).await?;
    // Somebody's value in a bucket that is said to be kept.
    let backend = open(config("keyvalue", &[("bucket", "leftover"), ("persistent", "true")])?).await?;
    let error = backend.scan(0, None, 5).await.err().context("it was understood")?;
    assert_eq!(error.label(), "corrupt", "{error}");
    // Trouble that may pass is no refusal: it is tried again.
    let backend = start(config("keyvalue", &[("bucket", "broken")])?)?;
    eventually("it is tried again", async || {
        let down =
            |state: &ShardState| matches!(state, ShardState::Down { reason, .. } if reason.contains("on purpose"));
        Ok(backend.states().first().is_some_and(down))
    })
    .await
}

/// With a grant of a directory, a component that writes files persists, and the operator says so.
#[tokio::test]
async fn what_is_kept_is_there_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let kept = |settings: &[(&str, &str)]| -> Result<BackendConfig> {
        let mut config = config("keyvalue", settings)?;
        config.grants.directory = Some(directory.path().to_path_buf());
        Ok(config)
    };
    let persistent = [("bucket", "files-{shard}"), ("persistent", "true")];
    let backend = open(kept(&persistent)?).await?;
    let writes = vec![put("a", 5, b"five"), put("b/\0", 5, b""), delete("gone", 5)];
    write(&backend, writes, Condition::Newer).await?;
    backend.flush().await?;
    assert!(backend.close(PATIENCE).await);
    let backend = open(kept(&persistent)?).await?;
    assert_eq!(get(&backend, "a").await?, Some(entry("a", 5, b"five")));
    let writes = vec![put("a", 5, b"late"), put("gone", 5, b"late"), put("gone", 4, b"late")];
    assert_eq!(write(&backend, writes, Condition::Newer).await?, [Outcome::Stale; 3]);
    let (mut marks, _) = scan(&backend, 10).await?;
    marks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(marks.iter().map(|mark| (mark.key.as_str(), mark.stamp)).collect::<Vec<_>>(), [("a", 5), ("b/\0", 5)]);
    assert!(backend.close(PATIENCE).await);
    let reason = refused(kept(&[("bucket", "files-0")])?).await?;
    assert!(reason.contains("isn't empty") && reason.contains("persistent = \"true\""), "{reason}");
    Ok(())
}

#[tokio::test]
async fn answers_to_another_question_cost_the_instance() -> Result<()> {
    let keys = ["a".to_owned(), "b".to_owned()];
    // One answer fewer than keys, to the read before a write as well; answers in reverse order.
    for (bucket, written) in [("short-answer", false), ("swapped", true)] {
        let backend = open(config("keyvalue", &[("bucket", bucket)])?).await?;
        let outcome = write(&backend, vec![put("a", 1, b"v")], Condition::Newer).await;
        assert_eq!(outcome.is_ok(), written, "{bucket}: {outcome:?}");
        if written {
            let error = backend.get_many(&keys).await.err().context("the answer was believed")?;
            assert_eq!(error.label(), "contract", "{error}");
        }
        eventually("the instance is replaced", async || Ok(backend.generation(0) == Some(2))).await?;
    }
    let reason = refused({
        let mut config = config("keyvalue", &[("bucket", "endless-listing")])?;
        config.supervision.restart_limit = 3;
        config
    })
    .await?;
    assert!(reason.contains("the next cursor is the same"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn more_than_an_answer_holds_is_read_in_parts() -> Result<()> {
    for mut config in both()? {
        config.limits.response = 4 << 20;
        config.limits.call_timeout = Duration::from_secs(20);
        config.limits.cpu = config.limits.call_timeout;
        let backend = open(config).await?;
        let keys: Vec<String> = (0..16).map(|n| format!("key {n}")).collect();
        for key in &keys {
            write(&backend, vec![put(key, 1, &[7; 256 << 10])], Condition::Newer).await?;
        }
        // 4 MiB of values and what comes with them.
        let found = backend.get_many(&keys[..15]).await?;
        assert!(found.iter().all(|entry| entry.as_ref().is_some_and(|entry| entry.value.len() == 256 << 10)));
        assert_eq!(backend.load().restarts, 0);
    }
    Ok(())
}

#[tokio::test]
async fn end_to_end_with_restarts() -> Result<()> {
    let document =
        |n: usize| json!({"user_id": "u", "timestamp": "2026-01-02T03:04:05Z", "summary": format!("number {n}")});
    for backend in both()? {
        let mut host = TestHost::start(vec![backend.clone()]).await?;
        host.live().await?;
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(host.append(&document(n)).await?);
        }
        host.settled().await?;
        let patched = host.json("PATCH", &format!("/v1/memcells/{}", ids[1]), &json!({"summary": "changed"})).await?;
        assert_eq!(patched.status, 200, "{patched:?}");
        assert_eq!(host.request("DELETE", &format!("/v1/memcells/{}", ids[2])).await?.status, 200);
        host.settled().await?;
        for round in ["at first", "after a restart"] {
            for (n, id) in ids.iter().enumerate() {
                if n == 2 {
                    assert_eq!(host.mirrored(id).await?, None, "{round}");
                    continue;
                }
                assert_eq!(host.mirrored(id).await?, host.stored(id).await?, "{round}");
                let answer = host.request("GET", &format!("/v1/memcells/{id}")).await?;
                assert_eq!(answer.header("x-memcell-validation"), "consistent", "{round}: {answer:?}");
            }
            let backends = host.request("GET", "/v1/backends").await?;
            assert_eq!(backends.body["items"][0]["entries"], 4, "{round}: {backends:?}");
            host.restart(vec![backend.clone()]).await?;
            host.live().await?;
        }
        assert_eq!(host.stop().await?, None);
    }
    Ok(())
}
