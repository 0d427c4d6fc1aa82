//! What the API is protected with: whose tokens are let in, and which certificate it shows. Both are read at the start,
//! and again with the configuration, so that they can be replaced while the host runs.

mod certificate;
mod tokens;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;

pub(crate) use self::certificate::chain;
use self::certificate::{Certificates, Loaded};
pub use self::tokens::Token;
use self::tokens::Tokens;
pub(crate) use self::tokens::{Secret, read_file, read_source};
use crate::config::{Config, ConfigChange, Problem};
use crate::shutdown::Shutdown;

/// The protection of one host. Clones are one.
#[derive(Debug, Clone)]
pub struct Security {
    access: Arc<RwLock<Arc<Access>>>,
    certificates: Option<Arc<Certificates>>,
}

/// Who is let in.
#[derive(Debug, Default)]
pub struct Access {
    tokens: Tokens,
    open_metrics: bool,
}

/// What was read and is right, but not in effect yet.
pub(crate) struct Prepared {
    access: Access,
    loaded: Option<Loaded>,
}

impl Security {
    /// None at all: whoever can reach the API may use it, and connections aren't encrypted.
    pub fn none() -> Self {
        Self { access: Arc::default(), certificates: None }
    }

    /// Reads the tokens and the certificate that a configuration names; for [`Config::load_with`].
    ///
    /// # Errors
    /// Every token and every file that can't be read, or isn't as it has to be.
    pub fn read(config: &Config) -> Result<Self, Vec<Problem>> {
        let Prepared { access, loaded } = Self::prepare(config)?;
        let certificates = loaded.map(Certificates::new).transpose();
        let certificates = certificates.map_err(|(key, message)| vec![problem(key, message)])?;
        Ok(Self { access: Arc::new(RwLock::new(Arc::new(access))), certificates: certificates.map(Arc::new) })
    }

    /// Reads everything, and changes nothing. Blocks on files.
    ///
    /// # Errors
    /// As [`Security::read`].
    pub(crate) fn prepare(config: &Config) -> Result<Prepared, Vec<Problem>> {
        let mut problems = Vec::new();
        let tokens = Tokens::read(&config.auth, &mut problems);
        let loaded = config.http.tls.as_ref().map(Loaded::read).transpose();
        let loaded = loaded.unwrap_or_else(|(key, message)| {
            problems.push(problem(key, message));
            None
        });
        match problems.is_empty() {
            true => Ok(Prepared { access: Access { tokens, open_metrics: config.auth.open_metrics }, loaded }),
            false => Err(problems),
        }
    }

    /// Brings into effect what was read. Answers the keys whose values have changed, be it in other files than the configuration.
    pub(crate) fn install(&self, prepared: Prepared) -> Vec<ConfigChange> {
        let Prepared { access, loaded } = prepared;
        let before = self.access();
        let rotated = access.tokens.rotated_since(&before.tokens);
        let mut changes: Vec<_> = rotated.map(|name| ConfigChange::changed(format!("auth.tokens.{name}"))).collect();
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        // Whether there is encryption at all is decided when the host starts.
        if let (Some(certificates), Some(loaded)) = (&self.certificates, loaded)
            && certificates.replace(loaded)
        {
            changes.push(ConfigChange::changed("http.tls.certificate"));
        }
        changes
    }

    /// Who is let in now.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.certificates.is_some()
    }

    /// What agrees with a client on an encrypted connection, and how long that may take.
    pub(crate) fn acceptor(&self) -> Option<(TlsAcceptor, Duration)> {
        self.certificates.as_ref().map(|certificates| certificates.acceptor())
    }

    /// Looks at the files of the certificate from time to time, and takes another one over, until the shutdown is requested.
    pub async fn watch(&self, shutdown: &Shutdown) {
        match &self.certificates {
            Some(certificates) => certificates.watch(shutdown).await,
            None => shutdown.requested().await,
        }
    }
}

impl Access {
    /// Whether nobody is asked for a token.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether nobody is asked for a token at `/metrics`.
    pub fn has_open_metrics(&self) -> bool {
        self.open_metrics || self.is_open()
    }

    /// The token that this text is, if it is any.
    pub fn find(&self, presented: &str) -> Option<&Token> {
        self.tokens.find(presented)
    }
}

fn problem(key: impl Into<String>, message: impl fmt::Display) -> Problem {
    Problem { key: key.into(), line: None, column: None, message: message.to_string() }
}
