//! Jobs from their order to their end: progress, resuming, cancelling, refusals, schedules.

use std::time::Duration;

use anyhow::Result;
use memcell_host::config::MongoDbConfig;
use memcell_host::mongo::{JobKind, JobRecord, JobState, PartRecord, PartScope, Place, Tally};
use memcell_tests::host::{TestHost, eventually, file, hostile, in_memory, remote};
use memcell_tests::redis::RedisServer;
use mongodb::bson::{Bson, DateTime, Document, doc, serialize_to_document};
use serde_json::json;
use tempfile::TempDir;

use super::{append, done, ended, figures, job, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_brings_back_what_a_backend_has_lost() -> Result<()> {
    let server = RedisServer::start(&["--appendonly", "no"])?;
    let host = TestHost::start(vec![remote(&[server.address()], &[])?]).await?;
    host.live().await?;
    let mut ids = append(&host, 3, 120).await?;
    host.collection.insert_one(doc! { "_id": "text", "timestamp": DateTime::now() }).await?;
    host.collection.insert_one(doc! { "_id": 7_i64, "timestamp": DateTime::now() }).await?;
    host.settled().await?;
    ids.extend(["\"text\"".to_owned(), "{\"$numberLong\":\"7\"}".to_owned()]);
    let mut connection = server.connect()?;
    for id in &ids {
        redis::cmd("DEL").arg(format!("memcell:{id}")).exec(&mut connection)?;
    }
    let verified = done(&host, &json!({ "kind": "verify" })).await?;
    assert_eq!(figures(&verified), [("missing".to_owned(), 122)], "{verified}");
    let copied = done(&host, &json!({ "kind": "backfill", "backend": "local" })).await?;
    assert_eq!(figures(&copied), [("copied".to_owned(), 122)], "{copied}");
    assert_eq!(copied["progress"]["examined"], 122);
    let verified = done(&host, &json!({ "kind": "verify", "deep": true })).await?;
    assert!(figures(&verified).is_empty(), "{verified}");
    assert_eq!(verified["progress"]["examined"], 244, "all documents and all copies");
    assert!(host.mirrored(&ids[0]).await?.is_some());
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_after_a_restart_where_it_was() -> Result<()> {
    let directory = TempDir::new()?;
    let mut host = TestHost::start(vec![file(directory.path())?]).await?;
    host.live().await?;
    append(&host, 5, 2400).await?;
    host.settled().await?;
    let id = order(&host, &json!({ "kind": "verify", "deep": true, "rate": 600 })).await?;
    eventually(
        "some of it is noted",
        async || Ok(job(&host, &id).await?["progress"]["examined"].as_u64() >= Some(500)),
    )
    .await?;
    host.restart(vec![file(directory.path())?]).await?;
    let before = job(&host, &id).await?;
    assert_eq!(before["state"], "running", "{before}");
    let after = ended(&host, &id).await?;
    assert_eq!((&after["state"], &after["progress"]["examined"]), (&json!("done"), &json!(4800)), "{after}");
    assert!(figures(&after).is_empty(), "{after}");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_in_no_order_that_was_cut_short_is_done_and_counted_anew() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    append(&host, 6, 700).await?;
    host.settled().await?;
    let MongoDbConfig { database, collection, .. } = &host.config.mongodb;
    let database = host.collection.client().database(database);
    let beside = |name: &str| database.collection::<Document>(&format!("{collection}.{name}"));
    for (kind, scopes) in [
        (JobKind::Backfill, vec![PartScope::Documents { after: None, up_to: None }]),
        (JobKind::Verify, vec![PartScope::Documents { after: None, up_to: None }, PartScope::Entries { shard: 0 }]),
    ] {
        // As a host leaves it that was killed in the middle of it.
        let job = JobRecord {
            id: format!("cut-short-{}", kind.as_str()),
            kind,
            backend: "local".to_owned(),
            host: Some(host.config.host.name.clone()),
            deep: false,
            sweep: false,
            rate: None,
            state: JobState::Running,
            reason: None,
            cancel: false,
            estimate: 700,
            created_at: DateTime::now(),
            ended_at: None,
        };
        let parts = scopes.into_iter().enumerate().map(|(number, scope)| PartRecord {
            place: matches!(scope, PartScope::Documents { .. }).then_some(Place::Natural),
            tally: Tally { examined: 600, missing: 3, ..Tally::default() },
            ..PartRecord::new(&job.id, number, scope)
        });
        let parts: Vec<PartRecord> = parts.collect();
        beside("job_parts")
            .insert_many(parts.iter().map(serialize_to_document).collect::<Result<Vec<_>, _>>()?)
            .await?;
        beside("jobs").insert_one(serialize_to_document(&job)?).await?;
        let after = ended(&host, &job.id).await?;
        let examined = 700 * parts.len();
        assert_eq!((&after["state"], &after["progress"]["examined"]), (&json!("done"), &json!(examined)), "{after}");
        assert_eq!(after["report"]["differences"], 0, "{after}");
    }
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_given_up_and_the_same_can_not_be_done_twice() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    append(&host, 6, 300).await?;
    let body = json!({ "kind": "verify", "rate": 10 });
    let id = order(&host, &body).await?;
    let again = host.json("POST", "/v1/jobs", &body).await?;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("already_exists")), "{again:?}");
    assert!(again.body["detail"].as_str().is_some_and(|detail| detail.contains(&id)), "{again:?}");
    let path = format!("/v1/jobs/{id}");
    assert_eq!(host.request("DELETE", &path).await?.status, 200);
    let cancelled = ended(&host, &id).await?;
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert_eq!(host.request("DELETE", &path).await?.body["state"], "cancelled", "once more does nothing");
    let next = done(&host, &json!({ "kind": "verify" })).await?;
    let listed = host.request("GET", "/v1/jobs").await?.body;
    let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(ids, [next["id"].clone(), json!(id)], "the newest first");
    host.stop().await?;
    Ok(())
}

