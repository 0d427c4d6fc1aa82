//! One visit to a registry: where it is, who asks, and what it has let us in with.

use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::http::uri::Builder;
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use super::blocking;
use super::credentials::{Credentials, Kind};
use super::error::Problem;
use super::http::{Answer, Ask, Origin, Transport};
use super::token;
use crate::config::RegistryConfig;
use crate::kv::shown;

/// What is going to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Pull,
    Push,
}

/// A visit.
pub(super) struct Session {
    transport: Transport,
    credentials: Credentials,
    /// `http` or `https`.
    scheme: &'static str,
    authority: String,
    repository: String,
    purpose: Purpose,
    authorization: Option<HeaderValue>,
}

/// What registries say is wrong.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Session {
    /// Reads what it takes, and connects to nobody yet.
    ///
    /// # Errors
    /// If the credentials or the certificates can't be read.
    pub(super) async fn new(registry: &RegistryConfig, repository: &str, purpose: Purpose) -> Result<Self, Problem> {
        let config = registry.clone();
        let (transport, credentials) =
            blocking(move || Ok::<_, Problem>((Transport::new(&config)?, Credentials::find(&config)?))).await??;
        let authorization = match &credentials.kind {
            Kind::Token(token) => Some(token::bearer(token)?),
            // A password is shown only to those who ask for it.
            Kind::User { .. } | Kind::Nobody => None,
        };
        // What people call docker.io is a web site; its registry is elsewhere.
        let authority = if registry.name == "docker.io" { "registry-1.docker.io" } else { &registry.name };
        Ok(Self {
            transport,
            credentials,
            scheme: if registry.insecure { "http" } else { "https" },
            authority: authority.to_owned(),
            repository: repository.to_owned(),
            purpose,
            authorization,
        })
    }

    /// `/v2/REPOSITORY/…` of the registry.
    ///
    /// # Errors
    /// If the name of the registry is no host.
    pub(super) fn uri(&self, rest: &str) -> Result<Uri, Problem> {
        let path = format!("/v2/{}/{rest}", self.repository);
        let uri = Builder::new().scheme(self.scheme).authority(self.authority.as_str()).path_and_query(path);
        uri.build().map_err(|error| Problem::Local(format!("{}: {error}", self.authority)))
    }

    /// Asks; if the registry wants to know who, once more with what it wants to see.
    ///
    /// # Errors
    /// If there is no answer, or it is that nobody is let in.
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Answer, Problem> {
        let home = Origin::of(&self.uri("")?);
        // An upload may go to another place, which the registry has named; that place doesn't get to see it.
        let is_home = Origin::of(&ask.uri) == home;
        let answer = self.transport.ask(ask.clone(), self.authorization.as_ref().filter(|_| is_home)).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !is_home {
            return Ok(answer);
        }
        if self.authorization.is_some() {
            return Err(refused(answer, &self.credentials).await);
        }
        let actions = match self.purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let headers = answer.headers.clone();
        drop(answer);
        let is_secure = self.scheme == "https";
        let authorization =
            token::authorization(&self.transport, &headers, &self.credentials, &scope, is_secure).await?;
        let authorization = self.authorization.insert(authorization);
        let answer = self.transport.ask(ask, Some(authorization)).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(refused(answer, &self.credentials).await),
            _ => Ok(answer),
        }
    }

    /// As [`Session::ask`], where only one status is an answer.
    ///
    /// # Errors
    /// What the registry says instead.
    pub(super) async fn expect(&mut self, ask: Ask, status: StatusCode) -> Result<Answer, Problem> {
        let method = ask.method.clone();
        let answer = self.ask(ask).await?;
        if answer.status == status {
            return Ok(answer);
        }
        let is_read = method == Method::GET;
        match refused(answer, &self.credentials).await {
            Problem::Missing(text) if !is_read => Err(Problem::NoRegistry(text)),
            problem => Err(problem),
        }
    }
}

/// What an answer that is none says.
pub(super) async fn refused(answer: Answer, credentials: &Credentials) -> Problem {
    let status = answer.status;
    let retry = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(shown);
    let text = answer.text().await;
    // The rest may be a page for people, which is no use in a log line.
    let complaints = serde_json::from_str::<Errors>(&text).map(|told| told.errors).unwrap_or_default();
    let complaints: Vec<String> =
        complaints.into_iter().take(3).map(|one| format!("{} {}", one.code, one.message)).collect();
    let mut text = status.to_string();
    if !complaints.is_empty() {
        text = format!("{text}: {}", shown(&complaints.join(", ")));
    }
    if let Some(retry) = retry {
        text = format!("{text} (it says: again after {retry})");
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => denied(text, credentials),
        StatusCode::NOT_FOUND | StatusCode::GONE => Problem::Missing(text),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Problem::Busy(text),
        status if status.is_server_error() => Problem::Busy(text),
        _ => Problem::NoRegistry(format!("it answers {text}")),
    }
}

pub(super) fn denied(answer: String, credentials: &Credentials) -> Problem {
    Problem::Denied { answer, hint: credentials.hint.clone() }
}
