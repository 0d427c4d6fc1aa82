//! A server that comes back without some of its data, in every state of the host: nothing that is missing stays so behind a
//! backend that calls itself live.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::host::{PATIENCE, TestHost, eventually, remote};
use memcell_tests::redis::RedisServer;
use serde_json::Value;

use crate::host::{agree, append_many};

/// Longer than a lease lasts that nobody renews.
const LEASE_LAPSES: Duration = Duration::from_secs(16);

/// What the server holds of the mirror's progress.
fn checkpoint(server: &RedisServer) -> Result<Value> {
    let text: Option<String> = server.command("HGET memcell:memcell:checkpoint value")?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
}

/// Waits until a checkpoint says that all is there that is there now: what comes after it is read again.
async fn is_noted(server: &RedisServer) -> Result<()> {
    let now = memcell_plugin::unix_millis();
    let noted = async || {
        let checkpoint = checkpoint(server)?;
        Ok(checkpoint["position"].is_string() && checkpoint["at_millis"].as_u64() > Some(now))
    };
    eventually("there is a checkpoint", noted).await
}

/// A server that keeps its data over a restart, and a host that was told that it doesn't.
async fn doubted() -> Result<(RedisServer, TestHost, Vec<String>)> {
    let server = RedisServer::start(&["--appendonly", "yes"])?;
    let mut backend = remote(&[server.address()], &[("persistent", "false")])?;
    // At growing intervals, as by default, but not as long ones.
    backend.supervision.backoff_max = Duration::from_secs(3);
    let host = TestHost::start(vec![backend]).await?;
    host.live().await?;
    let ids = append_many(&host, 50).await?;
    host.settled().await?;
    is_noted(&server).await?;
    Ok((server, host, ids))
}

/// As if a failover had lost it.
fn lose(server: &mut RedisServer, id: &str) -> Result<()> {
    server.elsewhere(|server| {
        ensure!(server.command::<u64>(&format!("DEL memcell:{id}"))? == 1, "{id} was not there");
        Ok(())
    })
}

