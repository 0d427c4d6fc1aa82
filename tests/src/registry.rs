//! A registry for one test: Debian's `docker-registry`, on a free port of the loopback interface, with its data in a temporary
//! directory.
//!
//! It ends when it is dropped, also by a failing test, and with the thread that started it.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use memcell_host::config::RegistryConfig;
use tempfile::TempDir;

use crate::child::{free_port, spawn_tied};
use crate::host::PATIENCE;

const POLL: Duration = Duration::from_millis(20);

/// What a registry asks of those who come.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A line of an htpasswd file, with a bcrypt hash.
    pub password: Option<String>,
    /// `auth.token` of the registry's configuration, in YAML, each line indented by four blanks.
    pub token: Option<String>,
    /// Certificate and key, in PEM; without them it speaks plain HTTP.
    pub tls: Option<(String, String)>,
}

/// The registry.
pub struct Registry {
    port: u16,
    is_secure: bool,
    child: Option<Child>,
    directory: TempDir,
}

impl Registry {
    /// One that lets everybody in, over plain HTTP.
    ///
    /// # Errors
    /// If it isn't installed, or doesn't come up.
    pub fn start() -> Result<Self> {
        Self::start_with(&Access::default())
    }

    /// One that asks for something.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_with(access: &Access) -> Result<Self> {
        let (port, directory) = (free_port()?, TempDir::new()?);
        let file = |name: &str, text: &str| -> Result<String> {
            let path = directory.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let mut config = format!(
            "version: 0.1\nlog:\n  accesslog: {{disabled: true}}\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            directory.path().join("data").display()
        );
        if let Some((certificate, key)) = &access.tls {
            let (certificate, key) = (file("certificate.pem", certificate)?, file("key.pem", key)?);
            write!(config, "  tls:\n    certificate: {certificate}\n    key: {key}\n")?;
        }
        if let Some(line) = &access.password {
            write!(config, "auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file("htpasswd", line)?)?;
        }
        if let Some(token) = &access.token {
            write!(config, "auth:\n  token:\n{token}")?;
        }
        file("config.yml", &config)?;
        let mut registry = Self { port, is_secure: access.tls.is_some(), child: None, directory };
        registry.run()?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// How it is reached by everybody.
    pub fn config(&self) -> RegistryConfig {
        let mut config = RegistryConfig::new(self.address());
        config.insecure = !self.is_secure;
        config
    }

    /// Starts it again after [`Registry::stop`], on the same port and data.
    ///
    /// # Errors
    /// If it runs already, or doesn't come up.
    pub fn run(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the registry runs already");
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.directory.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = spawn_tied(command).context("docker-registry is missing: run `cargo xtask setup`")?;
        self.child = Some(started);
        self.wait_until_ready()
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the registry doesn't run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Where it keeps what has this digest (64 hexadecimal digits).
    pub fn blob(&self, digest: &str) -> PathBuf {
        let folder = Path::new("data/docker/registry/v2/blobs/sha256").join(digest.get(..2).unwrap_or_default());
        self.directory.path().join(folder).join(digest).join("data")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("docker-registry did not start ({ended:?}); its log:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that was stopped is gone already.
        let _ = self.stop();
    }
}
