//! Configurations that are refused, as a whole: the host runs on as before, with the same instances.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use memcell_host::ErrorKind;
use memcell_host::config::BackendConfig;
use memcell_tests::agreement::check_agreement;
use memcell_tests::host::{Answer, TestHost};
use memcell_tests::operations::all_operations_work;
use serde_json::json;

use super::{VALIDATION, backend, becomes, changes, file, in_memory, reload, status};

/// The problem that a reload answers, with what its text must contain.
async fn refused(host: &TestHost, status: u16, code: &str, parts: &[&str]) -> Result<Answer> {
    let answer = reload(host).await?;
    ensure!(answer.status == status && answer.body["code"] == code, "{answer:?}");
    ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
    let detail = answer.body["detail"].as_str().context("no detail")?;
    for part in parts {
        ensure!(detail.contains(part), "{detail} does not contain {part}");
    }
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_leaves_the_running_one_alone() -> Result<()> {
    let good = format!("{VALIDATION}{}", in_memory("local", "")?);
    let host = TestHost::start_from_file(&good).await?;
    host.live().await?;
    host.append(&json!({ "timestamp": "2025-06-26", "user_id": "stays" })).await?;
    host.settled().await?;
    let mirror = host.store.mirror("local").context("local")?;
    let refreshed = "memcell_mirror_refreshed_total{backend=\"local\"}";
    let before = host.figure(refreshed).await?;

    let added = in_memory("added", "")?;
    let needed = backend("needed", Path::new("/nonexistent/plugin.wasm"), "required = true")?;
    let refusing = in_memory("refusing", "required = true\nsettings.no_such_setting = 1")?;
    for (sections, status, code, parts) in [
        (format!("{good}{added}]"), 422, "invalid_config", &["memcell.toml:"][..]),
        (format!("{good}{added}shard = 2\n"), 422, "invalid_config", &["backends.added.shard"]),
        (format!("{good}{added}shards = 0\nttl = 5\n"), 422, "invalid_config", &["added.shards", "added.ttl"]),
        (format!("{good}{added}{needed}"), 422, "invalid_config", &["needed", "/nonexistent/plugin.wasm"]),
        (format!("{good}{added}{refusing}"), 422, "invalid_config", &["refusing", "no_such_setting"]),
        (format!("{good}{added}[http]\nmax_body = \"1MiB\"\n"), 409, "restart_required", &["http.max_body"]),
        (format!("{good}[log]\nlevel = \"warn\"\nformat = \"json\""), 409, "restart_required", &["log.format"]),
    ] {
        host.rewrite_config(&sections)?;
        refused(&host, status, code, parts).await.context(sections)?;
    }
    let elsewhere = "[mongodb]\nuri = \"mongodb://127.0.0.1:1/\"\ndatabase = \"other\"\n";
    host.rewrite_config_whole(&format!("{elsewhere}{good}{added}"))?;
    refused(&host, 409, "restart_required", &["mongodb.uri", "mongodb.database"]).await?;
    std::fs::remove_file(host.directory().join("memcell.toml"))?;
    refused(&host, 422, "invalid_config", &["there is no such file"]).await?;

    let now = host.store.mirrors();
    assert!(now.len() == 1 && Arc::ptr_eq(&now[0], &mirror), "the backend is the same");
    assert_eq!(status(&host, "local").await?["state"], "live");
    assert_eq!(host.figure(refreshed).await?, before, "nothing was copied again");
    all_operations_work(&host).await?;
    changes(&host, &good, &[]).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_the_file_is_told_with_its_line() -> Result<()> {
    let host = TestHost::start_from_file("").await?;
    host.rewrite_config_whole("[mongodb]\nuri = \"embedded\"\n[http]\nlisen = 1\n[backends.a]\nshards = 0\n")?;
    let answer = refused(&host, 422, "invalid_config", &["memcell.toml:4: http.lisen: "]).await?;
    let problems = answer.body["problems"].as_array().context("no problems")?;
    let told: Vec<(u64, &str)> = problems
        .iter()
        .map(|problem| (problem["line"].as_u64().unwrap_or(0), problem["key"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told, [(4, "http.lisen"), (5, "backends.a.plugin"), (6, "backends.a.shards")]);
    assert!(problems[0]["file"].as_str().is_some_and(|file| file.ends_with("memcell.toml")));
    host.stop().await?;
    Ok(())
}

/// A backend that must be closed before its successor can have its directory is there again if that one fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_to_make_way_comes_back() -> Result<()> {
    let host = TestHost::start_from_file("").await?;
    let directory = host.directory().join("disk");
    let good = file("disk", &directory, "required = true")?;
    changes(&host, &good, &[("validation.backend", "changed"), ("backends.disk", "added")]).await?;
    host.live().await?;
    for number in 0..20 {
        host.append(&json!({ "timestamp": "2025-06-26", "number": number })).await?;
    }
    let mirror = host.store.mirror("disk").context("disk")?;

    // A plugin that isn't there is noticed before anything is closed.
    host.rewrite_config(&good.replace("/file.wasm", "/no-such.wasm"))?;
    refused(&host, 422, "invalid_config", &["disk", "no-such.wasm"]).await?;
    assert!(Arc::ptr_eq(&mirror, &host.store.mirror("disk").context("disk")?));

    host.rewrite_config(&format!("{good}settings.no_such_setting = 1\n"))?;
    refused(&host, 422, "invalid_config", &["disk", "no_such_setting"]).await?;
    becomes(&host, "disk", "live").await?;
    host.append(&json!({ "timestamp": "2025-06-26", "number": 20 })).await?;
    host.settled().await?;
    assert_eq!(check_agreement(&host, "disk").await?, 21);
    let read = host.store.mirror("disk").context("disk")?;
    assert!(!Arc::ptr_eq(&mirror, &read) && status(&host, "disk").await?["validates"] == true);
    changes(&host, &good, &[]).await?;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_file_says_so() -> Result<()> {
    let host = TestHost::start(Vec::new()).await?;
    refused(&host, 409, "no_config_file", &["file"]).await?;
    host.stop().await?;
    Ok(())
}

/// Programs that link the library put configurations together that no file has been checked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_refuses_what_the_file_would_not_have_passed() -> Result<()> {
    let host = TestHost::start(vec![memcell_tests::host::in_memory()?]).await?;
    let mut config = host.config.clone();
    config.backends.push(BackendConfig { enabled: false, ..BackendConfig::new("off", "x.wasm".into()) });
    for name in ["nobody", "off"] {
        config.validation.backend = Some(name.to_owned());
        let error = host.store.reload(&config).await.err().context("it was taken over")?;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains(name), "{error}");
    }
    let store = host.store.clone();
    let config = host.config.clone();
    host.stop().await?;
    let error = store.reload(&config).await.err().context("it was taken over")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    Ok(())
}
