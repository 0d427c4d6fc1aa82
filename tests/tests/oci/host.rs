//! A host whose backend comes from a registry: started, started again without the registry, kept waiting, and reloaded.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memcell_host::config::OciReference;
use memcell_tests::artifacts;
use memcell_tests::host::eventually;
use memcell_tests::mongo::MongoDb;
use memcell_tests::program::{Host, Memcell};
use memcell_tests::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{has, push};

/// A MongoDB, a registry, and a host that can be started with a cache of its own.
struct Scene {
    mongodb: MongoDb,
    registry: Registry,
    memcell: Memcell,
    client: reqwest::Client,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let memcell = memcell(folder.path())?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        Ok(Self { mongodb: MongoDb::start().await?, registry: Registry::start()?, memcell, client, folder })
    }

    /// The in-memory plugin, made another one by a section that says nothing but this.
    async fn push(&self, what: &str) -> Result<OciReference> {
        let mut component = std::fs::read(artifacts::plugin("in_memory")?)?;
        let name = u8::try_from(what.len())?;
        component.extend_from_slice(&[0, name + 1, name]);
        component.extend_from_slice(what.as_bytes());
        push(&self.registry.config(), &component).await
    }

    fn configure(&self, plugin: &OciReference, more: &str) -> Result<()> {
        let text = format!(
            "[mongodb]\nuri = {}\n[http]\nlisten = \"127.0.0.1:0\"\n[registries.\"{}\"]\ninsecure = true\ntimeout = \"10s\"\n\
             [backends.local]\nplugin = \"{plugin}\"\n{more}\n",
            json!(self.mongodb.uri()),
            self.registry.address(),
        );
        Ok(std::fs::write(self.folder.path().join("memcell.toml"), text)?)
    }

    async fn serve(&self) -> Result<Host> {
        self.memcell.serve(&self.folder.path().join("log")).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn backend(&self, host: &Host) -> Result<Value> {
        let answer = self.client.get(format!("{}/v1/backends", host.url())).send().await?;
        let backends: Value = answer.json().await?;
        backends.pointer("/items/0").cloned().context("there is no backend")
    }

    /// Waits until the backend is in this state, and answers what is said of it.
    async fn until(&self, host: &Host, state: &str) -> Result<Value> {
        let found = eventually(state, async || Ok(self.backend(host).await?["state"] == state)).await;
        found.with_context(|| format!("log:\n{}", self.log()))?;
        self.backend(host).await
    }

    async fn post(&self, host: &Host, path: &str, body: Value) -> Result<(u16, Value)> {
        let answer = self.client.post(format!("{}{path}", host.url())).json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }
}

/// The program, with its configuration and its caches in a folder.
pub(crate) fn memcell(folder: &Path) -> Result<Memcell> {
    let memcell = Memcell::new(folder.join("memcell.toml"))?;
    Ok(memcell.with("XDG_CACHE_HOME", folder.join("cache")).with("DOCKER_CONFIG", folder.join("docker")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_serves_with_a_plugin_from_a_registry_and_later_without_the_registry() -> Result<()> {
    let mut scene = Scene::new().await?;
    let plugin = scene.push("one").await?;
    scene.configure(&plugin, "required = true")?;
    let host = scene.serve().await?;
    let backend = scene.until(&host, "live").await?;
    assert_eq!(backend["plugin"], json!(plugin.to_string()));
    let document = json!({ "user_id": "u1", "timestamp": "2025-06-26T00:03:30Z" });
    let (status, stored) = scene.post(&host, "/v1/memcells", document).await?;
    assert_eq!(status, 201, "{stored}");
    eventually("it is mirrored", async || Ok(scene.backend(&host).await?["entries"] == 1)).await?;
    host.stop().await?;
    has(&scene.log(), &["plugin fetched from its registry"]);

    scene.registry.stop()?;
    let host = scene.serve().await?;
    assert_eq!(scene.until(&host, "live").await?["sha256"], backend["sha256"]);
    assert_eq!(scene.backend(&host).await?["entries"], 1, "it was filled again");
    host.stop().await?;
    ensure!(!scene.log().contains("fetched from its registry"), "{}", scene.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_waited_for() -> Result<()> {
    let mut scene = Scene::new().await?;
    let plugin = scene.push("one").await?;
    scene.registry.stop()?;
    scene.configure(&plugin, "")?;
    let host = scene.serve().await?;
    let reason = scene.until(&host, "degraded").await?["reason"].to_string();
    has(&reason, &["can't fetch the plugin oci://127.0.0.1:", "the registry can't be reached", "refused"]);
    let document = json!({ "user_id": "u1", "timestamp": "2025-06-26T00:03:30Z" });
    assert_eq!(scene.post(&host, "/v1/memcells", document).await?.0, 201, "MongoDB goes on without it");
    scene.registry.run()?;
    scene.until(&host, "live").await?;
    assert_eq!(scene.backend(&host).await?["entries"], 1);
    host.stop().await?;

    // One that is required isn't waited for.
    scene.registry.stop()?;
    std::fs::remove_dir_all(scene.folder.path().join("cache/memcell/oci"))?;
    scene.configure(&plugin, "required = true")?;
    assert!(scene.serve().await.is_err());
    has(&scene.log(), &["the required backend local can't be used", "the registry can't be reached"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_another_version_of_the_plugin() -> Result<()> {
    let scene = Scene::new().await?;
    let (first, second) = (scene.push("one").await?, scene.push("two").await?);
    let wrong = OciReference { digest: [7; 32], ..first.clone() };
    scene.configure(&wrong, "")?;
    let host = scene.serve().await?;
    let reason = scene.until(&host, "failed").await?["reason"].to_string();
    has(&reason, &["the registry doesn't have it: 404", "MANIFEST_UNKNOWN"]);

    let mut digests = Vec::new();
    for plugin in [&first, &second] {
        scene.configure(plugin, "")?;
        let (status, changes) = scene.post(&host, "/v1/config/reload", json!({})).await?;
        assert_eq!((status, &changes["changes"][0]["change"]), (200, &json!("replaced")), "{changes}");
        let backend = scene.until(&host, "live").await?;
        assert_eq!(backend["plugin"], json!(plugin.to_string()));
        digests.push(backend["sha256"].clone());
    }
    assert_ne!(digests.first(), digests.last());

    // `sha256` pins the component beside the reference.
    scene.configure(&second, &format!("sha256 = \"{}\"", "07".repeat(32)))?;
    scene.post(&host, "/v1/config/reload", json!({})).await?;
    let reason = scene.until(&host, "failed").await?["reason"].to_string();
    has(&reason, &[&second.to_string(), "but `sha256` expects 0707"]);
    host.stop().await
}
