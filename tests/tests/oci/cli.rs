//! `memcell plugin push`, `pull`, `inspect` and `test`, and `memcell config check`, as they are typed.

use std::process::Output;

use anyhow::{Context as _, Result};
use memcell_tests::artifacts;
use memcell_tests::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::has;
use crate::host::memcell;

fn report(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().with_context(|| format!("it said nothing: {output:?}"))?;
    Ok(serde_json::from_str(line)?)
}

fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_plugin_is_pushed_and_pulled_and_tried_out() -> Result<()> {
    let (folder, mut registry) = (TempDir::new()?, Registry::start()?);
    let memcell = memcell(folder.path())?;
    let name = format!("oci://{}/team/in-memory:1.0", registry.address());
    let file = artifacts::plugin("in_memory")?.display().to_string();

    // Without a word about it, a registry is spoken to over TLS.
    has(&complaint(&memcell.plugin(&["push", &file, &name]).await?, 1), &[&name, "insecure = true"]);
    let config = format!("[mongodb]\nuri = \"embedded\"\n[registries.\"{}\"]\ninsecure = true\n", registry.address());
    std::fs::write(folder.path().join("memcell.toml"), &config)?;

    let pushed = report(&memcell.plugin(&["push", &file, &name]).await?)?;
    let reference = pushed["reference"].as_str().context("no reference")?.to_owned();
    assert!(reference.starts_with(&format!("{name}@sha256:")), "{reference}");
    // A tag alone is resolved here, and nowhere else.
    let copy = folder.path().join("copy.wasm").display().to_string();
    let pulled = report(&memcell.plugin(&["pull", &name, "--output", &copy]).await?)?;
    assert_eq!((&pulled["reference"], &pulled["from_cache"]), (&json!(reference), &json!(false)));
    assert_eq!(pulled["sha256"], pushed["sha256"]);
    assert_eq!(std::fs::read(&copy)?, std::fs::read(&file)?);
    let text = complaint(&memcell.plugin(&["inspect", &name]).await?, 2);
    has(&text, &["needs the digest of the manifest", &format!("memcell plugin pull {name}")]);

    registry.stop()?;
    let pulled = report(&memcell.plugin(&["pull", &reference]).await?)?;
    assert_eq!(pulled["from_cache"], json!(true));
    let inspected = report(&memcell.plugin(&["inspect", &reference]).await?)?;
    assert_eq!((&inspected["file"], &inspected["loads"]), (&json!(reference), &json!(true)));
    assert_eq!(inspected["sha256"], pushed["sha256"]);
    let tested = memcell.plugin(&["test", &reference, "--case", "open"]).await?;
    assert!(tested.status.success(), "{tested:?}");
    has(&complaint(&memcell.plugin(&["pull", &name]).await?, 1), &[&name, "the registry can't be reached"]);
    Ok(())
}

#[tokio::test]
async fn what_is_no_backend_is_not_pushed() -> Result<()> {
    let folder = TempDir::new()?;
    let memcell = memcell(folder.path())?;
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, "#!/bin/sh")?;
    let file = file.display().to_string();
    has(&complaint(&memcell.plugin(&["push", &file, "oci://localhost:1/x"]).await?, 1), &["not a WebAssembly file"]);
    let pinned = format!("oci://localhost:1/x@sha256:{}", "00".repeat(32));
    has(&complaint(&memcell.plugin(&["push", &file, &pinned]).await?, 2), &["has no digest"]);
    has(&complaint(&memcell.plugin(&["pull", "localhost:1/x"]).await?, 2), &["begins with oci://"]);
    Ok(())
}

#[tokio::test]
async fn what_docker_login_left_behind_counts() -> Result<()> {
    let folder = TempDir::new()?;
    let access =
        memcell_tests::registry::Access { password: Some(crate::access::HTPASSWD.to_owned()), ..Default::default() };
    let registry = Registry::start_with(&access)?;
    let memcell = memcell(folder.path())?;
    let config = format!("[mongodb]\nuri = \"embedded\"\n[registries.\"{}\"]\ninsecure = true\n", registry.address());
    std::fs::write(folder.path().join("memcell.toml"), &config)?;
    std::fs::create_dir(folder.path().join("docker"))?;
    let docker = |text: Value| std::fs::write(folder.path().join("docker/config.json"), text.to_string());
    let (file, name) =
        (artifacts::plugin("in_memory")?.display().to_string(), format!("oci://{}/x", registry.address()));
    let push = ["push", file.as_str(), name.as_str()];

    docker(json!({ "auths": { registry.address(): {} }, "credsStore": "desktop" }))?;
    has(&complaint(&memcell.plugin(&push).await?, 1), &["denies it: 401", "docker-credential-desktop"]);
    let auth = crate::access::base64(b"robot:s3cret:pass", true);
    docker(json!({ "auths": { registry.address(): { "auth": auth } } }))?;
    report(&memcell.plugin(&push).await?)?;
    docker(json!({ "auths": { registry.address(): { "auth": crate::access::base64(b"robot:wr0ng", true) } } }))?;
    let text = complaint(&memcell.plugin(&push).await?, 1);
    has(&text, &["denies it: 401", "docker/config.json has for 127.0.0.1:"]);
    assert!(!text.contains("wr0ng"), "{text}");
    Ok(())
}
