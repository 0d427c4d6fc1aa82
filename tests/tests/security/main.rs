//! Who may use a host and who may not: tokens and their roles, encryption, browsers that are made use of, and more requests
//! than there is room for. Hosts run in the test's process, or as the program that users run.

#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null for what it lacks, and tests may panic"
)]

mod browser;
mod client;
mod commands;
mod limits;
mod load;
mod restart;
mod roles;
mod slow;
mod tls;
mod tokens;

use std::path::Path;

use anyhow::{Context, Result, bail};
use memcell_tests::artifacts;
use memcell_tests::host::{Answer, TestHost};
use memcell_tests::mongo::MongoDb;
use memcell_tests::program::{Host, Memcell};
use serde_json::json;
use tempfile::TempDir;

/// A token for each role. Nothing else in a test contains such a text.
const READ: &str = "read-token-6fLZ0sVnq1d0Rk1m";
const WRITE: &str = "write-token-1pQe8yTz4cJ7Wb2x";
const ADMIN: &str = "admin-token-9aXo3uHd5mK6Gs8v";

/// A file with nothing but this in it.
fn secret(directory: &Path, name: &str, content: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    std::fs::write(&path, content)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(path.display().to_string())
}

/// The section of the configuration with a token for each role, in files of this directory.
fn all_roles(directory: &Path) -> Result<String> {
    let mut section = "[auth]\n".to_owned();
    for (role, token) in [("read", READ), ("write", WRITE), ("admin", ADMIN)] {
        let file = secret(directory, &format!("{role}.token"), &format!("{token}\n"))?;
        section.push_str(&format!("tokens.{role} = {{ role = \"{role}\", file = \"{file}\" }}\n"));
    }
    Ok(section)
}

/// A host in this process with a token for each role, and where their files are.
async fn host_with_roles(more: &str) -> Result<(TestHost, TempDir)> {
    let directory = TempDir::new()?;
    let host = TestHost::start_from_file(&format!("{}{more}", all_roles(directory.path())?)).await?;
    Ok((host, directory))
}

/// A request with this token.
async fn with_token(host: &TestHost, method: &str, path: &str, token: Option<&str>) -> Result<Answer> {
    let mut request = host.client.request(method.parse()?, format!("{}{path}", host.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    host.send(request).await
}

/// The program as users run it, with a MongoDB and a configuration of its own.
struct Program {
    mongodb: MongoDb,
    directory: TempDir,
    memcell: Memcell,
}

impl Program {
    /// With the in-memory backend, a free port, and these sections, of which the first goes on with `[http]`.
    async fn new(http_and_more: &str) -> Result<Self> {
        let mongodb = MongoDb::start().await?;
        let directory = TempDir::new()?;
        let program = Self { memcell: Memcell::new(directory.path().join("memcell.toml"))?, mongodb, directory };
        program.configure("127.0.0.1:0", http_and_more)?;
        Ok(program)
    }

    /// Writes the configuration anew.
    fn configure(&self, listen: &str, http_and_more: &str) -> Result<()> {
        let plugin = json!(artifacts::plugin("in_memory")?.to_string_lossy());
        let text = format!(
            "[mongodb]\nuri = \"{}\"\n[backends.local]\nplugin = {plugin}\n[http]\nlisten = \"{listen}\"\n{http_and_more}",
            self.mongodb.uri()
        );
        Ok(std::fs::write(self.directory.path().join("memcell.toml"), text)?)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn serve(&self) -> Result<Host> {
        self.memcell.serve(&self.path().join("host.log")).await.with_context(|| self.log())
    }

    /// What the host has logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("host.log")).unwrap_or_default()
    }
}

/// `ADDRESS` of `http://ADDRESS`.
fn address(url: &str) -> Result<&str> {
    match url.split_once("://") {
        Some((_, address)) => Ok(address),
        None => bail!("{url} is no url"),
    }
}
