//! Encrypted connections: both versions of HTTP, certificates that are replaced while the host runs, and clients that don't
//! come to the point.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use memcell_tests::host::{PATIENCE, TestHost, eventually};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::Client;
use super::{address, secret};

/// An authority of the test's own, and what it vouches for.
pub(super) struct Authority {
    pub(super) directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = parameters.self_signed(&key)?.pem();
        std::fs::write(directory.path().join("ca.pem"), &own)?;
        let certificate = CertificateDer::from_pem_slice(own.as_bytes())?;
        Ok(Self { directory, issuer: Issuer::new(parameters, key), certificate })
    }

    /// The certificate of the authority itself.
    pub(super) fn path(&self) -> String {
        self.directory.path().join("ca.pem").display().to_string()
    }

    /// Puts a certificate for localhost, and its key, in the place of those before.
    pub(super) fn issue(&self) -> Result<()> {
        let (certificate, key) = self.sign()?;
        secret(self.directory.path(), "cert.pem", &certificate)?;
        secret(self.directory.path(), "key.pem", &key)?;
        Ok(())
    }

    fn sign(&self) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()])?;
        parameters.distinguished_name.push(DnType::CommonName, "localhost");
        Ok((parameters.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// The keys of `[http]` for it.
    pub(super) fn section(&self, more: &str) -> String {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        format!("tls.certificate = \"{}\"\ntls.key = \"{}\"\n{more}", file("cert.pem"), file("key.pem"))
    }

    /// A client that trusts this authority alone, and offers these protocols.
    async fn connect(&self, url: &str, protocols: &[&str]) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config =
            builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address(url)?).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).await?)
    }

    /// The certificate that the host shows.
    async fn shown(&self, url: &str) -> Result<CertificateDer<'static>> {
        let stream = self.connect(url, &[]).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Ok(shown.context("no certificate")?.clone().into_owned())
    }
}

async fn host(authority: &Authority, more: &str) -> Result<TestHost> {
    authority.issue()?;
    TestHost::start_from_file(&format!("[http]\n{}", authority.section(more))).await
}

