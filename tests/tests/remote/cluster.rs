//! A cluster: batches over all of it, slots that move, nodes that die.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use memcell_plugin::{Condition, Error, Outcome, Session, Stats};
use memcell_remote::Remote;
use memcell_tests::redis::RedisCluster;

use super::{entry, eventually, get, mark, put, scan_all, try_open};

#[test]
fn batches_reach_all_nodes() -> Result<()> {
    let cluster = RedisCluster::start(&[])?;
    // One node is enough to find the others.
    let mut session = try_open(&[("address", &cluster.nodes[4].address())])?;
    let batch: Vec<_> = (0..300).map(|n| entry(&format!("{n:024x}"), 1, n.to_string().as_bytes())).collect();
    assert_eq!(session.put_many(batch.clone(), Condition::Newer)?, [Outcome::Applied; 300]);
    let keys: Vec<String> = batch.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(session.get_many(keys.clone())?, batch.into_iter().map(Some).collect::<Vec<_>>());
    for node in &cluster.nodes[..3] {
        assert!(node.command::<u64>("DBSIZE")? > 50, "each has its part");
    }
    session.delete_many(keys[..10].iter().map(|key| mark(key, 2)), Condition::Newer)?;
    let found: BTreeSet<String> = scan_all(&mut session, 7)?.into_iter().map(|mark| mark.key).collect();
    assert_eq!(found, keys[10..].iter().cloned().collect());
    let digits: usize = (10..300).map(|n: u32| n.to_string().len()).sum();
    assert_eq!(session.stats()?, Stats { entries: 290, bytes: (290 * 24 + digits) as u64 });
    session.health()?;

    let refusal = try_open(&[("address", &cluster.nodes[0].address()), ("database", "1")]).map(drop);
    assert!(matches!(&refusal, Err(Error::InvalidArgument(text)) if text.contains("\"database\"")), "{refusal:?}");
    Ok(())
}

/// Each phase of a move: the slot's keys on one side, on both, on the other, and the move made known.
#[test]
fn slots_that_move_are_followed() -> Result<()> {
    let cluster = RedisCluster::start(&[])?;
    let mut session = try_open(&[("address", &cluster.nodes[0].address())])?;
    let keys: Vec<String> = (0..6).map(|n| format!("{{tag}}{n}")).collect();
    for key in &keys {
        put(&mut session, key, 1, b"1")?;
    }
    let from = cluster.owner(0, "memcell:{tag}")?;
    let to = (from + 1) % 3;
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let slot: i64 = source.command("CLUSTER KEYSLOT memcell:{tag}")?;
    let (source_id, target_id): (String, String) = (source.command("CLUSTER MYID")?, target.command("CLUSTER MYID")?);
    target.command::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}"))?;
    source.command::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}"))?;
    let target_address = target.address();
    let (host, port) = target_address.split_once(':').context("no port")?;
    let migrate = |key: &str| source.command::<()>(&format!("MIGRATE {host} {port} memcell:{key} 0 5000"));
    let check = |stamp: u64, session: &mut Session<Remote>| -> Result<()> {
        let batch = keys.iter().map(|key| entry(key, stamp, stamp.to_string().as_bytes()));
        assert_eq!(session.put_many(batch, Condition::Newer)?, [Outcome::Applied; 6]);
        let found = session.get_many(keys.clone())?;
        assert!(found.iter().all(|entry| entry.as_ref().is_some_and(|entry| entry.stamp == stamp)), "{found:?}");
        let found: BTreeSet<String> = scan_all(session, 2)?.into_iter().map(|mark| mark.key).collect();
        assert_eq!(found.len(), 6);
        Ok(())
    };
    check(2, &mut session)?;
    keys[..3].iter().try_for_each(|key| migrate(key))?;
    check(3, &mut session)?;
    // A key that is on neither side is made on the new one.
    assert_eq!(put(&mut session, "{tag}new", 1, b"x"), Ok(Outcome::Applied));
    assert_eq!(target.command::<Vec<String>>(&format!("CLUSTER GETKEYSINSLOT {slot} 10"))?.len(), 4);
    session.delete_many([mark("{tag}new", 2)], Condition::Newer)?;
    keys[3..].iter().try_for_each(|key| migrate(key))?;
    check(4, &mut session)?;
    for node in [target, source] {
        node.command::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target_id}"))?;
    }
    check(5, &mut session)?;
    assert_eq!(source.command::<Vec<String>>(&format!("CLUSTER GETKEYSINSLOT {slot} 10"))?, [] as [String; 0]);
    Ok(())
}

