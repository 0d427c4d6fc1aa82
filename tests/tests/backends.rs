//! The sandbox and its supervision, against real components: the in-memory plugin, and guests that misbehave (`hostile`,
//! `missing-store`, `wrong-version`, `unsatisfied-import`, `loop-in-start`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{
    Backend, Condition, Engine, Entry, KvError, LoadError, Mark, Outcome, Plugin, ShardState, Write,
};
use memcell_host::metrics::Metrics;
use memcell_tests::artifacts;
use memcell_tests::host::{PATIENCE, eventually, hostile, in_memory};

fn engine() -> Result<Engine> {
    Ok(Engine::new(Engine::default_cache_directory())?)
}

fn open(config: BackendConfig) -> Result<Backend> {
    let plugin = Plugin::load(&engine()?, artifacts::file_of(&config)?, config.sha256.as_ref())?;
    let metrics = Arc::new(Metrics::new()).backend(&config.name);
    Ok(Backend::start(&plugin, &Arc::new(config), &metrics)?)
}

async fn running(backend: &Backend) -> Result<()> {
    for mut state in backend.watch() {
        let running = state.wait_for(|state| matches!(state, ShardState::Running { .. }));
        tokio::time::timeout(PATIENCE, running).await.context("no instance was opened")??;
    }
    Ok(())
}

async fn failed(backend: &Backend) -> Result<String> {
    let mut state = backend.watch().pop().context("there is no shard")?;
    let failed = state.wait_for(|state| matches!(state, ShardState::Failed { .. }));
    let state = tokio::time::timeout(PATIENCE, failed).await.context("the shard was not given up")??.clone();
    match state {
        ShardState::Failed { reason } => Ok(reason),
        other => anyhow::bail!("{other:?}"),
    }
}

fn put(key: &str, stamp: u64, value: &[u8]) -> Write {
    Write::Put(Entry { key: key.into(), stamp, expires_at: None, value: value.to_vec() })
}

fn delete(key: &str, stamp: u64) -> Write {
    Write::Delete(Mark { key: key.into(), stamp, expires_at: None })
}

async fn get(backend: &Backend, key: &str) -> Result<Option<Vec<u8>>, KvError> {
    Ok(backend.get_many(&[key.to_owned()]).await?.pop().flatten().map(|entry| entry.value))
}

