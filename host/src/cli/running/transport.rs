//! One request to a host and its answer, each over a connection of its own, encrypted if the URL says so.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::security::{Secret, chain};

/// More than any answer to a command has.
const MOST_BYTES: usize = 64 << 20;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Why nothing came back.
pub(super) enum Trouble {
    /// Nobody listens there.
    NobodyThere(String),
    /// Somebody does, who isn't the one that was looked for, or doesn't answer.
    NoAnswer(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NobodyThere(reason) | Self::NoAnswer(reason)) = self;
        f.write_str(reason)
    }
}

/// The way to one host.
pub(super) struct Transport {
    authority: Authority,
    port: u16,
    /// The path that stands before all others.
    prefix: String,
    encryption: Option<(TlsConnector, ServerName<'static>)>,
}

impl Transport {
    /// `authorities`: who vouches for the host; else it must show the first certificate of `pinned`; else public authorities do.
    ///
    /// # Errors
    /// If the URL is none, or a file has no certificates.
    pub(super) fn new(url: &str, authorities: Option<&Path>, pinned: Option<&Path>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "is no URL, such as https://memcell.example.com:8080".to_owned())?;
        let is_encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("must begin with http:// or https://".to_owned()),
        };
        let authority = uri.authority().cloned().ok_or("names no host")?;
        let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        let encryption = if is_encrypted {
            let name = bare(authority.host()).to_owned();
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            Some((TlsConnector::from(Arc::new(client_config(authorities, pinned)?)), name))
        } else if authorities.is_some() {
            return Err("--ca-file only goes with an https host".to_owned());
        } else {
            None
        };
        Ok(Self { authority, port, prefix: uri.path().trim_end_matches('/').to_owned(), encryption })
    }

    /// Sends a request and waits for its whole answer.
    ///
    /// # Errors
    /// If there is none within `timeout`.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<Answer, Trouble> {
        let request = self.request(method, path, body, token).map_err(Trouble::NoAnswer)?;
        let exchange = Box::pin(self.exchange(request));
        let late = |_| Trouble::NoAnswer(format!("no answer within {} seconds", timeout.as_secs()));
        tokio::time::timeout(timeout, exchange).await.map_err(late)?
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<Request<Body>, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        request = request.header(HOST, self.authority.as_str());
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| "the token is no header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match body {
            Some(json) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        request.body(body).map_err(|error| error.to_string())
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, Trouble> {
        let address = (bare(self.authority.host()), self.port);
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::NobodyThere(error.to_string()),
            _ => Trouble::NoAnswer(error.to_string()),
        })?;
        match &self.encryption {
            None => converse(stream, request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                converse(stream.map_err(|error| Trouble::NoAnswer(unencrypted(&error)))?, request).await
            }
        }
    }
}

fn unencrypted(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            "it shows another certificate than the one that http.tls.certificate names; if that was replaced just now, the host takes \
             it over within http.tls.check_interval, or at once with SIGHUP"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is for another name: --url has to name the host as the certificate does".to_owned(),
        Some(rustls::Error::InvalidMessage(_)) => {
            "it doesn't answer in TLS: a host without [http.tls] is reached with --url http://…, and one that was started before \
             [http.tls] was written has to be started again"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(reason)))
            if reason.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is that of an authority (CA:TRUE), as `openssl req -x509` makes one unless told otherwise, and no host may \
             show that: make it with `-addext basicConstraints=critical,CA:FALSE`, or have an authority sign one for the host"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("its certificate is not trusted ({reason:?}); --ca-file names the authority that vouches for it")
        }
        _ => format!("no encrypted connection: {error}"),
    }
}

async fn converse<S>(stream: S, request: Request<Body>) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &hyper::Error| {
        if error.is_parse() {
            let reason = "it doesn't answer in HTTP: a host with [http.tls] is reached with --url https://…";
            return Trouble::NoAnswer(reason.to_owned());
        }
        let mut cause: &dyn std::error::Error = error;
        // What lies above the cause only says that a request was sent.
        while let Some(source) = cause.source() {
            cause = source;
        }
        Trouble::NoAnswer(cause.to_string())
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), MOST_BYTES).await;
        let body = body.map_err(|error| Trouble::NoAnswer(format!("its answer is cut off: {error}")))?;
        Ok(Answer { status, body })
    };
    alongside(exchange, connection).await
}

/// Does the work while the connection, which it needs, is driven.
async fn alongside<T>(work: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(work, connection);
    tokio::select! {
        biased;
        done = &mut work => return done,
        _ = &mut connection => {}
    }
    // The connection has ended; what it has handed over can still be read.
    work.await
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn client_config(authorities: Option<&Path>, pinned: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    if let (None, Some(path)) = (authorities, pinned) {
        let certificate = chain(path)?.into_iter().next().ok_or("there is no certificate")?;
        let verifier = Arc::new(Exactly { certificate, provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in chain(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Trusts one certificate and no other, whatever name it is for: the configuration says that it is the host's, and whoever
/// shows it proves that he has its key.
#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_none_are_refused() {
        for (url, part) in [
            ("nowhere", "must begin with http"),
            ("ftp://host", "must begin with http"),
            ("http://", "is no URL"),
            ("https://a b", "is no URL"),
        ] {
            assert!(Transport::new(url, None, None).err().unwrap().contains(part), "{url}");
        }
        let transport = Transport::new("https://[::1]/memcell", None, None).unwrap();
        assert_eq!((transport.port, transport.prefix.as_str()), (443, "/memcell"));
        assert!(Transport::new("http://h", Some(Path::new("/x")), None).is_err());
    }
}
