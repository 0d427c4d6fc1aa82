//! Several hosts on one MongoDB: with a backend that they share, and with their own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_host::config::Config;
use memcell_host::mirror::MirrorState;
use memcell_tests::host::{TestHost, eventually, in_memory, remote};
use memcell_tests::proxy::{Conduct, Proxy};
use memcell_tests::redis::RedisServer;
use serde_json::{Value, json};

use super::{append, done, ended, figures, order};

/// Who mirrors to the shared backend: the place among `hosts`.
fn tailing(hosts: &[&TestHost]) -> Option<usize> {
    hosts.iter().position(|host| host.store.mirrors()[0].is_tailing())
}

async fn tailed_by(host: &TestHost) -> Result<Value> {
    Ok(host.request("GET", "/v1/backends").await?.body["items"][0]["tailed_by"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_backends_of_their_own_both_converge() -> Result<()> {
    let first = TestHost::start(vec![in_memory()?]).await?;
    let second = first.beside("second", vec![in_memory()?]).await?;
    first.live().await?;
    second.live().await?;
    append(&first, 31, 60).await?;
    append(&second, 32, 60).await?;
    for host in [&first, &second] {
        host.settled().await?;
        let verified = done(host, &json!({ "kind": "verify", "deep": true })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
        assert_eq!(verified["progress"]["examined"], 240, "each host verifies its own: {verified}");
    }
    second.stop().await?;
    first.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_backend_take_turns() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let backend = || remote(&[server.address()], &[]);
    let first = TestHost::start(vec![backend()?]).await?;
    first.live().await?;
    let second = first.beside("second", vec![backend()?]).await?;
    second.live().await?;
    assert_eq!(tailing(&[&first, &second]), Some(0));
    assert!(tailed_by(&first).await?.is_null());
    assert_eq!(tailed_by(&second).await?, json!(first.config.host.name));

    // Both write, directly to the shared backend; both know how far it is.
    let ids = [append(&first, 41, 80).await?, append(&second, 42, 80).await?].concat();
    for host in [&first, &second] {
        host.settled().await?;
        for id in &ids {
            let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
            assert_eq!(read.header("x-memcell-validation"), "consistent", "{id}");
        }
    }
    // A repair is worked on by the one who has the tail, whomever it was ordered from.
    redis::cmd("DEL").arg(format!("memcell:{}", ids[0])).exec(&mut server.connect()?)?;
    let job = order(&second, &json!({ "kind": "repair" })).await?;
    let repaired = ended(&first, &job).await?;
    assert_eq!(figures(&repaired), [("missing".to_owned(), 1), ("repaired".to_owned(), 1)], "{repaired}");
    assert!(repaired["host"].is_null(), "it is anybody's: {repaired}");

    // An orderly end hands over at once.
    let before = Instant::now();
    let first = first.leave().await?;
    eventually("the second has the tail", async || Ok(tailing(&[&second]) == Some(0))).await?;
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    let more = append(&second, 43, 40).await?;
    second.settled().await?;
    let verified = done(&second, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    assert!(second.mirrored(&more[0]).await?.is_some());
    second.stop().await?;
    drop(first);
    Ok(())
}

/// The holder vanishes, as in a crash: whoever stands by goes on within the time of the lease, from the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_dies_is_succeeded() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let backend = || remote(&[server.address()], &[]);
    // On a runtime of its own: when that ends, all that the host does ends where it is.
    let doomed = tokio::runtime::Runtime::new()?;
    let config = backend()?;
    let first = doomed.spawn(async { TestHost::start(vec![config]).await }).await??;
    first.live().await?;
    let second = first.beside("second", vec![backend()?]).await?;
    second.live().await?;
    append(&second, 51, 50).await?;
    second.settled().await?;
    doomed.shutdown_background();
    // Written behind everybody's back, while nobody tails.
    let behind = mongodb::bson::oid::ObjectId::new();
    let document = mongodb::bson::doc! { "_id": behind, "timestamp": mongodb::bson::DateTime::now() };
    second.collection.insert_one(document).await?;
    let before = Instant::now();
    eventually("the second has the tail", async || Ok(tailing(&[&second]) == Some(0))).await?;
    // The lease lasts 10 s; what is above that is a busy machine's.
    let after = before.elapsed();
    assert!(after < Duration::from_secs(25), "{after:?}");
    second.settled().await?;
    assert!(second.mirrored(&behind.to_hex()).await?.is_some());
    let verified = done(&second, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    second.stop().await?;
    Ok(())
}

/// Two hosts do the parts of one job, and the job is done once.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_the_parts_of_a_job() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let backend = || remote(&[server.address()], &[]);
    let first = TestHost::start(vec![backend()?]).await?;
    first.live().await?;
    let documents =
        (0..110_000_i32).map(|n| mongodb::bson::doc! { "_id": n, "timestamp": mongodb::bson::DateTime::now() });
    first.collection.insert_many(documents).await?;
    let second = first.beside("second", vec![backend()?]).await?;
    first.settled().await?;
    second.live().await?;
    let id = order(&first, &json!({ "kind": "verify", "rate": 20000 })).await?;
    let verified = ended(&second, &id).await?;
    assert_eq!(
        (&verified["state"], &verified["progress"]["examined"]),
        (&json!("done"), &json!(220_000)),
        "{verified}"
    );
    assert!(figures(&verified).is_empty(), "{verified}");
    let parts = first.collection.client().database(&first.config.mongodb.database);
    let parts = parts.collection::<mongodb::bson::Document>("memcells.job_parts");
    let holders: Vec<mongodb::bson::Document> = {
        use futures::TryStreamExt as _;
        parts.find(mongodb::bson::doc! { "job": &id }).await?.try_collect().await?
    };
    let holder = |name: &str| {
        holders.iter().filter(|part| part.get_str("holder").is_ok_and(|holder| holder.starts_with(name))).count()
    };
    let of_first = holder(&format!("{}#", first.config.host.name));
    let of_second = holder("second#");
    assert!(of_first > 0 && of_second > 0, "{of_first} and {of_second} parts");
    second.stop().await?;
    first.stop().await?;
    Ok(())
}

/// A backend that is behind by so much is not live.
const LONGER_THAN_CURRENT: Duration = Duration::from_secs(8);

/// A state that says why another host's progress doesn't help yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stands_by_is_live_when_the_holder_is() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let first = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    first.live().await?;
    let second = first.beside("second", vec![remote(&[server.address()], &[])?]).await?;
    let mut state = second.store.mirrors()[0].watch_state();
    let live = state.wait_for(|state| *state == MirrorState::Live);
    tokio::time::timeout(Duration::from_secs(20), live).await.context("not live in time")??;

    // Nor is it behind while others write without a pause: there is no moment then at which nothing was left to do.
    let until = Instant::now() + LONGER_THAN_CURRENT;
    while Instant::now() < until {
        append(&first, 62, 1).await?;
    }
    let state = second.store.mirrors()[0].state();
    ensure!(state == MirrorState::Live, "while the other host writes, it is {state:?}");
    second.stop().await?;
    first.stop().await?;
    Ok(())
}

/// A mistake in the configuration of one host: what the other one writes doesn't get to where it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_store_is_another_one_says_so() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let of_its_own = || remote(&[server.address()], &[("key_prefix", "own:")]);
    // There is a checkpoint in the other store as well, which is of no use.
    let mut first = TestHost::start(vec![of_its_own()?]).await?;
    first.live().await?;
    for store in [("key_prefix", "shared:"), ("key_prefix", "fresh:")] {
        first.restart(vec![remote(&[server.address()], &[store])?]).await?;
        first.live().await?;
        append(&first, 63, 1).await?;
        let second = first.beside("second", vec![of_its_own()?]).await?;
        let told = async || {
            let state = second.store.mirrors()[0].state();
            ensure!(state != MirrorState::Live, "it is live, and has nothing of what the other host writes");
            Ok(state.reason().is_some_and(|reason| reason.contains("to another store than this host's")))
        };
        eventually("the second says what is wrong", told).await?;
        second.stop().await?;
        // The next round finds no trace of this one's.
        server.command::<u64>("DEL own:memcell:checkpoint")?;
    }
    first.stop().await?;
    Ok(())
}

/// Each host is reloaded for itself, and whoever is first may be the one that the others rely on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_stands_by_notices_that_the_holder_has_moved_to_another_store() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let in_store = |prefix: &str| remote(&[server.address()], &[("key_prefix", prefix)]);
    let first = TestHost::start(vec![in_store("before:")?]).await?;
    first.live().await?;
    let second = first.beside("second", vec![in_store("before:")?]).await?;
    second.live().await?;
    let moved = |host: &TestHost| -> Result<Config> {
        Ok(Config { backends: vec![in_store("after:")?], ..host.config.clone() })
    };
    first.store.reload(&moved(&first)?).await?;
    let told = async || {
        let state = second.store.mirrors()[0].state();
        Ok(state.reason().is_some_and(|reason| reason.contains("to another store than this host's")))
    };
    eventually("the second says what is wrong", told).await?;
    second.store.reload(&moved(&second)?).await?;
    second.live().await?;
    let id = append(&first, 64, 1).await?.remove(0);
    second.settled().await?;
    ensure!(second.mirrored(&id).await?.is_some(), "it follows the holder");
    second.stop().await?;
    first.stop().await?;
    Ok(())
}

/// A write of a holder that arrives after another host has taken over, as late as that may be, changes nothing: it bears the same
/// revision as what is there, and only the token of its lease tells that it is late.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_of_a_former_holder_is_kept_out() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let proxy = Proxy::start(server.address())?;
    let behind_proxy = remote(&[proxy.address().to_string()], &[])?;
    let doomed = tokio::runtime::Runtime::new()?;
    let first = doomed.spawn(async { TestHost::start(vec![behind_proxy]).await }).await??;
    first.live().await?;
    let second = first.beside("second", vec![remote(&[server.address()], &[])?]).await?;
    second.live().await?;
    let id = append(&second, 61, 1).await?.remove(0);
    second.settled().await?;
    let change = async |summary: &str| -> Result<()> {
        let id = mongodb::bson::oid::ObjectId::parse_str(&id)?;
        let change = mongodb::bson::doc! { "$set": { "summary": summary } };
        second.collection.update_one(mongodb::bson::doc! { "_id": id }, change).await?;
        Ok(())
    };

    // Behind everybody's back, and without counting the revision up. What the first host writes of it is held up on its way.
    proxy.set(Conduct::Silence);
    change("of the first").await?;
    let state = first.store.mirrors()[0].clone();
    eventually("the write is under way and unanswered", async || Ok(state.state() != MirrorState::Live)).await?;
    doomed.shutdown_background();
    eventually("the second has the tail", async || Ok(tailing(&[&second]) == Some(0))).await?;
    change("of the second").await?;
    let copied =
        async || -> Result<Value> { Ok(second.mirrored(&id).await?.context("there is no copy")?["summary"].clone()) };
    eventually("the second has written it", async || Ok(copied().await? == "of the second")).await?;

    let calls = || -> Result<usize> {
        let stats: String = server.command("INFO commandstats")?;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        Ok(line.and_then(|line| line.split(',').next()).context("no calls of scripts")?.parse()?)
    };
    let before = calls()?;
    proxy.set(Conduct::Pass);
    eventually("the late write has arrived", async || Ok(calls()? > before)).await?;
    assert_eq!(copied().await?, "of the second");
    let verified = done(&second, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    second.stop().await?;
    Ok(())
}
