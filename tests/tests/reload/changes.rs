//! Backends that come, go, are replaced, or stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use memcell_tests::agreement::check_agreement;
use memcell_tests::artifacts;
use memcell_tests::host::{TestHost, eventually};
use memcell_tests::operations::memcell;
use memcell_tests::sample::Samples;
use serde_json::{Value, json};

use super::{VALIDATION, backend, becomes, changes, file, in_memory, reload, series, status};

async fn with_documents(sections: &str, count: usize) -> Result<TestHost> {
    let host = TestHost::start_from_file(sections).await?;
    host.live().await?;
    let batch: Vec<Value> = Samples::new(4).take(count).collect();
    assert_eq!(host.json("POST", "/v1/memcells/batch", &Value::Array(batch)).await?.status, 200);
    host.settled().await?;
    Ok(host)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_stays_as_it_is() -> Result<()> {
    let (a, b) = (in_memory("a", "")?, in_memory("b", "")?);
    let host = with_documents(&format!("{VALIDATION}backend = \"a\"\n{a}"), 40).await?;
    let mirror = host.store.mirror("a").context("a")?;
    let refreshed = "memcell_mirror_refreshed_total{backend=\"a\"}";
    let before = host.figure(refreshed).await?;

    changes(&host, &format!("{VALIDATION}backend = \"a\"\n{a}"), &[]).await?;
    changes(&host, &format!("{VALIDATION}backend = \"a\"\n{b}{a}"), &[("backends.b", "added")]).await?;
    let names =
        |host: &TestHost| host.store.mirrors().iter().map(|mirror| mirror.config().name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&host), ["b", "a"], "in the order of the file");
    changes(&host, &format!("{VALIDATION}backend = \"a\"\n{a}{b}"), &[]).await?;
    let required = in_memory("a", "required = true")?;
    changes(&host, &format!("{VALIDATION}backend = \"a\"\n{required}{b}"), &[("backends.a", "changed")]).await?;
    let off = in_memory("b", "enabled = false")?;
    changes(&host, &format!("{VALIDATION}backend = \"a\"\n{required}{off}"), &[("backends.b", "removed")]).await?;
    assert_eq!(names(&host), ["a"]);

    assert!(Arc::ptr_eq(&mirror, &host.store.mirror("a").context("a")?));
    assert_eq!(host.figure(refreshed).await?, before, "nothing was copied again");
    assert_eq!(status(&host, "a").await?["restarts"], 0);
    check_agreement(&host, "a").await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_changed_is_replaced_and_filled_again() -> Result<()> {
    let host = with_documents(&format!("{VALIDATION}{}", in_memory("local", "")?), 60).await?;
    let mirror = host.store.mirror("local").context("local")?;
    let sections = format!("{VALIDATION}{}", in_memory("local", "format = \"bson\"\nshards = 3\nrequired = true")?);
    changes(&host, &sections, &[("backends.local", "replaced")]).await?;
    becomes(&host, "local", "live").await?;
    host.settled().await?;
    assert_eq!(check_agreement(&host, "local").await?, 60);
    let shown = status(&host, "local").await?;
    assert_eq!((&shown["format"], &shown["shards"], &shown["validates"]), (&json!("bson"), &json!(3), &json!(true)));
    mirror.closed().await;
    drop(mirror);
    assert!(series(&host, "local").await? > 0, "the figures are the new one's now");
    let id = host.append(&memcell("x")).await?;
    host.settled().await?;
    let read = host.request("GET", &format!("/v1/memcells/{id}")).await?;
    assert_eq!(read.header("x-memcell-validation"), "consistent");
    host.stop().await?;
    Ok(())
}

/// One directory, one backend at a time. That it is `required` shows that its successor finds the directory free.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_handed_over() -> Result<()> {
    let host = with_documents("", 29).await?;
    let path = format!("/v1/memcells/{}", host.append(&memcell("x")).await?);
    let directory = host.directory().join("disk");
    let disk = |name: &str, more: &str| file(name, &directory, &format!("required = true\n{more}"));
    changes(&host, &disk("disk", "")?, &[("validation.backend", "changed"), ("backends.disk", "added")]).await?;
    host.live().await?;
    let filled = host.figure("memcell_mirror_refreshed_total{backend=\"disk\"}").await?.context("no figure")?;
    assert!(filled >= 30.0);

    let strict = disk("disk", "settings.durability = \"flush\"")?;
    changes(&host, &strict, &[("backends.disk", "replaced")]).await?;
    host.live().await?;
    let renamed = disk("other", "format = \"bson\"")?;
    let expected = [("validation.backend", "changed"), ("backends.disk", "removed"), ("backends.other", "added")];
    changes(&host, &renamed, &expected).await?;
    host.live().await?;
    host.append(&memcell("x")).await?;
    host.settled().await?;
    assert_eq!(check_agreement(&host, "other").await?, 31);
    let copied = host.figure("memcell_mirror_refreshed_total{backend=\"other\"}").await?.unwrap_or(0.0);
    assert!(copied < filled, "what is there already is not copied again, but {copied} were");
    // It is still in the other format, which is read all the same.
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    host.stop().await?;
    Ok(())
}

