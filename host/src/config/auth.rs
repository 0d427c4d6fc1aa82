//! `[auth]`: who may use the API, and where their tokens are. The tokens themselves are not in here, and are read later:
//! most commands need none, and may not be able to read them.

use std::fmt;
use std::path::PathBuf;

use super::reader::{Entry, Section, describe, quote};
use super::values::{boolean, digest, one_of, path, variable_name};

/// Who may use the API. Without any token there is no authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// That the API is meant to be open to whoever can reach it, also beyond this machine.
    pub unauthenticated: bool,
    /// Whether `/metrics` is open although there are tokens.
    pub open_metrics: bool,
    /// `[auth.tokens.NAME]`, in the order of the file.
    pub tokens: Vec<TokenConfig>,
}

/// A token that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// What it is called in logs.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where it is.
    pub source: TokenSource,
}

/// Where a token is.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// In a file, which has nothing but the token in it.
    File(PathBuf),
    /// In a variable of the environment, by its name.
    Environment(String),
    /// With its bearer alone: this is its SHA-256 digest.
    Sha256([u8; 32]),
}

/// What a token may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read MemCells, and see how the host is doing.
    Read,
    /// Change MemCells.
    Write,
    /// Order jobs, and reload the configuration.
    Admin,
}

impl Role {
    /// Its word in the configuration and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl AuthConfig {
    /// Whether whoever can reach the API may use it.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Shows no digest: it would be something to try tokens against.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Environment(name) => write!(f, "Environment({name})"),
            Self::Sha256(_) => f.write_str("Sha256(***)"),
        }
    }
}

/// Reads `[auth]`; relative paths are taken from `folder`.
pub(super) fn auth(section: &Section<'_>, folder: &std::path::Path) -> AuthConfig {
    let tokens = section.section("tokens");
    let read = |entry: Entry<'_>| {
        let name = entry.name;
        let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !word || !(1..=63).contains(&name.len()) {
            tokens.problem(name, "must be named with 1 to 63 letters, digits, -, _ and .");
        }
        if entry.value.as_table().is_none() {
            // Whatever stands here may be the token.
            tokens.problem(name, "must be a table with role and file: the token itself is not written here");
            return None;
        }
        token(&tokens.table_of(&entry)?, name, folder)
    };
    let config = AuthConfig {
        unauthenticated: section.read("unauthenticated", false, boolean),
        open_metrics: section.read("open_metrics", false, boolean),
        tokens: tokens.entries().into_iter().filter_map(read).collect(),
    };
    if config.unauthenticated && !config.tokens.is_empty() {
        let message =
            "can't be true while there are tokens: whoever has none is refused, and that is what tokens are for";
        section.problem("unauthenticated", message);
    }
    section.finish();
    config
}

fn token(section: &Section<'_>, name: &str, folder: &std::path::Path) -> Option<TokenConfig> {
    const SOURCES: [&str; 3] = ["file", "environment", "sha256"];
    let roles = [Role::Read, Role::Write, Role::Admin].map(|role| (role.as_str(), role));
    let role = section.required(
        "role",
        "\"read\", \"write\" or \"admin\", each of which includes those before it",
        one_of(&roles),
    );
    let file = section.optional("file", path(folder)).map(TokenSource::File);
    let environment = section.optional("environment", variable_name).map(TokenSource::Environment);
    // Not the usual text of a refusal, which would show what may be the token itself.
    let sha256 = |value: &toml::de::DeValue<'_>| {
        digest(value)
            .map_err(|_| "must be 64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints them".to_owned())
    };
    let sha256 = section.optional("sha256", sha256).map(TokenSource::Sha256);
    match SOURCES.iter().filter(|source| section.has(source)).count() {
        1 => {}
        0 => {
            let given = section.entries().into_iter().find(|entry| matches!(entry.name, "token" | "value" | "secret"));
            let hint = if given.is_some() { "; the token itself is not written here" } else { "" };
            section.problem("file", format!("is required, or environment, or sha256: where the token is{hint}"));
        }
        _ => {
            let extra = SOURCES.iter().rev().find(|source| section.has(source)).copied().unwrap_or("file");
            section
                .problem(extra, "is one too many: a token is in a file, or in the environment, or known by its sha256");
        }
    }
    section.finish();
    let source = file.or(environment).or(sha256)?;
    Some(TokenConfig { name: name.to_owned(), role: role?, source })
}

/// A name of this host that browsers may use, without a port.
pub(super) fn host_name(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let name = value.as_str().ok_or_else(|| format!("must be a text in quotes, found {}", describe(value)))?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if !plain || !(1..=253).contains(&name.len()) {
        let what = "must be the name of a host without port, such as \"memcell.example.com\"";
        return Err(format!("{what}, found {}", quote(name)));
    }
    Ok(name.to_ascii_lowercase())
}
