//! The component in its sandbox, behind a whole host: MongoDB's operations never notice what becomes of the server, and the
//! copies are right again when it can be reached.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::config::{BackendConfig, Destination};
use memcell_host::kv;
use memcell_host::metrics::Metrics;
use memcell_tests::host::{TestHost, eventually, remote};
use memcell_tests::redis::{RedisCluster, RedisServer};
use memcell_tests::sample::Samples;
use memcell_tests::work::{done, figures};
use serde_json::{Value, json};

/// How long an operation may take while the backend is in trouble.
const PROMPT: Duration = Duration::from_secs(3);

fn memcell(text: &str) -> Value {
    json!({ "user_id": "ann", "timestamp": "2025-06-26T00:03:30.123Z", "summary": text })
}

pub(super) async fn append_many(host: &TestHost, count: usize) -> Result<Vec<String>> {
    let batch: Vec<Value> = Samples::new(11).take(count).collect();
    let answer = host.json("POST", "/v1/memcells/batch", &Value::Array(batch)).await?;
    let items = answer.body["items"].as_array().context("no items")?;
    let ids = items.iter().map(|item| Ok(item["event_id"].as_str().context("no id")?.to_owned()));
    ids.collect()
}

/// MongoDB and the backend agree on each of these ids.
pub(super) async fn agree(host: &TestHost, ids: &[String]) -> Result<()> {
    for id in ids {
        let (stored, mirrored) = (host.stored(id).await?, host.mirrored(id).await?);
        let live = stored.filter(|document| document.get("deleted_at").is_none_or(Value::is_null));
        ensure!(live == mirrored, "{id}: mongodb has {live:?}, the backend {mirrored:?}");
    }
    Ok(())
}

/// Every kind of change, and reads that compare.
async fn operations_work(host: &TestHost) -> Result<Vec<String>> {
    let ids = append_many(host, 30).await?;
    for id in &ids[..10] {
        host.json("PATCH", &format!("/v1/memcells/{id}"), &json!({ "summary": "changed" })).await?;
    }
    for id in &ids[5..8] {
        host.request("DELETE", &format!("/v1/memcells/{id}")).await?;
    }
    host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[8])).await?;
    host.request("POST", &format!("/v1/memcells/{}/restore", ids[5])).await?;
    host.settled().await?;
    agree(host, &ids).await?;
    for id in &ids {
        let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
        ensure!(read.header("x-memcell-validation") == "consistent", "{id}: {read:?}");
    }
    Ok(ids)
}

async fn backend(host: &TestHost) -> Result<Value> {
    Ok(host.request("GET", "/v1/backends").await?.body["items"][0].clone())
}