async fn everything_is_there(server: &RedisServer, host: &TestHost, ids: &[String]) -> Result<()> {
    // The entries, and the checkpoint of the mirror.
    let due = ids.len() as u64 + 1;
    eventually("everything is there again", async || Ok(server.command::<u64>("DBSIZE")? == due)).await?;
    host.live().await?;
    agree(host, &ids[ids.len().saturating_sub(50)..]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_instance_writes_under_the_same_lease() -> Result<()> {
    let (mut server, host, mut ids) = doubted().await?;
    server.kill()?;
    lose(&mut server, &ids[7])?;
    server.run()?;
    host.request("GET", &format!("/v1/memcells/{}", ids[0])).await?;
    everything_is_there(&server, &host, &ids).await?;
    // Copies, tombstones and checkpoints of before bear the token of the lease, and are written anew.
    let before = checkpoint(&server)?["at_millis"].as_u64();
    ids.extend(append_many(&host, 1).await?);
    host.request("DELETE", &format!("/v1/memcells/{}?hard=true", ids[0])).await?;
    ids.remove(0);
    let moved = async || {
        let now = checkpoint(&server)?;
        Ok(now["position"].is_string() && now["at_millis"].as_u64() > before)
    };
    eventually("the checkpoint moves", moved).await?;
    host.settled().await?;
    agree(&host, &ids).await?;
    let turns: Option<u64> = server.command("HGET memcell:memcell:checkpoint fence")?;
    assert_eq!(turns, Some(1), "nobody else had a turn, and this host had it once");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_while_the_lease_lapses_is_filled_in() -> Result<()> {
    let (mut server, host, ids) = doubted().await?;
    server.kill()?;
    tokio::time::sleep(LEASE_LAPSES).await;
    lose(&mut server, &ids[7])?;
    server.run()?;
    everything_is_there(&server, &host, &ids).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ends_while_it_fills_a_server_fills_it_at_its_next_start() -> Result<()> {
    let (mut server, mut host, mut ids) = doubted().await?;
    for _ in 0..2 {
        ids.extend(append_many(&host, 1000).await?);
    }
    host.settled().await?;
    is_noted(&server).await?;
    server.kill()?;
    let last = ids.len() - 1;
    lose(&mut server, &ids[last])?;
    server.run()?;
    let first = format!("/v1/memcells/{}", ids[0]);
    let is_filling = async || {
        host.request("GET", &first).await?;
        Ok(checkpoint(&server)?["position"].is_null())
    };
    eventually("the host fills the server", is_filling).await?;
    let backends = host.backends().to_vec();
    host.restart(backends).await?;
    everything_is_there(&server, &host, &ids).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_emptied_while_it_is_filled_is_filled_again() -> Result<()> {
    let server = RedisServer::start(&[])?;
    let mut host = TestHost::start(vec![]).await?;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend(append_many(&host, 1000).await?);
    }
    host.restart(vec![remote(&[server.address()], &[])?]).await?;
    let mut connection = server.connect()?;
    let deadline = Instant::now() + PATIENCE;
    while redis::cmd("DBSIZE").query::<u64>(&mut connection)? < 2000 {
        ensure!(Instant::now() < deadline, "the host doesn't fill the server");
    }
    redis::cmd("FLUSHALL").exec(&mut connection)?;
    // Were it full by then, this is when it is noticed.
    ids.extend(append_many(&host, 1).await?);
    everything_is_there(&server, &host, &ids).await?;
    host.stop().await?;
    Ok(())
}

/// A MongoDB that was brought back from an older snapshot counts turns that a store has long seen.
#[tokio::test(flavor = "multi_thread")]
async fn turns_that_the_store_knows_to_be_over_are_outbid() -> Result<()> {
    const LATER: u64 = 900;
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let mut host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let mut ids = append_many(&host, 50).await?;
    host.settled().await?;
    is_noted(&server).await?;
    let backends = host.backends().to_vec();
    for key in ["memcell:checkpoint", &ids[0]] {
        let of_later = format!("HSET memcell:{key} fence {LATER:020}");
        server.command::<u64>(&of_later)?;
    }
    host.restart(backends).await?;
    host.live().await?;
    let gone = ids.remove(0);
    ensure!(host.request("DELETE", &format!("/v1/memcells/{gone}?hard=true")).await?.status == 200);
    ids.extend(append_many(&host, 1).await?);
    let written = async || Ok(server.command::<Option<u64>>("HGET memcell:memcell:checkpoint fence")? > Some(LATER));
    eventually("the checkpoint is this host's", written).await?;
    host.live().await?;
    host.settled().await?;
    agree(&host, &ids).await?;
    ensure!(host.mirrored(&gone).await?.is_none(), "a deleted document is still there");
    host.stop().await?;
    Ok(())
}

/// A mistake in the configuration: each of the two takes the turns of the other for those of a MongoDB that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn two_names_for_one_store_are_told_apart_from_a_mongodb_that_has_gone_back() -> Result<()> {
    const FEW: u64 = 1 << 10;
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let one = remote(&[server.address()], &[])?;
    let other = BackendConfig { name: "other".to_owned(), ..one.clone() };
    let mut host = TestHost::start(vec![one.clone()]).await?;
    host.live().await?;
    let ids = append_many(&host, 50).await?;
    host.settled().await?;
    is_noted(&server).await?;
    // Five and one never come to be the same by being doubled.
    for _ in 0..3 {
        host.restart(vec![one.clone()]).await?;
        host.live().await?;
    }
    host.restart(vec![one.clone(), other]).await?;
    let told = async || {
        // They meet over what both write.
        append_many(&host, 1).await?;
        let backends = host.request("GET", "/v1/backends").await?.body;
        let reasons =
            backends["items"].as_array().into_iter().flatten().filter_map(|backend| backend["reason"].as_str());
        Ok(reasons.into_iter().any(|reason| reason.contains("under another name of the backend")))
    };
    eventually("one of them says what is wrong", told).await?;
    let fence = server.command::<Option<u64>>("HGET memcell:memcell:checkpoint fence")?;
    ensure!(fence.is_some_and(|fence| fence < FEW), "{fence:?}");
    // With one name, all is well again.
    host.restart(vec![one]).await?;
    host.live().await?;
    agree(&host, &ids).await?;
    host.stop().await?;
    Ok(())
}

/// Of two hosts, the one that has the turn may be the later one to speak to a server that has come back, when others have written there.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_host_notices_is_filled_in_by_the_one_whose_turn_it_is() -> Result<()> {
    let mut server = RedisServer::start(&["--appendonly", "yes"])?;
    let first = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    first.live().await?;
    let ids = append_many(&first, 50).await?;
    first.settled().await?;
    is_noted(&server).await?;
    // This one takes every restart for a loss.
    let second = first.beside("second", vec![remote(&[server.address()], &[("persistent", "false")])?]).await?;
    second.live().await?;
    second.request("GET", &format!("/v1/memcells/{}?validate=true", ids[0])).await?;
    server.kill()?;
    lose(&mut server, &ids[7])?;
    server.run()?;
    let is_there = async || {
        second.request("GET", &format!("/v1/memcells/{}?validate=true", ids[0])).await?;
        Ok(server.command::<u64>("DBSIZE")? == 51)
    };
    eventually("everything is there again", is_there).await?;
    first.live().await?;
    agree(&first, &ids).await?;
    second.stop().await?;
    first.stop().await?;
    Ok(())
}
