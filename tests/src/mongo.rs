//! A MongoDB server for one test, which keeps what it has acknowledged also if it is killed.
//!
//! Unlike [`memcell_host::mongo::embedded`], it makes every write durable before it acknowledges it, keeps its port while it is
//! down, and can be killed and started again at any moment. It ends when it is dropped, also by a failing test, and with the
//! thread that started it.

use std::env;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use tempfile::TempDir;

use crate::child::{free_port, spawn_tied};
use crate::host::PATIENCE;

const POLL: Duration = Duration::from_millis(20);

/// How long one question to a starting server may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// MongoDB's error for a member that was never told its set.
const NOT_YET_INITIALIZED: i32 = 94;

/// What `cargo xtask setup` installs, below the user's cache directory.
const INSTALLED: &str = "memcell/tools/secantus/bin/secantusd-rs";

/// A server and its data.
pub struct MongoDb {
    port: u16,
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    directory: TempDir,
}

impl MongoDb {
    /// A server without data that takes writes.
    ///
    /// # Errors
    /// If there is no program, or it doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`MongoDb::start`], with these arguments on top if it is the development server.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(development: &[&str]) -> Result<Self> {
        let arguments = development.iter().map(|argument| (*argument).to_owned()).collect();
        let (port, program, directory) = (free_port()?, program()?, TempDir::new()?);
        let mut server = Self { port, program, arguments, child: None, directory };
        server.launch()?;
        server.ready().await?;
        Ok(server)
    }

    /// Its connection string.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address())
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Starts it again after [`MongoDb::kill`], on the same port and data, and waits for nothing.
    ///
    /// # Errors
    /// If it runs already, or can't be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the MongoDB server runs already");
        let data = self.directory.path().join("data");
        std::fs::create_dir_all(&data)?;
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = Command::new(&self.program);
        let port = self.port.to_string();
        if self.is_development_server() {
            let config = self.directory.path().join("secantusd.toml");
            std::fs::write(&config, "")?;
            command.arg("--config").arg(config).args(["--host", "127.0.0.1", "--port", &port]);
            command.args(["--log-level", "WARNING", "--cache-size", "128M", "--log-file-max", "16MB"]);
            command.arg("--sync-on-commit").args(&self.arguments).arg("--storage-path").arg(data);
        } else {
            command.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", &port, "--quiet"]);
            // What a killed client leaves of a transaction holds up others until its time is up.
            command.args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "transactionLifetimeLimitSeconds=3"]);
            command.arg("--dbpath").arg(data);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(self.directory.path());
        self.child = Some(spawn_tied(command)?);
        Ok(())
    }

    /// Waits until it takes writes.
    ///
    /// # Errors
    /// If it ends, or takes too long.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let admin = Client::with_options(self.options().await?)?.database("admin");
        loop {
            let reason = match self.urge(&admin).await {
                Ok(true) => return Ok(()),
                Ok(false) => "it has not become primary".to_owned(),
                Err(error) => error.to_string(),
            };
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("the MongoDB server did not start ({ended:?}): {reason}; its log:\n{log}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it is primary. Founds the set of a new `mongod`.
    async fn urge(&self, admin: &Database) -> mongodb::error::Result<bool> {
        let hello = admin.run_command(doc! { "hello": 1 }).await?;
        if hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Ok(true);
        }
        if !self.is_development_server()
            && let Err(error) = admin.run_command(doc! { "replSetGetStatus": 1 }).await
            && matches!(&*error.kind, ErrorKind::Command(command) if command.code == NOT_YET_INITIALIZED)
        {
            let config = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": self.address() }] };
            admin.run_command(doc! { "replSetInitiate": config }).await?;
        }
        Ok(false)
    }

    /// SIGKILL, as by a crash.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the MongoDB server doesn't run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Aborts the transactions that killed clients have left open.
    ///
    /// MongoDB does that by itself after a minute; until then it holds back whoever changes the same documents, and the development
    /// server also every event of its change streams.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn end_sessions(&self) -> Result<()> {
        let client = Client::with_options(self.options().await?)?;
        client.database("admin").run_command(doc! { "killAllSessions": [] }).await?;
        Ok(())
    }

    /// The collection that a host of default configuration keeps its documents in, for another program's changes. What that
    /// program asks is sent once: it learns that the connection broke.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn collection(&self) -> Result<Collection<Document>> {
        let mut options = self.options().await?;
        options.retry_writes = Some(false);
        options.retry_reads = Some(false);
        Ok(Client::with_options(options)?.database("memcell").collection("memcells"))
    }

    async fn options(&self) -> Result<ClientOptions> {
        let mut options = ClientOptions::parse(self.uri()).await?;
        options.connect_timeout = Some(ANSWER_TIMEOUT);
        options.server_selection_timeout = Some(ANSWER_TIMEOUT);
        Ok(options)
    }

    /// Whether it is the development server and not a `mongod`.
    pub fn is_development_server(&self) -> bool {
        self.program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("secantusd"))
    }
}

impl Drop for MongoDb {
    fn drop(&mut self) {
        // If it can't be killed, it is gone already.
        let _ = self.kill();
    }
}

/// The program that the host would start: what `MEMCELL_MONGOD` names, else `mongod` or the development server on the `PATH`,
/// else the development server that `cargo xtask setup` installs.
fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os("MEMCELL_MONGOD").filter(|named| !named.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let on_path = ["mongod", "secantusd-rs"].into_iter().flat_map(|name| folders.iter().map(move |at| at.join(name)));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
    let mut candidates = on_path.chain(cache.map(|cache| cache.join(INSTALLED)));
    candidates.find(|program| program.is_file()).context("found no MongoDB server: run `cargo xtask setup`")
}
