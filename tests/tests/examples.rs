//! The example backends in other languages: each under the default limits, by the contract's calls and end to end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Backend, Condition, Engine, Entry, KvError, Mark, Outcome, Plugin, ShardState, Write};
use memcell_host::metrics::Metrics;
use memcell_tests::artifacts;
use memcell_tests::host::{PATIENCE, TestHost, eventually};
use serde_json::json;

/// An example with the default limits, but for calls: compiled without optimisation, the host is slow, and so is a machine on
/// which several tests compile at a time.
fn config(language: &str, settings: &[(&str, &str)]) -> Result<BackendConfig> {
    let mut config = BackendConfig::new("local", artifacts::example(language)?);
    config.settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    config.limits.call_timeout = Duration::from_secs(10);
    config.limits.cpu = config.limits.call_timeout;
    Ok(config)
}

fn start(config: BackendConfig) -> Result<Backend> {
    // These take long to compile: one test does it, and the others wait and find it in the cache.
    let component = std::fs::File::open(artifacts::file_of(&config)?)?;
    component.lock()?;
    let plugin = Plugin::load(&Engine::new(Engine::default_cache_directory())?, artifacts::file_of(&config)?, None)?;
    component.unlock()?;
    let metrics = Arc::new(Metrics::new()).backend(&config.name);
    Ok(Backend::start(&plugin, &Arc::new(config), &metrics)?)
}

async fn open(config: BackendConfig) -> Result<Backend> {
    let backend = start(config)?;
    for mut state in backend.watch() {
        let settled = state.wait_for(|state| !matches!(state, ShardState::Opening));
        let state = tokio::time::timeout(PATIENCE, settled).await.context("no instance was opened")??.clone();
        if !matches!(state, ShardState::Running { .. }) {
            bail!("{state:?}");
        }
    }
    Ok(backend)
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

async fn write(backend: &Backend, writes: Vec<Write>, condition: Condition) -> Result<Vec<Outcome>> {
    Ok(backend.write(writes, condition).await.into_iter().collect::<Result<_, KvError>>()?)
}

async fn get(backend: &Backend, key: &str) -> Result<Option<Entry>, KvError> {
    Ok(backend.get_many(&[key.to_owned()]).await?.pop().flatten())
}

/// Stamps, tombstones, conditions, values of any bytes, scans and statistics.
async fn keeps_the_contract(language: &str) -> Result<()> {
    let backend = open(config(language, &[])?).await?;
    let (applied, stale) = (Outcome::Applied, Outcome::Stale);
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(
        write(&backend, vec![put("a", 5, &bytes), put("b", u64::MAX, b"")], Condition::Newer).await?,
        [applied; 2]
    );
    assert_eq!(write(&backend, vec![put("a", 5, b"late"), put("b", 1, b"x")], Condition::Newer).await?, [stale; 2]);
    let keys = ["b", "none", "a", "b"].map(str::to_owned);
    let (a, b) = (Some(entry("a", 5, &bytes)), Some(entry("b", u64::MAX, b"")));
    assert_eq!(backend.get_many(&keys).await?, [b.clone(), None, a, b]);
    assert_eq!(write(&backend, vec![put("a", 5, b"tail")], Condition::NotOlder).await?, [applied]);
    assert_eq!(write(&backend, vec![put("a", 1, b"forced")], Condition::Always).await?, [applied]);
    assert_eq!(get(&backend, "a").await?, Some(entry("a", 5, b"forced")));
    let writes = vec![delete("a", 6), delete("never", 3)];
    assert_eq!(write(&backend, writes, Condition::Newer).await?, [applied; 2]);
    assert_eq!(write(&backend, vec![put("a", 6, b"x"), put("never", 2, b"x")], Condition::Newer).await?, [stale; 2]);
    let odd = ["\u{0}", "ключ 🔑", " ", "a/../b"];
    let writes = odd.iter().map(|key| put(key, 1, key.as_bytes())).collect();
    assert_eq!(write(&backend, writes, Condition::Newer).await?, [applied; 4]);
    for key in odd {
        assert_eq!(get(&backend, key).await?, Some(entry(key, 1, key.as_bytes())));
    }
    let usage = backend.stats().await?;
    assert_eq!((usage.entries, usage.bytes), (5, 1 + 2 * odd.concat().len() as u64));
    let many: Vec<Write> = (0..1025).map(|n| put(&format!("key {n}"), 1, b"v")).collect();
    assert_eq!(write(&backend, many, Condition::Newer).await?.len(), 1025);
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = backend.scan(0, cursor, 100).await?;
        assert!(page.marks.len() <= 100);
        seen.extend(page.marks.into_iter().map(|mark| mark.key));
        // What comes and goes in between doesn't move the others.
        write(&backend, vec![delete("key 7", seen.len() as u64 + 1)], Condition::Newer).await?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    let before = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), before);
    let mut expected: Vec<String> = (0..1025).map(|n| format!("key {n}")).collect();
    expected.extend(odd.into_iter().chain(["b"]).map(str::to_owned));
    expected.sort_unstable();
    seen.retain(|key| key != "key 7");
    expected.retain(|key| key != "key 7");
    assert_eq!(seen, expected);
    let error = backend.scan(0, Some("after:a".into()), 1).await.err().context("a foreign cursor was taken")?;
    assert_eq!(error.label(), "invalid_argument", "{error}");
    backend.flush().await?;
    assert!(backend.close(PATIENCE).await);
    Ok(())
}

