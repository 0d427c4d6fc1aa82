//! A host that runs, as another process sees it.

mod token;
mod transport;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::token::Presented;
use self::transport::{Answer, Transport, Trouble};
use super::Failure;
use crate::config::{Config, Role};

/// How long a host may take to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// How long any other answer may take.
const TIMEOUT: Duration = Duration::from_secs(35);

/// Which host is asked, and how it and the one who asks prove who they are.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct HostArgs {
    /// Ask the host at this address, and no other process
    ///
    /// Without it, a host at `http.listen` of the configuration is asked if one is running there.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the token to ask with
    ///
    /// Without it, the variable MEMCELL_TOKEN has the token. Without that too, and without --url, it is a token of the configuration
    /// that can be read from here and may do what is asked.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// The certificates (PEM) of the authority that vouches for an https host
    ///
    /// Without it, a host of the configuration has to show exactly the certificate that `http.tls` names, and one at --url one that a
    /// public authority vouches for.
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

/// A problem as the API answers it.
#[derive(Deserialize)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) detail: String,
}

/// What came back instead of an answer.
pub(super) enum Refusal {
    Problem(Problem),
    Unreachable(String),
}

/// The HTTP API of a running host.
pub(super) struct RunningHost {
    url: String,
    transport: Transport,
    token: Presented,
}

impl RunningHost {
    /// The host that the arguments name; else the host of this configuration, if it is running. `role` is what a token needs for
    /// what it will be asked.
    ///
    /// # Errors
    /// If nobody answers at the URL that was given, or what answers is not the host that it should be; and if the token or the
    /// certificates can't be read.
    pub(super) async fn find(args: HostArgs, role: Role, config: &Config) -> Result<Option<Self>, Failure> {
        let HostArgs { url, token_file, ca_file } = args;
        let is_own = url.is_none();
        let token = Presented::choose(token_file.as_deref(), role, is_own.then_some(&config.auth))?;
        let scheme = if config.http.tls.is_some() { "https" } else { "http" };
        let url = url.unwrap_or_else(|| format!("{scheme}://{}", reachable(config.http.listen)));
        let url = url.trim_end_matches('/').to_owned();
        let pinned = config.http.tls.as_ref().filter(|_| is_own).map(|tls| tls.certificate.as_path());
        let transport = Transport::new(&url, ca_file.as_deref(), pinned)
            .map_err(|reason| Failure::Usage(format!("{url}: {reason}")))?;
        let host = Self { url, transport, token };
        let hello = host.transport.send(Method::GET, "/healthz", None, None, HELLO_TIMEOUT).await;
        let said = |reason: &str| Failure::Work(format!("{}: {reason}", host.url));
        match hello {
            Ok(answer) if answer.status.is_success() => Ok(Some(host)),
            Ok(answer) => Err(said(&format!("what answers there is no memcell host ({})", answer.status))),
            Err(Trouble::NobodyThere(_)) if is_own => Ok(None),
            Err(Trouble::NobodyThere(reason) | Trouble::NoAnswer(reason)) if !is_own => {
                Err(said(&format!("no host answers: {reason}")))
            }
            Err(trouble) => Err(said(&format!("the host does not answer: {trouble}"))),
        }
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The JSON at a path.
    ///
    /// # Errors
    /// What the host says, or that it doesn't.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None).await.map_err(|refusal| self.failure(refusal))
    }

    /// What a request without a body comes to.
    ///
    /// # Errors
    /// As [`RunningHost::get`].
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, None).await.map_err(|refusal| self.failure(refusal))
    }

    /// What a request with a body, or without one, comes to.
    ///
    /// # Errors
    /// The problem that the host answers, or why there is no answer.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> Result<T, Refusal> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Refusal> {
        let unreachable = |trouble: Trouble| Refusal::Unreachable(trouble.to_string());
        let sent = self.transport.send(method, path, body, self.token.secret(), TIMEOUT);
        let Answer { status, body } = sent.await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Refusal::Unreachable(format!("its answer makes no sense: {error}")));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(mut problem) => {
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    problem.detail = format!("the host refuses: {}; {}", problem.detail, self.token.advice());
                }
                Err(Refusal::Problem(problem))
            }
            Err(_) => Err(Refusal::Unreachable(format!("it answers {status}"))),
        }
    }

    pub(super) fn failure(&self, refusal: Refusal) -> Failure {
        match refusal {
            // What a command orders comes from its command line.
            Refusal::Problem(problem) if problem.code == "invalid_argument" => Failure::Usage(problem.detail),
            Refusal::Problem(problem) => Failure::Work(problem.detail),
            Refusal::Unreachable(reason) => Failure::Work(format!("{}: {reason}", self.url)),
        }
    }
}

/// An address that listens on all interfaces is reached by the one that is always there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_can_be_connected_to() {
        for (listen, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