async fn failed(config: BackendConfig) -> Result<String> {
    let host = TestHost::start(vec![config]).await?;
    eventually("the backend is given up", async || Ok(backend(&host).await?["state"] == "failed")).await?;
    let reason = backend(&host).await?["reason"].as_str().context("no reason")?.to_owned();
    host.append(&memcell("all the same")).await?;
    host.stop().await?;
    Ok(reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_reaches_the_server() -> Result<()> {
    let server = RedisServer::start(&["--requirepass", "s3cret"])?;
    let mut config = remote(&[server.address()], &[("password", "s3cret"), ("database", "3")])?;
    config.shards = 3;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let ids = operations_work(&host).await?;
    let mut connection = server.connect()?;
    redis::cmd("SELECT").arg(3).exec(&mut connection)?;
    let value: Vec<u8> = redis::cmd("HGET").arg(format!("memcell:{}", ids[0])).arg("value").query(&mut connection)?;
    assert!(String::from_utf8_lossy(&value).contains(r#""summary":"changed""#), "what redis-cli shows is the document");
    let report = backend(&host).await?;
    assert_eq!((&report["state"], &report["entries"]), (&json!("live"), &json!(27)), "{report}");
    host.stop().await?;
    Ok(())
}

/// What somebody else has put in the place of a copy concerns that document, and is found and replaced like any damaged copy.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_in_the_place_of_copies_is_found_and_replaced() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let ids = append_many(&host, 20).await?;
    host.settled().await?;
    server.command::<()>(&format!("DEL memcell:{} memcell:{}", ids[3], ids[4]))?;
    server.command::<()>(&format!("SET memcell:{} x", ids[3]))?;
    server.command::<()>(&format!("RPUSH memcell:{} x", ids[4]))?;
    server.command::<()>(&format!("HDEL memcell:{} stamp", ids[5]))?;
    let read = host.request("GET", &format!("/v1/memcells/{}?validate=true", ids[3])).await?;
    assert_eq!(read.header("x-memcell-validation"), "corrupt", "{read:?}");
    for deep in [false, true] {
        let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
        assert_eq!(figures(&verified), [("corrupt".to_owned(), 3)], "{verified}");
    }
    // A change of the document mends it as well.
    host.json("PATCH", &format!("/v1/memcells/{}", ids[4]), &json!({ "summary": "changed" })).await?;
    host.settled().await?;
    let repaired = done(&host, &json!({ "kind": "repair" })).await?;
    assert_eq!(repaired["report"]["repaired"], 2, "{repaired}");
    assert!(figures(&done(&host, &json!({ "kind": "verify" })).await?).is_empty());
    agree(&host, &ids).await?;
    assert_eq!(backend(&host).await?["state"], "live");
    host.stop().await?;
    Ok(())
}

/// Values that are too many for one answer are asked for in several.
#[tokio::test(flavor = "multi_thread")]
async fn large_documents_are_compared_too() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    for _ in 0..4 {
        host.append(&memcell(&"x".repeat(9_000_000))).await?;
    }
    host.settled().await?;
    for deep in [false, true] {
        let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
    }
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_reaches_the_cluster_and_a_failover_is_survived() -> Result<()> {
    let mut cluster = RedisCluster::start(&[])?;
    let mut config = remote(&cluster.addresses(), &[])?;
    config.shards = 2;
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    let mut ids = operations_work(&host).await?;
    for node in &cluster.nodes[..3] {
        assert!(node.command::<u64>("DBSIZE")? > 0);
    }
    cluster.nodes[0].kill()?;
    let started = Instant::now();
    ids.extend(append_many(&host, 20).await?);
    assert!(started.elapsed() < PROMPT, "writes don't wait for the failover");
    eventually("a replica takes over", async || {
        host.live().await?;
        host.settled().await?;
        Ok(agree(&host, &ids).await.is_ok())
    })
    .await?;
    assert!(host.store.mismatches().is_empty());
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_waited_for() -> Result<()> {
    let mut server = RedisServer::start(&[])?;
    server.kill()?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    let ids = append_many(&host, 5).await?;
    eventually("the trouble shows", async || {
        Ok(backend(&host).await?["reason"].as_str().is_some_and(|reason| reason.contains("can't connect")))
    })
    .await?;
    server.run()?;
    host.live().await?;
    host.settled().await?;
    agree(&host, &ids).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_or_hangs_harms_nobody() -> Result<()> {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[("timeout", "300ms")])?]).await?;
    host.live().await?;
    let mut ids = append_many(&host, 10).await?;
    host.settled().await?;
    for crash in [true, false] {
        if crash {
            server.kill()?;
        } else {
            server.freeze()?;
        }
        for n in 0..5 {
            let started = Instant::now();
            ids.push(host.append(&memcell(&n.to_string())).await?);
            host.json("PATCH", &format!("/v1/memcells/{}", ids[n]), &json!({ "summary": n.to_string() })).await?;
            let read = host.request("GET", &format!("/v1/memcells/{}", ids[n])).await?;
            assert_eq!((read.status, &read.body["summary"]), (200, &json!(n.to_string())));
            assert!(started.elapsed() < PROMPT, "crash {crash}: {:?}", started.elapsed());
        }
        if crash {
            server.run()?;
        } else {
            server.thaw()?;
        }
        eventually("the copies are right again", async || {
            host.live().await?;
            host.settled().await?;
            Ok(agree(&host, &ids).await.is_ok())
        })
        .await?;
    }
    assert_eq!(backend(&host).await?["restarts"], 0, "the instance outlived it all");
    assert!(host.store.mismatches().is_empty());
    host.stop().await?;
    Ok(())
}

/// Nobody changes these documents again, and yet their copies come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_is_filled_again() -> Result<()> {
    let mut server = RedisServer::start(&[])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let ids = append_many(&host, 50).await?;
    host.settled().await?;
    server.kill()?;
    server.run()?;
    // Somebody has to speak to the server for anybody to notice.
    host.request("GET", &format!("/v1/memcells/{}", ids[0])).await?;
    // The entries, and the checkpoint of the mirror.
    eventually("everything is there again", async || Ok(server.command::<u64>("DBSIZE")? == 51)).await?;
    host.live().await?;
    agree(&host, &ids).await?;
    assert_eq!(backend(&host).await?["restarts"], 1);
    host.stop().await?;
    Ok(())
}

/// Nothing is read or written, so that nobody but the host itself can notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_emptied_while_nothing_happens_is_filled_again() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    append_many(&host, 50).await?;
    host.settled().await?;
    // Until the checkpoint of these is written, which looks by itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.command::<()>("FLUSHALL")?;
    let filled = eventually("everything is there again", async || Ok(server.command::<u64>("DBSIZE")? == 51));
    // The next checkpoint would notice after half a minute.
    tokio::time::timeout(Duration::from_secs(20), filled).await.context("it took too long to notice")??;
    host.live().await?;
    host.stop().await?;
    Ok(())
}