/// A scan that has passed a node which slots are moved to afterwards still finds their entries.
#[test]
fn a_scan_survives_slots_that_move() -> Result<()> {
    let cluster = RedisCluster::start(&[])?;
    let mut session = try_open(&[("address", &cluster.nodes[0].address())])?;
    session.put_many((0..200).map(|n| entry(&n.to_string(), 1, b"x")), Condition::Newer)?;
    let mut found = BTreeSet::new();
    let page = session.scan(None, 1000)?;
    found.extend(page.marks.into_iter().map(|mark| mark.key));
    let cursor = page.next.context("one page was all")?;
    let missing = (0..200).map(|n: u32| n.to_string()).find(|key| !found.contains(key)).context("it found all")?;
    let from = cluster.owner(0, &format!("memcell:{missing}"))?;
    let scanned = cluster.owner(0, &format!("memcell:{}", found.first().context("it found none")?))?;
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[scanned]);
    let slot: i64 = source.command(&format!("CLUSTER KEYSLOT memcell:{missing}"))?;
    let (source_id, target_id): (String, String) = (source.command("CLUSTER MYID")?, target.command("CLUSTER MYID")?);
    target.command::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}"))?;
    source.command::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}"))?;
    let target_address = target.address();
    let (host, port) = target_address.split_once(':').context("no port")?;
    for key in source.command::<Vec<String>>(&format!("CLUSTER GETKEYSINSLOT {slot} 100"))? {
        source.command::<()>(&format!("MIGRATE {host} {port} {key} 0 5000"))?;
    }
    for node in [target, source] {
        node.command::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target_id}"))?;
    }
    // Any call notices that the slot has gone; the scan then begins anew.
    assert!(get(&mut session, &missing)?.is_some());
    let mut cursor = Some(cursor);
    while let Some(at) = cursor {
        let page = session.scan(Some(&at), 1000)?;
        found.extend(page.marks.into_iter().map(|mark| mark.key));
        cursor = page.next;
    }
    assert_eq!(found.len(), 200);
    Ok(())
}

#[test]
fn a_master_that_dies_is_replaced() -> Result<()> {
    let mut cluster = RedisCluster::start(&[])?;
    let mut session = try_open(&[("address", &cluster.addresses().join(","))])?;
    let batch = |stamp: u64| (0..60).map(move |n| entry(&n.to_string(), stamp, b"x"));
    session.put_many(batch(1), Condition::Newer)?;
    // What replicas have not got yet would rightly be missing afterwards.
    for node in &cluster.nodes[..3] {
        cluster.wait_until("its replica has it all", |_| Ok(node.command::<u64>("WAIT 1 100")? == 1))?;
    }
    let dead = cluster.owner(1, "memcell:0")?;
    cluster.nodes[dead].kill()?;
    let early = session.put_many(batch(2), Condition::Newer);
    assert!(matches!(early, Err(Error::Unavailable(_))), "{early:?}");
    eventually("a replica takes over", || session.put_many(batch(3), Condition::Newer))?;
    let found = session.get_many((0..60).map(|n| n.to_string()).collect())?;
    assert!(found.iter().all(|entry| entry.as_ref().is_some_and(|entry| entry.stamp == 3)));
    assert_eq!(scan_all(&mut session, 10)?.len(), 60);
    session.health()?;
    // The one that was dead comes back as a replica, and is not mistaken for a master.
    cluster.nodes[dead].run()?;
    cluster.wait_until("it is a replica", |cluster| {
        Ok(cluster.nodes[dead].command::<String>("INFO replication")?.contains("role:slave"))
    })?;
    assert_eq!(put(&mut session, "0", 4, b"x"), Ok(Outcome::Applied));
    session.health()?;
    Ok(())
}

#[test]
fn a_cluster_without_some_of_its_slots_is_unavailable() -> Result<()> {
    let cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"])?;
    let mut session = try_open(&[("address", &cluster.addresses().join(","))])?;
    assert_eq!(put(&mut session, "a", 1, b"x"), Ok(Outcome::Applied));
    let owner = cluster.owner(0, "memcell:a")?;
    let slot: i64 = cluster.nodes[owner].command("CLUSTER KEYSLOT memcell:a")?;
    for node in &cluster.nodes[..3] {
        node.command::<()>(&format!("CLUSTER DELSLOTS {slot}"))?;
    }
    let refusal = get(&mut session, "a");
    assert!(matches!(&refusal, Err(Error::Unavailable(_))), "{refusal:?}");
    Ok(())
}