/// Over HTTP/2, a client that is told to stop sending may miss the answer that it got.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_taken_to_its_end() -> Result<()> {
    let authority = Authority::new()?;
    let host = host(&authority, "max_body = \"1MiB\"").await?;
    let stream = authority.connect(&host.url, &["h2"]).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    for (path, status) in [("/v1/memcells", 413), ("/v1/nothing", 404), ("/v1/memcells?unknown=1", 400)] {
        const CHUNKS: usize = 64;
        let (chunks, wanted) = mpsc::channel(1);
        let body = Box::pin(stream::unfold(wanted, |mut wanted: mpsc::Receiver<Bytes>| async move {
            let chunk = wanted.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(chunk)), wanted))
        }));
        let request = hyper::Request::post(format!("https://localhost{path}"));
        let request = request.header("content-type", "application/json").body(StreamBody::new(body))?;
        let feeding = tokio::spawn(async move {
            let mut taken = 0;
            while taken < CHUNKS && chunks.send(Bytes::from(vec![b' '; 64 * 1024])).await.is_ok() {
                taken += 1;
            }
            taken
        });
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == status, "{path}: {answer:?}");
        answer.into_body().collect().await?;
        ensure!(tokio::time::timeout(PATIENCE, feeding).await?? == CHUNKS, "{path}: the client was told to stop");
    }
    drop(sender);
    driven.await??;
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken() -> Result<()> {
    let authority = Authority::new()?;
    let host = host(&authority, "").await?;
    let stream = authority.connect(&host.url, &["h2", "http/1.1"]).await?;
    ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    for _ in 0..3 {
        let request = hyper::Request::get("https://localhost/v1/memcells").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == 200 && answer.version() == hyper::Version::HTTP_2, "{answer:?}");
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(body.starts_with(b"{\"items\""), "{body:?}");
    }
    // A name of somebody else is refused here too.
    let request = hyper::Request::get("https://evil.example/v1/memcells").body(Empty::<Bytes>::new())?;
    ensure!(sender.send_request(request).await?.status() == 403);
    drop(sender);
    driven.await??;

    for protocols in [&["http/1.1"][..], &[]] {
        let mut client = Client::over(authority.connect(&host.url, protocols).await?, "localhost");
        ensure!(client.ask("GET", "/v1/memcells", "", "").await?.status == 200);
    }
    // Whoever doesn't encrypt gets no answer, and harms nobody.
    let plain = Client::connect(address(&host.url)?).await?.ask("GET", "/v1/memcells", "", "").await;
    ensure!(plain.is_err(), "{plain:?}");
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_the_host_runs() -> Result<()> {
    let authority = Authority::new()?;
    let host = host(&authority, "tls.check_interval = \"1s\"\n").await?;
    let first = authority.shown(&host.url).await?;
    let mut client = Client::over(authority.connect(&host.url, &[]).await?, "localhost");
    ensure!(client.ask("GET", "/v1/memcells", "", "").await?.status == 200);

    // By a reload.
    authority.issue()?;
    ensure!(authority.shown(&host.url).await? == first, "not by itself at once");
    let answer = client.ask("POST", "/v1/config/reload", "", "").await?;
    let changes = answer.json();
    ensure!(changes["changes"][0]["key"] == "http.tls.certificate", "{changes}");
    let second = authority.shown(&host.url).await?;
    ensure!(second != first);

    // One that can't be used changes nothing.
    let other_key = authority.sign()?.1;
    for broken in [other_key.as_str(), "nonsense", ""] {
        secret(authority.directory.path(), "key.pem", broken)?;
        let answer = client.ask("POST", "/v1/config/reload", "", "").await?;
        ensure!(answer.status == 422 && answer.json()["problems"][0]["key"] == "http.tls.key", "{answer:?}");
        ensure!(authority.shown(&host.url).await? == second);
    }
    std::fs::remove_file(authority.directory.path().join("key.pem"))?;
    ensure!(client.ask("POST", "/v1/config/reload", "", "").await?.status == 422);
    authority.issue()?;
    ensure!(client.ask("POST", "/v1/config/reload", "", "").await?.status == 200, "the first connection goes on");
    ensure!(authority.shown(&host.url).await? != second);
    host.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_noticed() -> Result<()> {
    let authority = Authority::new()?;
    authority.issue()?;
    let program = super::Program::new(&authority.section("tls.check_interval = \"1s\"\n")).await?;
    let host = program.serve().await?;
    ensure!(host.url().starts_with("https://127.0.0.1:"), "{}", host.url());
    let first = authority.shown(host.url()).await?;
    secret(authority.directory.path(), "cert.pem", "nonsense")?;
    eventually("it is said", async || Ok(program.log().contains("the new certificate can't be used"))).await?;
    ensure!(authority.shown(host.url()).await? == first, "the one from before stays");
    authority.issue()?;
    eventually("the new one is shown", async || Ok(authority.shown(host.url()).await? != first)).await?;
    ensure!(program.log().matches("the new certificate can't be used").count() == 1, "it is said once");
    host.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_a_deadline() -> Result<()> {
    let authority = Authority::new()?;
    let host = host(&authority, "tls.handshake_timeout = \"200ms\"\n").await?;
    let mut silent = Client::connect(address(&host.url)?).await?;
    tokio::time::timeout(PATIENCE, silent.closed()).await??;
    let slow = authority.connect(&host.url, &[]).await?;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut slow = Client::over(slow, "localhost");
    ensure!(slow.ask("GET", "/v1/memcells", "", "").await?.status == 200, "what has been agreed on stays");
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_at_the_start() -> Result<()> {
    let authority = Authority::new()?;
    authority.issue()?;
    std::fs::remove_file(Path::new(&authority.directory.path().join("key.pem")))?;
    let refused = TestHost::start_from_file(&format!("[http]\n{}", authority.section(""))).await;
    let reason = refused.err().context("it started")?.to_string();
    ensure!(reason.contains("http.tls.key") && reason.contains("can't be read"), "{reason}");
    Ok(())
}