async fn expires(language: &str) -> Result<()> {
    let backend = open(config(language, &[])?).await?;
    let now = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let expiring = |key: &str, at| Write::Put(Entry { expires_at: Some(at), ..entry(key, 9, b"v") });
    let writes = vec![expiring("past", now - 1), expiring("soon", now + 500), expiring("far", now + 3_600_000)];
    write(&backend, writes, Condition::Newer).await?;
    assert_eq!(get(&backend, "past").await?, None);
    eventually("the entry expires", async || Ok(get(&backend, "soon").await?.is_none())).await?;
    assert_eq!(get(&backend, "far").await?.and_then(|entry| entry.expires_at), Some(now + 3_600_000));
    assert_eq!(backend.stats().await?.entries, 1);
    // The stamp of what has expired counts no more.
    assert_eq!(write(&backend, vec![put("soon", 1, b"new")], Condition::Newer).await?, [Outcome::Applied]);
    Ok(())
}

async fn checks_settings_and_limits(language: &str) -> Result<()> {
    for (name, value, expected) in [("max_byts", "1MiB", "max_byts"), ("max_bytes", "lots", "lots")] {
        let backend = start(config(language, &[(name, value)])?)?;
        let mut state = backend.watch().pop().context("there is no shard")?;
        let failed = state.wait_for(|state| matches!(state, ShardState::Failed { .. }));
        let state = tokio::time::timeout(PATIENCE, failed).await.context("it was not given up")??.clone();
        assert!(matches!(&state, ShardState::Failed { reason } if reason.contains(expected)), "{state:?}");
    }
    let backend = open(config(language, &[("max_bytes", "64KiB")])?).await?;
    let ends = backend.write(vec![put("a", 1, &[1; 60_000]), put("b", 1, &[2; 60_000])], Condition::Newer).await;
    assert_eq!(ends.last().and_then(|end| end.as_ref().err()).map(KvError::label), Some("quota_exceeded"), "{ends:?}");
    assert_eq!(write(&backend, vec![delete("a", 2)], Condition::Newer).await?, [Outcome::Applied]);
    assert_eq!(write(&backend, vec![put("b", 1, &[2; 60_000])], Condition::Newer).await?, [Outcome::Applied]);
    let ends = backend.write(vec![put(&"é".repeat(513), 1, b"v")], Condition::Newer).await;
    assert_eq!(ends.first().and_then(|end| end.as_ref().err()).map(KvError::label), Some("too_large"), "{ends:?}");
    assert_eq!(backend.load().restarts, 0);
    Ok(())
}

async fn end_to_end(language: &str) -> Result<()> {
    let host = TestHost::start(vec![config(language, &[])?]).await?;
    host.live().await?;
    let document = |n: usize| json!({"user_id": "u", "timestamp": "2026-01-02T03:04:05Z", "summary": format!("№ {n}")});
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(host.append(&document(n)).await?);
    }
    let deleted = ids.get(2).context("it was not stored")?;
    assert_eq!(host.request("DELETE", &format!("/v1/memcells/{deleted}")).await?.status, 200);
    host.settled().await?;
    for id in &ids {
        let stored = if id == deleted { None } else { host.stored(id).await? };
        assert_eq!(host.mirrored(id).await?, stored);
        let answer = host.request("GET", &format!("/v1/memcells/{id}")).await?;
        assert_eq!(answer.status, if id == deleted { 404 } else { 200 }, "{answer:?}");
        assert_eq!(answer.header("x-memcell-validation"), "consistent", "{answer:?}");
    }
    assert_eq!(host.stop().await?, None);
    Ok(())
}

macro_rules! each_test {
    ($language:ident) => {
        mod $language {
            use anyhow::Result;

            const LANGUAGE: &str = stringify!($language);

            #[tokio::test]
            async fn keeps_the_contract() -> Result<()> {
                super::keeps_the_contract(LANGUAGE).await
            }

            #[tokio::test]
            async fn expires() -> Result<()> {
                super::expires(LANGUAGE).await
            }

            #[tokio::test]
            async fn checks_settings_and_limits() -> Result<()> {
                super::checks_settings_and_limits(LANGUAGE).await
            }

            #[tokio::test]
            async fn end_to_end() -> Result<()> {
                super::end_to_end(LANGUAGE).await
            }
        }
    };
}

each_test!(python);
each_test!(javascript);