/// A job that waits, for its rate or for its backend, keeps no other waiting.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_do_not_wait_for_each_other() -> Result<()> {
    let mut server = RedisServer::start(&[])?;
    let mut distant = remote(&[server.address()], &[])?;
    distant.name = "distant".to_owned();
    let mut local = in_memory()?;
    local.shards = 3;
    let host = TestHost::start(vec![local, distant]).await?;
    host.live().await?;
    append(&host, 8, 300).await?;
    host.settled().await?;
    // As many parts wait as a job has workers, and then some of another.
    let slow = order(&host, &json!({ "kind": "verify", "backend": "local", "rate": 1 })).await?;
    server.kill()?;
    let cut_off = order(&host, &json!({ "kind": "repair", "backend": "distant" })).await?;
    let more = json!({ "kind": "verify", "backend": "local", "deep": true });
    let verified = done(&host, &more).await?;
    assert_eq!((&verified["deep"], &verified["state"]), (&json!(true), &json!("done")), "more than the slow one does");
    assert!(figures(&done(&host, &json!({ "kind": "repair", "backend": "local" })).await?).is_empty());
    // Those who ask are told what it waits for.
    eventually("the job says what it waits for", async || {
        let cut_off = job(&host, &cut_off).await?;
        Ok(cut_off["reason"].as_str().is_some_and(|reason| reason.contains("waits for the backend, which is degraded")))
    })
    .await?;
    assert_eq!(job(&host, &slow).await?["reason"], json!(null));
    for id in [&slow, &cut_off] {
        assert_eq!(job(&host, id).await?["state"], "running");
        assert_eq!(host.request("DELETE", &format!("/v1/jobs/{id}")).await?.status, 200);
    }
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    for (body, status, code, detail) in [
        (json!({ "kind": "verify", "backend": "other" }), 400, "invalid_argument", "there is local"),
        (json!({ "kind": "backfill", "deep": true }), 400, "invalid_argument", "a verify or a repair"),
        (json!(["verify"]), 422, "invalid_body", "found a list"),
        (json!({ "kind": "conquer" }), 422, "invalid_body", "conquer"),
        (json!({ "kind": "verify", "rate": 0 }), 422, "invalid_body", "rate"),
        (json!({ "kind": "verify", "depth": 3 }), 422, "invalid_body", "depth"),
        (json!({}), 422, "invalid_body", "kind"),
    ] {
        let answer = host.json("POST", "/v1/jobs", &body).await?;
        let said = answer.body["detail"].as_str().unwrap_or_default();
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{body}: {answer:?}");
        assert!(said.contains(detail) || detail == "rate", "{body}: {said}");
    }
    for method in ["GET", "DELETE"] {
        let answer = host.request(method, "/v1/jobs/none").await?;
        assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")));
    }
    host.stop().await?;
    Ok(())
}

/// A job about a backend that is given up fails, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_backend_that_failed_fails() -> Result<()> {
    let mut config = in_memory()?;
    config.settings = vec![("nonsense".to_owned(), "x".to_owned())];
    let host = TestHost::start(vec![config]).await?;
    append(&host, 7, 3).await?;
    let id = order(&host, &json!({ "kind": "verify" })).await?;
    let failed = ended(&host, &id).await?;
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("nonsense")), "{failed}");
    host.stop().await?;
    Ok(())
}

/// A document whose id is of any type that MongoDB takes has its copy compared, and restored if it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_all_types_are_verified() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let ids = [
        Bson::String("x".into()),
        Bson::Int32(1),
        Bson::Int64(2),
        Bson::Double(2.5),
        Bson::Boolean(true),
        Bson::Null,
        Bson::DateTime(DateTime::from_millis(5)),
        Bson::Document(doc! { "a": 1, "b": [1, "x"] }),
        Bson::Binary(mongodb::bson::Binary {
            subtype: mongodb::bson::spec::BinarySubtype::Generic,
            bytes: vec![1, 2, 3],
        }),
    ];
    for id in ids.clone() {
        host.collection.insert_one(doc! { "_id": id, "timestamp": DateTime::now() }).await?;
    }
    host.settled().await?;
    for deep in [true, false] {
        let verified = done(&host, &json!({ "kind": "verify", "deep": deep })).await?;
        assert!(figures(&verified).is_empty(), "{verified}");
        assert_eq!(verified["progress"]["examined"], 2 * ids.len());
    }
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_orders_jobs_by_itself() -> Result<()> {
    let losing = hostile(&[("mode", "lost-write"), ("on", "put"), ("after", "1"), ("times", "2")])?;
    let host = TestHost::start_with(vec![losing], |config| {
        config.schedule.verify = Some(Duration::from_secs(1));
        config.schedule.repair = true;
    })
    .await?;
    host.live().await?;
    host.append(&memcell_tests::operations::memcell("x")).await?;
    host.append(&memcell_tests::operations::memcell("y")).await?;
    eventually("a scheduled repair has mended what was lost", async || {
        let jobs = host.request("GET", "/v1/jobs").await?.body;
        let ended = jobs["items"].as_array().unwrap().iter().filter(|job| job["state"] == "done").count();
        Ok(ended >= 2)
    })
    .await?;
    host.settled().await?;
    assert_eq!(host.store.backends().await[0].entries, Some(2));
    host.stop().await?;
    Ok(())
}