#[tokio::test]
async fn in_memory_over_several_shards() -> Result<()> {
    let mut config = in_memory()?;
    config.shards = 3;
    config.queue.batch = 7;
    let backend = open(config)?;
    running(&backend).await?;
    let writes = (0..100).map(|n| put(&format!("key {n}"), 5, format!("value {n}").as_bytes())).collect();
    let ends = backend.write(writes, Condition::Newer).await;
    assert!(ends.iter().all(|end| *end == Ok(Outcome::Applied)), "{ends:?}");
    let keys: Vec<String> = (0..110).map(|n| format!("key {n}")).collect();
    let found = backend.get_many(&keys).await?;
    for (n, entry) in found.iter().enumerate() {
        let value = entry.as_ref().map(|entry| entry.value.clone());
        assert_eq!(value, (n < 100).then(|| format!("value {n}").into_bytes()), "position {n}");
    }
    let ends = backend
        .write(vec![put("key 1", 5, b"x"), delete("key 2", 6), put("key 2", 6, b"late")], Condition::Newer)
        .await;
    assert_eq!(ends[0], Ok(Outcome::Stale));
    assert_eq!(get(&backend, "key 1").await?.as_deref(), Some(b"value 1".as_slice()));
    // Whichever of the two came first: a put doesn't beat a deletion of the same stamp once both are there.
    let ends = backend.write(vec![delete("key 3", 9)], Condition::Newer).await;
    assert_eq!(ends, [Ok(Outcome::Applied)]);
    assert_eq!(backend.write(vec![put("key 3", 8, b"late")], Condition::Newer).await, [Ok(Outcome::Stale)]);
    assert_eq!(backend.write(vec![put("key 3", 9, b"tail")], Condition::NotOlder).await, [Ok(Outcome::Applied)]);
    let usage = backend.stats().await?;
    assert!((99..=100).contains(&usage.entries), "{usage:?}");
    let mut listed = 0;
    for shard in 0..3 {
        let mut cursor = None;
        loop {
            let page = backend.scan(shard, cursor, 10).await?;
            assert!(page.marks.iter().all(|mark| backend.shard_of(&mark.key) == shard));
            listed += page.marks.len() as u64;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    assert_eq!(listed, usage.entries);
    backend.flush().await?;
    assert!(backend.close(PATIENCE).await);
    assert_eq!(get(&backend, "key 1").await, Err(KvError::Closed));
    Ok(())
}

#[test]
fn components_that_are_no_backend_say_why() -> Result<()> {
    let engine = engine()?;
    let load = |name: &str| -> Result<LoadError> {
        Plugin::load(&engine, &artifacts::guest(name)?, None).err().context("it was accepted")
    };
    let error = load("missing_store")?;
    assert!(
        matches!(&error, LoadError::MissingExport { missing, .. } if missing == "memcell:kv/store@0.1.0"),
        "{error}"
    );
    let error = load("wrong_version")?;
    assert!(matches!(&error, LoadError::WrongVersion { found, .. } if found.ends_with("@0.2.0")), "{error}");
    let error = load("unsatisfied_import")?;
    assert!(
        matches!(&error, LoadError::UnsatisfiedImport { import, .. } if import == "acme:radio/antenna@1.0.0"),
        "{error}"
    );
    let path = artifacts::plugin("in_memory")?;
    let loaded = Plugin::load(&engine, &path, None)?;
    let wrong = Plugin::load(&engine, &path, Some(&[7; 32])).err().context("a wrong digest was accepted")?;
    assert!(wrong.to_string().contains(loaded.sha256()), "{wrong}");
    Ok(())
}

#[tokio::test]
async fn settings_that_a_plugin_refuses_are_final_and_named() -> Result<()> {
    let mut config = in_memory()?;
    config.settings = vec![("max_byts".into(), "1MiB".into())];
    let backend = open(config)?;
    let reason = failed(&backend).await?;
    assert!(reason.contains("max_byts"), "{reason}");
    assert!(matches!(get(&backend, "k").await, Err(KvError::Down(_))));
    let backend = open(hostile(&[("mode", "refuse"), ("on", "open")])?)?;
    assert!(failed(&backend).await?.contains("refused on purpose"));
    Ok(())
}

/// What a call that goes wrong in each way must end with, and that the next instance works.
#[tokio::test]
async fn each_way_of_breaking_ends_the_instance_and_the_next_one_works() -> Result<()> {
    for (mode, expected) in [
        ("trap", "trap"),
        ("loop", "deadline"),
        ("sleep", "deadline"),
        ("memory", "memory"),
        ("recurse", "trap"),
        ("short-answer", "contract"),
        ("long-answer", "contract"),
        ("wrong-key", "contract"),
        ("giant-answer", "response_too_large"),
        ("aliased-answer", "response_too_large"),
        ("invalid-utf8", "trap"),
    ] {
        // The second get of each instance misbehaves.
        let mut config = hostile(&[("mode", mode), ("on", "get"), ("after", "1"), ("times", "1")])?;
        if mode == "memory" {
            // Little enough to be filled within the deadline on a busy machine.
            config.limits.memory = 32 << 20;
        }
        let backend = open(config)?;
        running(&backend).await?;
        assert_eq!(backend.write(vec![put("k", 1, b"v")], Condition::Newer).await, [Ok(Outcome::Applied)], "{mode}");
        assert_eq!(get(&backend, "k").await?, Some(b"v".to_vec()), "{mode}");
        let started = Instant::now();
        let error = get(&backend, "k").await.err().with_context(|| format!("{mode}: the call succeeded"))?;
        assert_eq!(error.label(), expected, "{mode}: {error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{mode} took {:?}", started.elapsed());
        // It is replaced; the new instance is empty, and answers.
        eventually("the instance is replaced", async || Ok(backend.generation(0) == Some(2))).await?;
        assert_eq!(get(&backend, "k").await?, None, "{mode}");
        assert_eq!(backend.load().restarts, 1, "{mode}");
        assert!(backend.close(PATIENCE).await, "{mode}");
    }
    Ok(())
}

#[tokio::test]
async fn a_start_that_never_ends_is_cut_off() -> Result<()> {
    let mut config = BackendConfig::new("local", artifacts::guest("loop_in_start")?);
    config.limits.open_timeout = Duration::from_millis(300);
    config.supervision.backoff_min = Duration::from_millis(10);
    config.supervision.backoff_max = Duration::from_millis(20);
    config.supervision.restart_limit = 3;
    let backend = open(config)?;
    let reason = failed(&backend).await?;
    assert!(reason.contains("within 300ms"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_always_breaks_is_given_up() -> Result<()> {
    let mut config = hostile(&[("mode", "trap"), ("on", "put")])?;
    config.supervision.backoff_max = Duration::from_millis(20);
    config.supervision.restart_limit = 4;
    let backend = open(config)?;
    running(&backend).await?;
    let mut broken = 0;
    eventually("the backend is given up", async || {
        match backend.write(vec![put("k", 1, b"v")], Condition::Newer).await.pop() {
            Some(Err(KvError::Trap { function: "put-many", .. })) => broken += 1,
            Some(Err(KvError::Down(_))) => {}
            other => anyhow::bail!("{other:?}"),
        }
        Ok(matches!(backend.states().first(), Some(ShardState::Failed { .. })))
    })
    .await?;
    assert_eq!(broken, 5);
    Ok(())
}

#[tokio::test]
async fn errors_open_the_breaker_and_health_closes_it() -> Result<()> {
    let mut config = hostile(&[("mode", "error"), ("on", "put"), ("times", "5")])?;
    config.supervision.failures_to_open = 5;
    let backend = open(config)?;
    running(&backend).await?;
    for _ in 0..5 {
        let end = backend.write(vec![put("k", 1, b"v")], Condition::Newer).await.pop();
        assert!(matches!(end, Some(Err(KvError::Refused(_)))), "{end:?}");
    }
    eventually("the breaker opens", async || {
        Ok(matches!(backend.states().first(), Some(ShardState::Down { breaker_open: true, .. })))
    })
    .await?;
    let end = backend.write(vec![put("k", 1, b"v")], Condition::Newer).await.pop();
    assert!(matches!(end, Some(Err(KvError::Down(_)))), "{end:?}");
    // The instance lives: it is asked for its health, and goes on with what it has.
    eventually("the breaker closes", async || Ok(backend.generation(0) == Some(1))).await?;
    assert_eq!(backend.write(vec![put("k", 1, b"v")], Condition::Newer).await, [Ok(Outcome::Applied)]);
    Ok(())
}

#[tokio::test]
async fn one_item_that_does_not_fit_does_not_hold_up_the_others() -> Result<()> {
    let mut config = in_memory()?;
    config.settings = vec![("max_bytes".into(), "64KiB".into())];
    let backend = open(config)?;
    running(&backend).await?;
    let writes = vec![put("a", 1, &[1; 1000]), put("b", 1, &[2; 100_000]), put("c", 1, &[3; 1000]), delete("d", 1)];
    let ends = backend.write(writes, Condition::Newer).await;
    // The batch was tried as a whole first: what got through then is found to be there, not applied again.
    assert!(ends[0].is_ok() && ends[2].is_ok() && ends[3].is_ok(), "{ends:?}");
    assert_eq!(get(&backend, "c").await?.as_deref(), Some([3; 1000].as_slice()));
    assert_eq!(ends[1].as_ref().err().map(KvError::label), Some("quota_exceeded"), "{ends:?}");
    assert_eq!(backend.stats().await?.entries, 2);
    Ok(())
}
