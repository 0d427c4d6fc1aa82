//! Who asks a registry: as its table in the configuration says, else as `docker login` has left it behind, else nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::error::Problem;
use crate::config::{RegistryConfig, RegistryLogin, SecretSource};
use crate::secret_file::{self, SecretFile};

/// Longer than any password or token.
const SECRET_BYTES: usize = 64 << 10;

/// Configuration files are small; whatever is larger is something else.
const FILE_BYTES: u64 = 1 << 20;

/// Who asks. There is no `Debug`, so that no log can show it.
pub(super) struct Credentials {
    pub(super) kind: Kind,
    /// What to do if they are not enough, for a message.
    pub(super) hint: String,
}

pub(super) enum Kind {
    Nobody,
    User { name: String, password: String },
    Token(String),
}

/// What counts in docker's configuration.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

impl Credentials {
    /// Reads them. Blocks for as long as small files take.
    ///
    /// # Errors
    /// If the secret that the configuration names can't be read, or docker's file isn't what it should be.
    pub(super) fn find(registry: &RegistryConfig) -> Result<Self, Problem> {
        let table = format!("[registries.\"{}\"]", registry.name);
        let Some(login) = &registry.login else {
            return match docker_config() {
                Some(path) => of_docker(&path, &registry.name, &table),
                None => Ok(nobody(&table)),
            };
        };
        let kind = match login {
            RegistryLogin::Password { username, password } => {
                Kind::User { name: username.clone(), password: secret(password)? }
            }
            RegistryLogin::Token(token) => Kind::Token(secret(token)?),
        };
        Ok(Self { kind, hint: format!("check the credentials that {table} names, and what they allow") })
    }
}

fn nobody(table: &str) -> Credentials {
    let hint = format!("it was asked without credentials: write a username and password_file into {table}");
    Credentials { kind: Kind::Nobody, hint }
}

fn secret(source: &SecretSource) -> Result<String, Problem> {
    let (text, place) = match source {
        SecretSource::File(path) => {
            let place = path.display().to_string();
            let file = SecretFile::read(path, SECRET_BYTES);
            let text = file.and_then(|file| file.text().map(str::to_owned));
            (text.map_err(|reason| Problem::Credentials(format!("{place} {reason}")))?, place)
        }
        SecretSource::Environment(name) => {
            let place = format!("the environment variable {name}");
            let value = std::env::var(name).map_err(|_| Problem::Credentials(format!("{place} is not set")))?;
            (value, place)
        }
    };
    match secret_file::line(&text) {
        "" => Err(Problem::Credentials(format!("{place} is empty"))),
        secret => Ok(secret.to_owned()),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Where docker and its like keep what `docker login` was told.
fn docker_config() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = from("DOCKER_CONFIG").or_else(|| from("HOME").map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

fn of_docker(path: &Path, registry: &str, table: &str) -> Result<Credentials, Problem> {
    let failed = |reason: String| Problem::Credentials(format!("{}: {reason}", path.display()));
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(nobody(table)),
        Err(error) => return Err(failed(error.to_string())),
    };
    // The error's own text may quote what is in the file.
    let config: DockerConfig = serde_json::from_str(&text)
        .map_err(|error| failed(format!("it is no docker configuration (line {})", error.line())))?;
    let is_it = |key: &str| bare(key) == registry || (registry == "docker.io" && bare(key) == "index.docker.io");
    let auth = config.auths.iter().find(|(key, _)| is_it(key)).map(|(_, auth)| auth.auth.as_str());
    if let Some(auth) = auth.filter(|auth| !auth.is_empty()) {
        let decoded = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (name, password) =
            pair.ok_or_else(|| failed(format!("what it has for {registry} is no user and password")))?;
        let kind = Kind::User { name: name.to_owned(), password: password.trim_end_matches('\0').to_owned() };
        return Ok(Credentials { kind, hint: format!("check what {} has for {registry}", path.display()) });
    }
    let helper = config.cred_helpers.iter().find(|(key, _)| is_it(key)).map(|(_, helper)| helper);
    // With a store, an entry without content says that the store has it.
    let helper = helper.or(config.creds_store.as_ref().filter(|_| auth.is_some()));
    let mut found = nobody(table);
    if let Some(helper) = helper {
        found.hint = format!(
            "{} leaves its credentials to the helper docker-credential-{helper}, which memcell doesn't run: write a username \
             and password_file into {table}",
            path.display()
        );
    }
    Ok(found)
}

/// `https://index.docker.io/v1/` is how some of them are written.
fn bare(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker(text: &str, registry: &str) -> Result<Credentials, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        of_docker(&path, registry, "[registries.\"r\"]")
    }

    #[test]
    fn what_docker_login_leaves_behind() {
        let text = format!(
            r#"{{"auths": {{"r:5000": {{"auth": "{}"}}, "https://index.docker.io/v1/": {{"auth": "{}"}}, "s": {{}}}},
                "credsStore": "desktop", "credHelpers": {{"t": "ecr-login"}}, "other": 1}}"#,
            STANDARD.encode("robot:s3cret:x"),
            STANDARD.encode("hub:h")
        );
        let user = |registry: &str| match docker(&text, registry).unwrap().kind {
            Kind::User { name, password } => format!("{name} {password}"),
            Kind::Nobody => "nobody".to_owned(),
            Kind::Token(_) => panic!(),
        };
        assert_eq!(user("r:5000"), "robot s3cret:x");
        assert_eq!(user("docker.io"), "hub h");
        assert_eq!((user("r").as_str(), user("s").as_str(), user("t").as_str()), ("nobody", "nobody", "nobody"));
        let hint = |registry: &str| docker(&text, registry).unwrap().hint;
        assert!(hint("s").contains("docker-credential-desktop, which memcell doesn't run"), "{}", hint("s"));
        assert!(hint("t").contains("docker-credential-ecr-login"));
        assert!(
            hint("r").contains("asked without credentials") && hint("r:5000").contains("config.json has for r:5000")
        );
    }

    #[test]
    fn files_that_are_none_are_not_quoted() {
        let secret = |text: &str| docker(text, "r").err().unwrap().to_string();
        assert!(secret("{\"auths\": s3cret").contains("no docker configuration (line 1)"));
        let wrong = secret(r#"{"auths": {"r": {"auth": "s3cret"}}}"#);
        assert!(wrong.contains("no user and password") && !wrong.contains("s3cret"), "{wrong}");
    }

    #[test]
    fn secrets_are_read_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            secret(&SecretSource::File(path.clone()))
        };
        assert_eq!(found(" s3cret\r\n").unwrap(), " s3cret");
        assert!(found("\n").unwrap_err().to_string().contains("password is empty"));
        let unset = secret(&SecretSource::Environment("MEMCELL_NO_SUCH_VARIABLE".into())).unwrap_err().to_string();
        assert!(unset.contains("MEMCELL_NO_SUCH_VARIABLE is not set"), "{unset}");
        let missing = secret(&SecretSource::File(folder.path().join("none"))).unwrap_err().to_string();
        assert!(missing.contains("none can't be read"), "{missing}");
    }
}
