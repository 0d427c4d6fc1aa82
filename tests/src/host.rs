//! A whole host for one test: MongoDB, the store, its backends and the HTTP API, on free ports, in a temporary directory.
//!
//! All of it runs in the test's process, but for the MongoDB server; that one is stopped when the host is dropped, also by a
//! failing test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memcell_host::config::{BackendConfig, Config, Destination, MongoServer, MongoUri};
use memcell_host::http;
use memcell_host::jobs::Jobs;
use memcell_host::metrics::Metrics;
use memcell_host::mirror::MirrorState;
use memcell_host::mongo::embedded::EmbeddedServer;
use memcell_host::reload::Reloader;
use memcell_host::security::Security;
use memcell_host::store::MemCellStore;
use mongodb::bson::Document;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::artifacts;

/// How long a test waits for something that is bound to happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running host and what tests need of it.
pub struct TestHost {
    /// The store behind the API.
    pub store: MemCellStore,
    /// The configuration it was opened with.
    pub config: Config,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// For requests to the API.
    pub client: reqwest::Client,
    /// The collection itself, for changes behind the host's back.
    pub collection: mongodb::Collection<Document>,
    server: Option<EmbeddedServer>,
    serving: Option<Serving>,
    /// Whether there is a configuration file, which can be reloaded.
    from_file: bool,
    directory: TempDir,
}

/// The status, headers and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as JSON; a string if it isn't JSON, null if it is empty.
    pub body: Value,
}

impl Answer {
    /// A header as text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The in-memory backend under the name `local`.
pub fn in_memory() -> Result<BackendConfig> {
    Ok(BackendConfig::new("local", artifacts::plugin("in_memory")?))
}

/// The file backend under the name `local`, granted this directory.
pub fn file(directory: &Path) -> Result<BackendConfig> {
    let mut config = BackendConfig::new("local", artifacts::plugin("file")?);
    config.grants.directory = Some(directory.to_owned());
    Ok(config)
}

/// The hostile guest under the name `local`, misbehaving as `settings` say. Its deadlines are short, so that tests are.
pub fn hostile(settings: &[(&str, &str)]) -> Result<BackendConfig> {
    let mut config = BackendConfig::new("local", artifacts::guest("hostile")?);
    config.settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    config.limits.call_timeout = Duration::from_millis(500);
    config.limits.open_timeout = Duration::from_secs(5);
    config.limits.memory = 256 << 20;
    config.limits.response = 16 << 20;
    config.supervision.backoff_min = Duration::from_millis(20);
    config.supervision.backoff_max = Duration::from_millis(200);
    Ok(config)
}

/// The remote plugin under the name `local`, on these servers, which are all it may connect to. It waits as little as
/// [`hostile`] does.
pub fn remote(addresses: &[String], settings: &[(&str, &str)]) -> Result<BackendConfig> {
    let mut config = BackendConfig::new("local", artifacts::plugin("remote")?);
    config.settings = vec![("address".to_owned(), addresses.join(","))];
    config.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let granted = addresses.iter().map(|address| Destination::parse(address).map_err(anyhow::Error::msg));
    config.grants.connect = granted.collect::<Result<_>>()?;
    config.supervision.backoff_min = Duration::from_millis(20);
    config.supervision.backoff_max = Duration::from_millis(200);
    Ok(config)
}

impl TestHost {
    /// A host with these backends and otherwise the default configuration.
    pub async fn start(backends: Vec<BackendConfig>) -> Result<Self> {
        Self::start_with(backends, |_| {}).await
    }

    /// A host whose configuration `adjust` has the last word on.
    pub async fn start_with(backends: Vec<BackendConfig>, adjust: impl FnOnce(&mut Config)) -> Result<Self> {
        let (directory, server) = mongodb().await?;
        let uri = server.uri();
        Self::open(&uri, &uri, backends, adjust, directory, Some(server)).await
    }

    /// A host on a MongoDB of the test's own, at `uri`, which may be that of a proxy; `direct` is the server itself.
    pub async fn start_at(
        uri: &str,
        direct: &str,
        backends: Vec<BackendConfig>,
        adjust: impl FnOnce(&mut Config),
    ) -> Result<Self> {
        Self::open(uri, direct, backends, adjust, TempDir::new()?, None).await
    }

    async fn open(
        uri: &str,
        direct: &str,
        backends: Vec<BackendConfig>,
        adjust: impl FnOnce(&mut Config),
        directory: TempDir,
        server: Option<EmbeddedServer>,
    ) -> Result<Self> {
        let mut config = Config::new(MongoServer::Uri(MongoUri::parse(uri).map_err(anyhow::Error::msg)?));
        config.mongodb.operation_timeout = Duration::from_secs(5);
        config.mongodb.connect_timeout = Duration::from_secs(2);
        config.validation.backend = backends.first().map(|backend| backend.name.clone());
        config.validation.recheck_after = Duration::from_millis(200);
        // Two busy cores can keep a shard's thread waiting for a while; what tests measure is never this.
        config.validation.read_budget = Duration::from_secs(2);
        config.backends = backends;
        adjust(&mut config);
        Self::start_on(directory, server, direct, config, None).await
    }

