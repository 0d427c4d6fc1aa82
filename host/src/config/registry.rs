//! How a registry of plugins is reached.

use std::path::PathBuf;
use std::time::Duration;

use super::defaults;

/// `[registries."HOST[:PORT]"]`. The default is what holds for a registry that isn't mentioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `host` or `host:port`, as in references.
    pub name: String,
    /// Who asks. Without it, what `docker login` has left behind counts, if anything.
    pub login: Option<RegistryLogin>,
    /// Whether it is spoken to over plain HTTP.
    pub insecure: bool,
    /// Certificates in PEM that are trusted beside those of the public authorities.
    pub ca_file: Option<PathBuf>,
    /// How long fetching a component may take in all.
    pub timeout: Duration,
}

/// Who asks a registry. The secrets themselves are read when they are needed, and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryLogin {
    /// A user with a password.
    Password {
        /// The user's name.
        username: String,
        /// Where the password is.
        password: SecretSource,
    },
    /// Whoever has this token.
    Token(SecretSource),
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The content of a file, without the line break at its end.
    File(PathBuf),
    /// The value of an environment variable.
    Environment(String),
}

/// The one of that name; the default if there is none.
pub(super) fn named(registries: &[RegistryConfig], name: &str) -> RegistryConfig {
    registries.iter().find(|registry| registry.name == name).cloned().unwrap_or_else(|| RegistryConfig::new(name))
}

impl RegistryConfig {
    /// Everything but the name at its default.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), login: None, insecure: false, ca_file: None, timeout: defaults::REGISTRY_TIMEOUT }
    }
}