/// A backend that was given up is tried again, even if nothing about its configuration has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_failed_gets_another_attempt() -> Result<()> {
    let host = with_documents("", 10).await?;
    let plugin = host.directory().join("late.wasm");
    let sections = backend("late", &plugin, "")?;
    changes(&host, &sections, &[("validation.backend", "changed"), ("backends.late", "added")]).await?;
    becomes(&host, "late", "failed").await?;
    changes(&host, &sections, &[("backends.late", "replaced")]).await?;
    becomes(&host, "late", "failed").await?;
    std::fs::copy(artifacts::plugin("in_memory")?, &plugin)?;
    changes(&host, &sections, &[("backends.late", "replaced")]).await?;
    becomes(&host, "late", "live").await?;
    changes(&host, &sections, &[]).await?;
    host.settled().await?;
    assert_eq!(check_agreement(&host, "late").await?, 10);
    host.stop().await?;
    Ok(())
}

/// What is known about a backend goes with it: mismatches, figures, its place in the lists.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_removed_backend() -> Result<()> {
    let losing = backend(
        "losing",
        &artifacts::guest("hostile")?,
        "settings = { mode = \"lost-write\", on = \"put\", containing = \"to be lost\" }",
    )?;
    let good = in_memory("good", "")?;
    let host = TestHost::start_from_file(&format!("{VALIDATION}backend = \"losing\"\n{losing}{good}")).await?;
    host.live().await?;
    let path = format!("/v1/memcells/{}", host.append(&memcell("x")).await?);
    host.settled().await?;
    host.json("PATCH", &path, &json!({ "summary": "to be lost" })).await?;
    host.settled().await?;
    host.request("GET", &path).await?;
    eventually("the mismatch is confirmed", async || Ok(!host.store.mismatches().is_empty())).await?;

    // Switched away from, it is still there, and so is what is known about it.
    let switched = format!("{VALIDATION}backend = \"good\"\n{losing}{good}");
    changes(&host, &switched, &[("validation.backend", "changed")]).await?;
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    assert_eq!(host.store.mismatches().len(), 1);
    let without = format!("{VALIDATION}backend = \"good\"\n{good}");
    changes(&host, &without, &[("backends.losing", "removed")]).await?;
    assert!(host.store.mismatches().is_empty());
    assert_eq!(status(&host, "losing").await?, Value::Null);
    eventually("its figures are gone", async || Ok(series(&host, "losing").await? == 0)).await?;

    let expected = [("validation.backend", "changed"), ("backends.good", "removed")];
    changes(&host, VALIDATION, &expected).await?;
    assert_eq!(host.request("GET", "/v1/backends").await?.body, json!({ "items": [] }));
    let created = host.json("POST", "/v1/memcells", &memcell("x")).await?;
    assert_eq!((created.status, created.header("x-memcell-mirrored")), (201, "none"));
    host.stop().await?;
    Ok(())
}