    /// A host that was started with a file, which has `sections` and a `[mongodb]` of its own. It can be reloaded.
    pub async fn start_from_file(sections: &str) -> Result<Self> {
        let (directory, server) = mongodb().await?;
        let uri = server.uri();
        let path = directory.path().join(CONFIG_FILE);
        std::fs::write(&path, config_file(&uri, sections))?;
        let config = Config::load(&path)?;
        Self::start_on(directory, Some(server), &uri, config, Some(path)).await
    }

    async fn start_on(
        directory: TempDir,
        server: Option<EmbeddedServer>,
        direct: &str,
        config: Config,
        file: Option<PathBuf>,
    ) -> Result<Self> {
        let client = mongodb::Client::with_uri_str(direct).await?;
        let collection = client.database(&config.mongodb.database).collection(&config.mongodb.collection);
        let from_file = file.is_some();
        let (store, serving) = serve(&config, file).await?;
        Ok(Self {
            store,
            config,
            url: serving.url.clone(),
            client: reqwest::Client::new(),
            collection,
            server,
            serving: Some(serving),
            from_file,
            directory,
        })
    }

    /// Writes the file anew that the host was started with, with its `[mongodb]` and these sections. Nothing is reloaded by that.
    pub fn rewrite_config(&self, sections: &str) -> Result<()> {
        let uri = self.server.as_ref().context("MongoDB is stopped")?.uri();
        self.rewrite_config_whole(&config_file(&uri, sections))
    }

    /// Writes the file anew that the host was started with: this text, and nothing else.
    pub fn rewrite_config_whole(&self, text: &str) -> Result<()> {
        ensure!(self.from_file, "this host was not started with a file");
        Ok(std::fs::write(self.directory.path().join(CONFIG_FILE), text)?)
    }

    /// A folder for what a backend keeps, which goes with the host.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration of its backends.
    pub fn backends(&self) -> &[BackendConfig] {
        &self.config.backends
    }

    /// Ends the API and the store, and starts them again on the same MongoDB with these backends.
    pub async fn restart(&mut self, backends: Vec<BackendConfig>) -> Result<()> {
        self.end().await?;
        self.config.validation.backend = backends.first().map(|backend| backend.name.clone());
        self.config.backends = backends;
        let file = self.from_file.then(|| self.directory.path().join(CONFIG_FILE));
        let (store, serving) = serve(&self.config, file).await?;
        self.store = store;
        self.url.clone_from(&serving.url);
        self.serving = Some(serving);
        Ok(())
    }

    /// Another host on the same MongoDB, which it leaves to the first.
    pub async fn beside(&self, name: &str, backends: Vec<BackendConfig>) -> Result<Self> {
        let mut config = self.config.clone();
        config.host.name = name.to_owned();
        config.validation.backend = backends.first().map(|backend| backend.name.clone());
        config.backends = backends;
        let MongoServer::Uri(uri) = &config.mongodb.server else { bail!("the first host has no MongoDB to share") };
        let client = mongodb::Client::with_uri_str(uri.expose()).await?;
        let collection = client.database(&config.mongodb.database).collection(&config.mongodb.collection);
        let (store, serving) = serve(&config, None).await?;
        Ok(Self {
            store,
            config,
            url: serving.url.clone(),
            client: reqwest::Client::new(),
            collection,
            server: None,
            serving: Some(serving),
            from_file: false,
            directory: TempDir::new()?,
        })
    }

    /// Ends the API and the store in order, and leaves MongoDB running for others, until the answer is dropped.
    pub async fn leave(mut self) -> Result<Self> {
        self.end().await?;
        Ok(self)
    }

    /// Waits until every backend is live.
    pub async fn live(&self) -> Result<()> {
        for mirror in self.store.mirrors() {
            let mut state = mirror.watch_state();
            let live = state.wait_for(|state| matches!(state, MirrorState::Live | MirrorState::Failed { .. }));
            let state = tokio::time::timeout(PATIENCE, live).await.context("the mirror did not become live")??.clone();
            if state != MirrorState::Live {
                bail!("the mirror failed: {state:?}");
            }
        }
        Ok(())
    }

    /// Waits until every change has reached every backend that works.
    pub async fn settled(&self) -> Result<()> {
        for mirror in self.store.mirrors() {
            tokio::time::timeout(PATIENCE, mirror.settle()).await.context("the mirror did not settle")?;
        }
        Ok(())
    }

    /// A request without a body.
    pub async fn request(&self, method: &str, path: &str) -> Result<Answer> {
        self.send(self.client.request(method.parse()?, format!("{}{path}", self.url))).await
    }

    /// A request with a JSON body.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.send(self.client.request(method.parse()?, format!("{}{path}", self.url)).json(body)).await
    }

