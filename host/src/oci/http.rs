//! Single requests over HTTP/1.1, with or without TLS: what a registry is asked with. Each wait has a bound, each answer is read
//! by whoever asked, who says how much of it he wants.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::error::Problem;
use crate::config::RegistryConfig;
use crate::kv::shown;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other side may say nothing: a registry that checks a large upload needs some of it.
const SILENCE: Duration = Duration::from_secs(30);

/// Registries send what is large to where it lies with one redirect; more than a few are a circle.
const MOST_REDIRECTS: usize = 5;

/// Most of a text that is only shown.
const TEXT_BYTES: usize = 16 << 10;

/// What a registry is asked. It is kept whole, so that it can be asked again.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) accept: Option<String>,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn get(uri: Uri) -> Self {
        Self { method: Method::GET, uri, accept: None, content_type: None, body: Bytes::new() }
    }
}

/// What came back, of which the body has not been read. The connection ends with it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

/// What connections are made with.
pub(super) struct Transport {
    tls: TlsConnector,
    /// What is said when a certificate isn't trusted.
    registry: String,
}

impl Transport {
    /// Trusts the public authorities (those of Mozilla's list), and those in the registry's `ca_file`.
    ///
    /// # Errors
    /// If that can't be read.
    pub(super) fn new(registry: &RegistryConfig) -> Result<Self, Problem> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = &registry.ca_file {
            let failed = |error: &dyn std::fmt::Display| Problem::Local(format!("ca_file {}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| failed(&error))?;
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.len() == before {
                return Err(failed(&"there is no certificate in it, in PEM"));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Problem::Local(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), registry: registry.name.clone() })
    }

    /// Asks, and goes after redirects of what is only read. The authorization goes to the place that it was meant for, and never
    /// farther; and what began with TLS never goes on without.
    ///
    /// # Errors
    /// If there is no answer.
    pub(super) async fn ask(&self, mut ask: Ask, authorization: Option<&HeaderValue>) -> Result<Answer, Problem> {
        let origin = Origin::of(&ask.uri);
        for _ in 0..=MOST_REDIRECTS {
            let here = Origin::of(&ask.uri);
            let answer = self.ask_once(&ask, authorization.filter(|_| here == origin)).await?;
            let is_read = ask.method == Method::GET || ask.method == Method::HEAD;
            if !(is_read && answer.status.is_redirection()) {
                return Ok(answer);
            }
            let target = resolve(&ask.uri, answer.headers.get(LOCATION))?;
            if here.is_secure && !Origin::of(&target).is_secure {
                let text = format!("it redirects from https to {}", shown(&target.to_string()));
                return Err(Problem::NoRegistry(text));
            }
            ask.uri = target;
        }
        Err(Problem::NoRegistry(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    async fn ask_once(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<Answer, Problem> {
        let Origin { host, port, is_secure } = Origin::of(&ask.uri);
        let place = format!("{host}:{port}");
        let unreachable = |reason: String| Problem::Unreachable(format!("{place}: {reason}"));
        let too_slow = || unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((bare.as_str(), port)));
        let stream = connecting.await.map_err(|_| too_slow())?.map_err(|error| unreachable(error.to_string()))?;
        let request = request(ask, authorization)?;
        if !is_secure {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(bare).map_err(|error| unreachable(error.to_string()))?;
        let connecting = timeout(CONNECT_TIMEOUT, self.tls.connect(name, stream));
        let stream = connecting.await.map_err(|_| too_slow())?.map_err(|error| {
            unreachable(format!(
                "{error}; if its certificate is of an authority of your own, name that with `ca_file` in \
                 [registries.\"{}\"]; if it speaks plain HTTP, say so with `insecure = true`",
                self.registry
            ))
        })?;
        exchange(stream, request).await
    }
}

impl Answer {
    /// The body, if it is of no more than `limit` bytes. A body that is longer is not read to its end.
    ///
    /// # Errors
    /// [`TooLong`](Overlong) if it is; otherwise that it doesn't come.
    pub(super) async fn bytes(mut self, limit: u64) -> Result<Result<Vec<u8>, Overlong>, Problem> {
        let mut bytes = Vec::new();
        while let Some(data) = self.data().await? {
            if bytes.len() as u64 + data.len() as u64 > limit {
                return Ok(Err(Overlong));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Ok(bytes))
    }

    /// As much of the body as is worth showing.
    pub(super) async fn text(mut self) -> String {
        let mut bytes = Vec::new();
        while bytes.len() < TEXT_BYTES
            && let Ok(Some(data)) = self.data().await
        {
            bytes.extend_from_slice(data.get(..TEXT_BYTES - bytes.len()).unwrap_or(&data));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn data(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| Problem::Broken(format!("it said nothing for {SILENCE:?}")))?;
            match frame.transpose().map_err(broken)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// A body that is longer than anybody wants it.
#[derive(Debug)]
pub(super) struct Overlong;

/// Who is asked.
#[derive(PartialEq, Eq)]
pub(super) struct Origin {
    host: String,
    port: u16,
    pub(super) is_secure: bool,
}

impl Origin {
    pub(super) fn of(uri: &Uri) -> Self {
        let is_secure = uri.scheme() != Some(&Scheme::HTTP);
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Self { host: uri.host().unwrap_or_default().to_ascii_lowercase(), port, is_secure }
    }
}

/// Where a `Location` leads: absolute, or a path on the same host.
///
/// # Errors
/// If it is neither.
pub(super) fn resolve(from: &Uri, location: Option<&HeaderValue>) -> Result<Uri, Problem> {
    let wrong = |text: &str| Problem::NoRegistry(format!("it leads on to nowhere: {:?}", shown(text)));
    let text = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let target: Uri = text.parse().map_err(|_| wrong(text))?;
    if text.starts_with('/') && !text.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = target.into_parts().path_and_query;
        return Uri::from_parts(parts).map_err(|_| wrong(text));
    }
    let is_http = target.scheme() == Some(&Scheme::HTTP) || target.scheme() == Some(&Scheme::HTTPS);
    if is_http && target.host().is_some() { Ok(target) } else { Err(wrong(text)) }
}

fn request(ask: &Ask, authorization: Option<&HeaderValue>) -> Result<hyper::Request<Full<Bytes>>, Problem> {
    let path = ask.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = ask.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    // What stands before an @ is a secret to somebody, and no part of the host.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let mut request = hyper::Request::builder().method(ask.method.clone()).uri(path).header(HOST, host);
    request = request.header(USER_AGENT, concat!("memcell/", env!("CARGO_PKG_VERSION")));
    if let Some(accept) = &ask.accept {
        request = request.header(HeaderName::from_static("accept"), accept);
    }
    if let Some(content_type) = ask.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    request.body(Full::new(ask.body.clone())).map_err(|error| Problem::Local(error.to_string()))
}

async fn exchange<S>(stream: S, request: hyper::Request<Full<Bytes>>) -> Result<Answer, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // Whoever waits for the answer learns of it, too.
        let _ = connection.await;
    }));
    let size = hyper::body::Body::size_hint(request.body()).exact().unwrap_or_default();
    // A large body is on its way for a while, in which the other side has nothing to say.
    let patience = SILENCE + Duration::from_millis(size / 100);
    let answer = timeout(patience, sender.send_request(request)).await;
    let answer = answer.map_err(|_| Problem::Broken(format!("no answer within {patience:?}")))?.map_err(broken)?;
    let (parts, body) = answer.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body, _connection: connection })
}

/// The cause at the bottom says more than what lies above it; but what lies above says which part it was.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn broken(error: hyper::Error) -> Problem {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Problem::Broken(shown(&format!("{error}{cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let from: Uri = "https://h:5000/v2/a?b=c".parse().unwrap();
        let led = |location: &str| resolve(&from, Some(&location.parse().unwrap())).map(|uri| uri.to_string());
        assert_eq!(led("/x?y=z").unwrap(), "https://h:5000/x?y=z");
        assert_eq!(led("http://other/x").unwrap(), "http://other/x");
        for wrong in ["", "x", "//other/x", "ftp://other/x", "https:///x"] {
            assert!(led(wrong).is_err(), "{wrong}");
        }
        assert!(resolve(&from, None).is_err());
    }

    #[test]
    fn origins() {
        let of = |uri: &str| Origin::of(&uri.parse().unwrap());
        assert!(of("https://h/a") == of("https://H:443/b"));
        assert!(of("http://h/a") == of("http://h:80/"));
        assert!(of("https://h/") != of("http://h/") && of("https://h/") != of("https://h:444/"));
    }
}