/// A write that waits for a backend gets its answer from it, also if the backend is removed meanwhile: it is closed after the
/// last of them.
#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_for_a_removed_backend_get_their_answer() -> Result<()> {
    let local = in_memory("local", "ack = \"mirrored\"\nack_timeout = \"10s\"")?;
    let host = TestHost::start_from_file(&local).await?;
    let told = |kind| [("validation.backend", "changed"), ("backends.local", kind)];
    for _ in 0..5 {
        host.live().await?;
        let over = AtomicBool::new(false);
        let writer = async || {
            let mut answers: Vec<String> = Vec::new();
            loop {
                // The last write of each begins when the backend is gone for certain.
                let last = over.load(Ordering::Relaxed);
                let answer = host.json("POST", "/v1/memcells", &memcell("x")).await?;
                answers.push(answer.header("x-memcell-mirrored").to_owned());
                if last {
                    return Ok::<_, anyhow::Error>(answers);
                }
            }
        };
        let removal = async {
            host.append(&memcell("y")).await?;
            changes(&host, "", &told("removed")).await?;
            over.store(true, Ordering::Relaxed);
            Ok(())
        };
        let (answers, ()) = tokio::try_join!(try_join_all((0..8).map(|_| writer())), removal)?;
        let mut answers: Vec<String> = answers.into_iter().flatten().collect();
        answers.sort_unstable();
        answers.dedup();
        assert_eq!(answers, ["applied", "none"]);
        changes(&host, &local, &told("added")).await?;
    }
    host.stop().await?;
    Ok(())
}

/// A backend that hangs holds up neither the reload that removes it nor the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_can_be_removed() -> Result<()> {
    let more = "limits.call_timeout = \"30s\"\nsettings = { mode = \"sleep\", on = \"put\" }";
    let hanging = backend("hanging", &artifacts::guest("hostile")?, more)?;
    let good = in_memory("good", "")?;
    let sections = format!("{VALIDATION}backend = \"good\"\n{good}");
    let grace = "[http]\nshutdown_grace = \"300ms\"\n";
    let host = TestHost::start_from_file(&format!("{sections}{hanging}{grace}")).await?;
    becomes(&host, "good", "live").await?;
    becomes(&host, "hanging", "live").await?;
    let path = format!("/v1/memcells/{}", host.append(&memcell("x")).await?);
    let started = std::time::Instant::now();
    changes(&host, &format!("{sections}{grace}"), &[("backends.hanging", "removed")]).await?;
    assert!(started.elapsed() < memcell_tests::operations::PROMPT, "{:?}", started.elapsed());
    assert_eq!(host.request("GET", &path).await?.header("x-memcell-validation"), "consistent");
    host.stop().await?;
    Ok(())
}

/// Reloads at the same time come one after the other; in the end it is as the file says.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_wait_for_each_other() -> Result<()> {
    let host = with_documents("", 10).await?;
    let sections = |n: usize| in_memory("local", &format!("settings.max_bytes = \"{}MiB\"", 64 + n));
    for n in 0..4 {
        host.rewrite_config(&sections(n)?)?;
        let answers = try_join_all((0..3).map(|_| reload(&host))).await?;
        let changed = answers.iter().filter(|answer| answer.body["changes"] != json!([])).count();
        assert!(answers.iter().all(|answer| answer.status == 200) && changed == 1, "{answers:?}");
    }
    changes(&host, &sections(3)?, &[]).await?;
    becomes(&host, "local", "live").await?;
    host.settled().await?;
    assert_eq!((check_agreement(&host, "local").await?, host.store.mirrors().len()), (10, 1));
    host.stop().await?;
    Ok(())
}