    /// Any request at all.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
        };
        Ok(Answer { status, headers, body })
    }

    /// The figure of `/metrics` with this name and these labels, if it is there.
    pub async fn figure(&self, name_and_labels: &str) -> Result<Option<f64>> {
        let text = self.request("GET", "/metrics").await?.body;
        let mut lines = text.as_str().context("no metrics")?.lines();
        let value = lines.find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// Appends a document, and answers its id.
    pub async fn append(&self, memcell: &Value) -> Result<String> {
        let answer = self.json("POST", "/v1/memcells", memcell).await?;
        match answer.body.get("event_id").and_then(Value::as_str) {
            Some(id) if answer.status == 201 => Ok(id.to_owned()),
            _ => bail!("the document was not stored: {answer:?}"),
        }
    }

    /// What the first backend holds for a key, decoded from its envelope to canonical Extended JSON; `None` if nothing.
    pub async fn mirrored(&self, event_id: &str) -> Result<Option<Value>> {
        self.mirrored_by(0, event_id).await
    }

    /// As [`TestHost::mirrored`], of the backend with this number.
    pub async fn mirrored_by(&self, backend: usize, event_id: &str) -> Result<Option<Value>> {
        let mirror = self.store.mirrors().into_iter().nth(backend).context("there is no such backend")?;
        let Some(entry) = mirror.read(&[event_id.to_owned()]).await?.pop().flatten() else { return Ok(None) };
        let document = mirror.codec().open(event_id, &entry.value)?.document()?;
        let mut json = Vec::new();
        document.write_canonical_json(&mut json)?;
        Ok(Some(serde_json::from_slice(&json)?))
    }

    /// The document as MongoDB has it, in canonical Extended JSON; `None` if it is not there.
    pub async fn stored(&self, event_id: &str) -> Result<Option<Value>> {
        let id = mongodb::bson::oid::ObjectId::parse_str(event_id)?;
        let found = self.collection.find_one(mongodb::bson::doc! { "_id": id }).await?;
        Ok(found.map(|document| mongodb::bson::Bson::Document(document).into_canonical_extjson()))
    }

    /// Stops MongoDB, as a failure would.
    pub async fn stop_mongodb(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Starts MongoDB again, on the same address and data.
    pub async fn start_mongodb(&mut self) -> Result<()> {
        let before = self.config.mongodb.server.clone();
        let server = EmbeddedServer::start(&self.directory.path().join("mongodb")).await?;
        let now = MongoServer::Uri(parsed(&server.uri())?);
        self.server = Some(server);
        if before != now {
            bail!("MongoDB came back on another address");
        }
        Ok(())
    }

    /// Ends the API and the store in order, then MongoDB. Returns what the store left undone.
    pub async fn stop(mut self) -> Result<Option<String>> {
        let undone = self.end().await?;
        self.stop_mongodb().await;
        Ok(undone)
    }

    async fn end(&mut self) -> Result<Option<String>> {
        if let Some(serving) = self.serving.take() {
            // A server that has ended already needs no telling.
            let _ = serving.shutdown.send(());
            serving.task.await??;
            serving.jobs.close(self.config.http.shutdown_grace).await;
        }
        Ok(self.store.close(self.config.http.shutdown_grace).await)
    }
}

/// The API of a store, while it is served.
struct Serving {
    url: String,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
    jobs: Jobs,
}

async fn serve(config: &Config, file: Option<PathBuf>) -> Result<(MemCellStore, Serving)> {
    let store = MemCellStore::open(config, Arc::new(Metrics::new())).await?;
    let security = Security::read(config).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let reloader = file.map(|path| Reloader::new(path, store.clone(), security.clone(), None));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (shutdown, shut_down) = oneshot::channel::<()>();
    let jobs = Jobs::start(&store, &config.host, &config.schedule);
    let (served, served_jobs, http_config) = (store.clone(), jobs.clone(), config.http.clone());
    let task = tokio::spawn(async move {
        let shut_down = async move { drop(shut_down.await) };
        http::serve(listener, served, served_jobs, reloader, &http_config, security, shut_down).await
    });
    Ok((store, Serving { url, shutdown, task, jobs }))
}

/// A server in a directory of its own.
async fn mongodb() -> Result<(TempDir, EmbeddedServer)> {
    let directory = TempDir::new()?;
    let server = EmbeddedServer::start(&directory.path().join("mongodb")).await?;
    Ok((directory, server))
}

const CONFIG_FILE: &str = "memcell.toml";

fn config_file(uri: &str, sections: &str) -> String {
    format!("[mongodb]\nuri = \"{uri}\"\noperation_timeout = \"5s\"\nconnect_timeout = \"2s\"\n{sections}")
}

fn parsed(uri: &str) -> Result<MongoUri> {
    MongoUri::parse(uri).map_err(anyhow::Error::msg)
}

/// Waits until `condition` holds, looking every few milliseconds, and fails after [`PATIENCE`] with `what`.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await? {
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