/// What it had saved is of a while ago, and so is what it knows of how far its copies had come.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_back_to_what_it_had_saved_catches_up() -> Result<()> {
    let mut server = RedisServer::start(&["--appendonly", "no"])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let mut ids = append_many(&host, 30).await?;
    host.settled().await?;
    // The checkpoint follows within a second or so.
    let stamp = || server.command::<String>("HGET memcell:memcell:checkpoint stamp");
    let before = stamp()?;
    host.append(&memcell("moves the checkpoint")).await?;
    eventually("there is a checkpoint", async || Ok(stamp()? != before)).await?;
    server.command::<()>("SAVE")?;
    ids.extend(append_many(&host, 20).await?);
    host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[0])).await?;
    host.json("PATCH", &format!("/v1/memcells/{}", ids[1]), &json!({ "summary": "changed" })).await?;
    host.settled().await?;
    let saved = stamp()?;
    eventually("there is a later checkpoint", async || Ok(stamp()? != saved)).await?;
    server.kill()?;
    server.run()?;
    host.append(&memcell("is written afterwards")).await?;
    eventually("all copies are as they should be", async || {
        host.settled().await?;
        Ok(server.command::<u64>("DBSIZE")? >= 52 && agree(&host, &ids).await.is_ok())
    })
    .await?;
    assert_eq!(host.mirrored(&ids[0]).await?, None, "it was deleted");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_takes_deletes_and_later_the_rest() -> Result<()> {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let mut ids = append_many(&host, 10).await?;
    host.settled().await?;
    server.command::<()>("CONFIG SET maxmemory 1")?;
    ids.push(host.append(&memcell("finds no room")).await?);
    host.request("DELETE", &format!("/v1/memcells/{}", ids[0])).await?;
    eventually("the delete arrives", async || Ok(host.mirrored(&ids[0]).await?.is_none())).await?;
    assert_eq!(host.mirrored(&ids[10]).await?, None);
    server.command::<()>("CONFIG SET maxmemory 0")?;
    eventually("the entry follows", async || {
        host.settled().await?;
        Ok(agree(&host, &ids).await.is_ok())
    })
    .await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_has_to_mend_is_named() -> Result<()> {
    let server = RedisServer::start(&["--requirepass", "s3cret"])?;
    let address = [server.address()];
    let reason = failed(remote(&address, &[("password", "wr0ng")])?).await?;
    assert!(reason.contains("\"password_env\"") && !reason.contains("wr0ng"), "{reason}");
    let reason = failed(remote(&address, &[("password_env", "MEMCELL_TEST_NOT_GRANTED")])?).await?;
    assert!(reason.contains("grants.environment") && reason.contains("MEMCELL_TEST_NOT_GRANTED"), "{reason}");
    let reason = failed(remote(&address, &[("pasword", "s3cret")])?).await?;
    assert!(reason.contains("\"pasword\""), "{reason}");
    for connect in [vec![], vec![Destination { host: "127.0.0.1".into(), port: 1 }]] {
        let mut config = remote(&address, &[("password", "s3cret")])?;
        config.grants.connect = connect;
        let reason = failed(config).await?;
        assert!(reason.contains("grants.connect") && reason.contains(&address[0]), "{reason}");
    }
    let mut config = remote(&address, &[("password", "s3cret")])?;
    config.settings[0].1 = "redis.internal:6379".into();
    let reason = failed(config).await?;
    assert!(reason.contains("grants.connect") && reason.contains("redis.internal:6379"), "{reason}");
    Ok(())
}

/// A plugin that quotes what it doesn't like tells nobody a secret by it, and those without a token nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_wrong_place_is_not_told() -> Result<()> {
    let mut config = remote(&["127.0.0.1:1".to_owned()], &[])?;
    config.settings = vec![("address".to_owned(), "redis://:hunter2@127.0.0.1:1".to_owned())];
    let host = TestHost::start(vec![config]).await?;
    let refused = async || Ok(backend(&host).await?["state"] == "failed");
    eventually("the plugin refuses its settings", refused).await?;
    let reason = backend(&host).await?["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("\"***\"") && !reason.contains("hunter2"), "{reason}");
    let ready = host.request("GET", "/readyz").await?.body;
    assert_eq!(ready["backends"], json!([{ "name": "local", "state": "failed" }]));
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_from_the_environment() -> Result<()> {
    // One that every process has; its value serves as the password.
    let (variable, value) = ("PATH", std::env::var("PATH")?);
    let server = RedisServer::start(&["--requirepass", &value])?;
    let mut config = remote(&[server.address()], &[("password_env", variable)])?;
    config.grants.environment = vec![variable.into()];
    let host = TestHost::start(vec![config]).await?;
    host.live().await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_granted_is_named() -> Result<()> {
    let cluster = RedisCluster::start(&[])?;
    let mut config = remote(&cluster.addresses(), &[])?;
    config.grants.connect.remove(1);
    let host = TestHost::start(vec![config]).await?;
    append_many(&host, 30).await?;
    let missing = cluster.nodes[1].address();
    eventually("the missing grant is named", async || {
        let report = backend(&host).await?;
        let reason = report["reason"].as_str().unwrap_or_default();
        Ok(reason.contains("grants.connect") && reason.contains(&missing))
    })
    .await?;
    host.stop().await?;
    Ok(())
}

/// Two hosts with two shards each, on one server.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_server_never_undo_each_other() -> Result<()> {
    const KEYS: u64 = 20;
    const ROUNDS: u64 = 99;
    let server = RedisServer::start(&[])?;
    let engine = kv::Engine::new(kv::Engine::default_cache_directory())?;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let mut config = remote(&[server.address()], &[])?;
        config.shards = 2;
        let plugin = kv::Plugin::load(&engine, memcell_tests::artifacts::file_of(&config)?, None)?;
        let metrics = std::sync::Arc::new(Metrics::new()).backend(&config.name);
        hosts.push(kv::Backend::start(&plugin, &std::sync::Arc::new(config), &metrics)?);
    }
    let write = |key: u64, stamp: u64| match stamp % 5 {
        0 => kv::Write::Delete(kv::Mark { key: format!("k{key}"), stamp, expires_at: None }),
        _ => {
            let value = stamp.to_string().into_bytes();
            kv::Write::Put(kv::Entry { key: format!("k{key}"), stamp, expires_at: None, value })
        }
    };
    // Each host makes all writes, one in rising order and one in falling order, and so loses about half of them.
    let rising = async {
        for stamp in 1..=ROUNDS {
            for end in hosts[0].write((0..KEYS).map(|key| write(key, stamp)).collect(), kv::Condition::Newer).await {
                end?;
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    let falling = async {
        for stamp in (1..ROUNDS).rev() {
            for end in hosts[1].write((0..KEYS).map(|key| write(key, stamp)).collect(), kv::Condition::Newer).await {
                end?;
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    let (rising, falling) = tokio::join!(rising, falling);
    rising?;
    falling?;
    for key in 0..KEYS {
        let stamp: String = server.command(&format!("HGET memcell:k{key} stamp"))?;
        assert_eq!(stamp.parse::<u64>()?, ROUNDS);
        assert_eq!(server.command::<u64>(&format!("HGET memcell:k{key} value"))?, ROUNDS);
    }
    Ok(())
}
