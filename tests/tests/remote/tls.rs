//! Encrypted connections: who is trusted, who isn't, and the component doing it by itself in its sandbox.

use anyhow::{Result, bail};
use memcell_plugin::{Condition, Error, Outcome};
use memcell_tests::child::free_port;
use memcell_tests::host::{TestHost, eventually, remote};
use memcell_tests::redis::RedisServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use super::{entry, get, put, try_open};

/// An authority of the test's own, a server that it vouches for under the name `redis.test`, and a client.
struct Encrypted {
    server: RedisServer,
    address: String,
    authority: String,
    client_certificate: String,
    client_key: String,
    _directory: TempDir,
}

impl Encrypted {
    /// `clients`: whether the server wants to see a certificate (`yes`, `no`).
    fn start(clients: &str) -> Result<Self> {
        let directory = TempDir::new()?;
        let authority_key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(parameters, authority_key);
        let sign = |name: &str| -> Result<(String, String)> {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
            parameters.distinguished_name.push(DnType::CommonName, name);
            Ok((parameters.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = sign("redis.test")?;
        let (client_certificate, client_key) = sign("memcell.test")?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = directory.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let (certificate, key, ca) = (file("cert", &certificate)?, file("key", &key)?, file("ca", &authority)?);
        let port = free_port()?.to_string();
        let server = RedisServer::start(
            &[
                ["--tls-port", &port],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-ca-cert-file", &ca],
                ["--tls-auth-clients", clients],
            ]
            .concat(),
        )?;
        let address = format!("127.0.0.1:{port}");
        Ok(Self { server, address, authority, client_certificate, client_key, _directory: directory })
    }

    fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&[("address", self.address.as_str()), ("tls", "true")], more].concat()
    }
}

fn refused(settings: &[(&str, &str)], mentions: &str) -> Result<()> {
    match try_open(settings).map(drop) {
        Err(Error::InvalidArgument(text)) if text.contains(mentions) => Ok(()),
        other => bail!("{mentions}: {other:?}"),
    }
}

#[test]
fn only_the_right_server_is_trusted() -> Result<()> {
    let encrypted = Encrypted::start("no")?;
    let mut session =
        try_open(&encrypted.settings(&[("tls_ca", &encrypted.authority), ("tls_server_name", "redis.test")]))?;
    assert_eq!(put(&mut session, "a", 1, b"1"), Ok(Outcome::Applied));
    let large = vec![7; 3 << 20];
    session.put_many((0..4).map(|n| entry(&n.to_string(), 1, &large)), Condition::Newer)?;
    assert_eq!(get(&mut session, "3")?, Some(large));
    assert_eq!(encrypted.server.command::<u64>("DBSIZE")?, 5);

    refused(&encrypted.settings(&[("tls_ca", &encrypted.authority)]), "\"tls_server_name\"")?;
    refused(&encrypted.settings(&[("tls_server_name", "redis.test")]), "\"tls_ca\"")?;
    let other = Encrypted::start("no")?;
    let others = [("tls_ca", other.authority.as_str()), ("tls_server_name", "redis.test")];
    refused(&encrypted.settings(&others), "\"tls_ca\"")?;
    // One that doesn't speak TLS at all.
    let plain = encrypted.server.address();
    let spoken = try_open(&[&[("address", plain.as_str()), ("tls", "true")], others.as_slice()].concat());
    let unencrypted = spoken.and_then(|mut session| get(&mut session, "a"));
    assert!(unencrypted.is_err(), "{unencrypted:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_encrypts_by_itself_and_shows_its_certificate() -> Result<()> {
    let encrypted = Encrypted::start("yes")?;
    let mut settings =
        vec![("tls", "true"), ("tls_ca", encrypted.authority.as_str()), ("tls_server_name", "redis.test")];
    let addresses = std::slice::from_ref(&encrypted.address);
    let mut host = TestHost::start(vec![remote(addresses, &settings)?]).await?;
    let id = host.append(&json!({ "timestamp": "2025-06-26T00:03:30Z" })).await?;
    eventually("the refusal shows", async || {
        let report = host.request("GET", "/v1/backends").await?.body["items"][0].clone();
        Ok(report["state"] == "degraded" && report["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
    })
    .await?;
    assert_eq!(encrypted.server.command::<u64>("DBSIZE")?, 0, "who shows no certificate gets nowhere");
    settings.push(("tls_cert", &encrypted.client_certificate));
    settings.push(("tls_key", &encrypted.client_key));
    host.restart(vec![remote(addresses, &settings)?]).await?;
    host.live().await?;
    assert!(host.mirrored(&id).await?.is_some());
    // The entry, and the checkpoint of the mirror.
    assert_eq!(encrypted.server.command::<u64>("DBSIZE")?, 2);
    host.stop().await?;
    Ok(())
}
