//! Which token a command shows to a host.

use std::path::Path;

use super::Failure;
use crate::config::{AuthConfig, Role};
use crate::security::{Secret, read_file, read_source};

/// Has the token, if no file is named.
const TOKEN_VARIABLE: &str = "MEMCELL_TOKEN";

/// A token, or none, and where it is from.
pub(super) struct Presented {
    secret: Option<Secret>,
    from: String,
    /// Why tokens of the configuration were of no use.
    unusable: Vec<String>,
}

impl Presented {
    /// The token of the file; else that of the environment; else that of the configuration that may do least of those that may do
    /// enough, if any can be read.
    ///
    /// # Errors
    /// If the file or the variable has no token.
    pub(super) fn choose(file: Option<&Path>, role: Role, config: Option<&AuthConfig>) -> Result<Self, Failure> {
        let given = |secret, from: String| Self { secret: Some(secret), from, unusable: Vec::new() };
        if let Some(file) = file {
            let secret = read_file(file).map_err(|reason| Failure::Usage(format!("--token-file: {reason}")))?;
            return Ok(given(secret, format!("that of {}", file.display())));
        }
        if let Some(text) = std::env::var_os(TOKEN_VARIABLE).filter(|text| !text.is_empty()) {
            let secret = text.to_str().ok_or_else(|| "is no text".to_owned()).and_then(Secret::parse);
            let secret = secret.map_err(|reason| Failure::Usage(format!("the token in {TOKEN_VARIABLE} {reason}")))?;
            return Ok(given(secret, format!("that of {TOKEN_VARIABLE}")));
        }
        Ok(Self::of_configuration(role, config))
    }

    fn of_configuration(role: Role, config: Option<&AuthConfig>) -> Self {
        let mut tokens: Vec<_> = config.into_iter().flat_map(|config| &config.tokens).collect();
        tokens.retain(|token| token.role >= role);
        tokens.sort_by_key(|token| token.role);
        let mut unusable = Vec::new();
        for token in tokens {
            match read_source(&token.source) {
                Ok(Some(secret)) => {
                    return Self { secret: Some(secret), from: format!("auth.tokens.{}", token.name), unusable };
                }
                Ok(None) => unusable.push(format!("of auth.tokens.{} there is only the digest", token.name)),
                Err(reason) => unusable.push(format!("auth.tokens.{}: {reason}", token.name)),
            }
        }
        Self { secret: None, from: String::new(), unusable }
    }

    /// The token itself.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// What to do when the host refuses.
    pub(super) fn advice(&self) -> String {
        let how = format!("--token-file or {TOKEN_VARIABLE} names another token");
        if self.secret.is_some() {
            return format!("the token was {}; {how}", self.from);
        }
        let how = format!("no token was sent: --token-file or {TOKEN_VARIABLE} names one");
        if self.unusable.is_empty() { how } else { format!("{how} ({})", self.unusable.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TokenConfig, TokenSource};

    #[test]
    fn the_least_token_that_suffices_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let token = |name: &str, role, content: Option<&str>| {
            let path = folder.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            TokenConfig { name: name.to_owned(), role, source: TokenSource::File(path) }
        };
        let config = AuthConfig {
            tokens: vec![
                token("admin", Role::Admin, Some("admin-admin-admin-admin")),
                token("reader", Role::Read, Some("read-read-read-read-read")),
                token("unreadable", Role::Write, None),
            ],
            ..AuthConfig::default()
        };
        let chosen = |role| {
            let presented = Presented::of_configuration(role, Some(&config));
            presented.secret().map(|secret| secret.expose().to_owned())
        };
        assert_eq!(chosen(Role::Read).unwrap(), "read-read-read-read-read");
        assert_eq!(chosen(Role::Write).unwrap(), "admin-admin-admin-admin");
        let lacking = AuthConfig { tokens: vec![token("gone", Role::Admin, None)], ..AuthConfig::default() };
        let none = Presented::of_configuration(Role::Read, Some(&lacking));
        assert!(none.secret().is_none());
        assert!(none.advice().contains("--token-file") && none.advice().contains("auth.tokens.gone"));
    }
}
