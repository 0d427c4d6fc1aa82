//! Who is let in: passwords, tokens of another server, and certificates of an authority of one's own.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use memcell_host::config::{RegistryConfig, RegistryLogin, SecretSource};
use memcell_host::oci::Components;
use memcell_tests::registry::{Access, Registry};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey as _};
use serde_json::json;
use tempfile::TempDir;

use crate::stub::{Stub, answer};
use crate::{LIMIT, Stage, final_failure, has, passing_failure, push};

const USER: &str = "robot";
const PASSWORD: &str = "s3cret:pass";
/// `htpasswd -Bn robot`, of the password above.
pub(crate) const HTPASSWD: &str = "robot:$2b$05$91hpeKIBY8mGate0VboDYO04DqpewPuhUqSRF6K0Pkd6zkIUB/aju\n";

/// Has the registry asked as [`USER`], with this password in a file of the folder.
fn log_in(config: &mut RegistryConfig, folder: &TempDir, password: &str) -> Result<()> {
    let path = folder.path().join("password");
    std::fs::write(&path, format!("{password}\n"))?;
    config.login = Some(RegistryLogin::Password { username: USER.to_owned(), password: SecretSource::File(path) });
    Ok(())
}

#[tokio::test]
async fn a_password_lets_in() -> Result<()> {
    let folder = TempDir::new()?;
    let access = Access { password: Some(HTPASSWD.to_owned()), ..Access::default() };
    let mut stage = Stage::with(&access, |config| log_in(config, &folder, PASSWORD)).await?;
    assert_eq!(stage.fetch().await?.bytes, stage.component);

    stage.components = Components::new(None);
    log_in(&mut stage.plugin.registry, &folder, "wr0ng")?;
    let text = final_failure(stage.fetch().await);
    has(&text, &["denies it: 401", "UNAUTHORIZED", "check the credentials that [registries.\"127.0.0.1:"]);
    assert!(!text.contains("wr0ng"), "{text}");
    // It is read each time, so a password that was changed counts at once.
    log_in(&mut stage.plugin.registry, &folder, PASSWORD)?;
    stage.fetch().await?;

    std::fs::remove_file(folder.path().join("password"))?;
    has(
        &final_failure(stage.fetch().await),
        &["the credentials can't be read", "password can't be read: No such file"],
    );
    stage.plugin.registry.login = None;
    has(&final_failure(stage.fetch().await), &["denies it: 401", "asked without credentials"]);
    let pushed = push(&stage.plugin.registry, b"x").await;
    has(&pushed.err().context("it was pushed")?.to_string(), &["denies it: 401"]);
    assert!(!stage.registry.log().contains(PASSWORD));
    Ok(())
}

/// A certificate that vouches for itself, and its key.
fn authority() -> Result<(CertificateParams, KeyPair, String)> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key)?.pem();
    Ok((parameters, key, certificate))
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named() -> Result<()> {
    let folder = TempDir::new()?;
    let (parameters, key, authority) = authority()?;
    let server_key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?
        .signed_by(&server_key, &Issuer::new(parameters, key))?
        .pem();
    let access = Access { tls: Some((certificate, server_key.serialize_pem())), ..Access::default() };
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &authority)?;
    let named = |config: &mut RegistryConfig| {
        config.ca_file = Some(ca_file.clone());
        Ok(())
    };
    let mut stage = Stage::with(&access, named).await?;
    assert_eq!(stage.fetch().await?.bytes, stage.component);

    stage.components = Components::new(None);
    stage.plugin.registry.ca_file = None;
    has(&passing_failure(stage.fetch().await), &["UnknownIssuer", "name that with `ca_file`", "insecure = true"]);
    std::fs::write(&ca_file, "no certificate")?;
    stage.plugin.registry.ca_file = Some(ca_file);
    has(&final_failure(stage.fetch().await), &["ca_file ", "there is no certificate in it"]);
    stage.plugin.registry = RegistryConfig { insecure: true, ca_file: None, ..stage.plugin.registry };
    has(&final_failure(stage.fetch().await), &["400 Bad Request"]);

    // And the other way round: TLS to one that has none.
    let plain = Registry::start()?;
    stage.plugin.reference.registry = plain.address();
    stage.plugin.registry = RegistryConfig { insecure: false, ..plain.config() };
    has(&passing_failure(stage.fetch().await), &["can't be reached", "insecure = true"]);
    Ok(())
}

/// A server that gives tokens to [`USER`], which a registry believes.
struct TokenServer {
    stub: Stub,
    access: Access,
    _folder: TempDir,
}

impl TokenServer {
    async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let (_, key, certificate) = authority()?;
        let bundle = folder.path().join("tokens.pem");
        std::fs::write(&bundle, &certificate)?;
        let stub =
            Stub::start(move |request| token(request, &key, &certificate).unwrap_or_else(|_| answer(500, ""))).await?;
        let lines = [
            format!("realm: http://{}/token", stub.address),
            "service: test registry".to_owned(),
            "issuer: test".to_owned(),
            format!("rootcertbundle: {}", bundle.display()),
        ];
        let token = lines.map(|line| format!("    {line}\n")).concat();
        Ok(Self { stub, access: Access { token: Some(token), ..Access::default() }, _folder: folder })
    }
}

/// A token for what a request asks for, if it is from [`USER`].
fn token(request: &str, key: &KeyPair, certificate: &str) -> Result<Vec<u8>> {
    let user = format!("authorization: Basic {}\r\n", base64(format!("{USER}:{PASSWORD}").as_bytes(), true));
    if !request.to_ascii_lowercase().contains(&user.to_ascii_lowercase()) {
        return Ok(answer(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#));
    }
    let line = request.lines().next().context("no request")?;
    let wanted = "scope=repository%3Ateam%2Fin-memory%3A";
    let (_, scope) = line.split_once(wanted).with_context(|| format!("no scope in {line}"))?;
    let scope = scope.split([' ', '&']).next().unwrap_or_default().replace("%2C", ",");
    let actions: Vec<&str> = scope.split(',').collect();
    if !line.contains("service=test%20registry") {
        bail!("no service in {line}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let der: String = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [der] });
    let claims = json!({
        "iss": "test", "sub": USER, "aud": "test registry", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "1",
        "access": [{ "type": "repository", "name": "team/in-memory", "actions": actions }],
    });
    let signed = [header, claims].map(|part| base64(part.to_string().as_bytes(), false)).join(".");
    let signature = fixed(&key.sign(signed.as_bytes())?)?;
    let token = format!("{signed}.{}", base64(&signature, false));
    Ok(answer(200, &json!({ "token": token, "expires_in": 60 }).to_string()))
}

/// A signature as tokens have it, two numbers of 32 bytes, from how certificates have it, two numbers of any length in DER.
fn fixed(der: &[u8]) -> Result<Vec<u8>> {
    let mut rest = der.get(2..).context("no sequence")?;
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1).context("no number")?);
        let number = rest.get(2..2 + length).context("cut off")?;
        rest = rest.get(2 + length..).unwrap_or_default();
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        fixed.resize(fixed.len() + 32 - number.len(), 0);
        fixed.extend_from_slice(number);
    }
    Ok(fixed)
}

/// With the alphabet for headers and padded, or with that for URLs and not padded.
pub(crate) fn base64(bytes: &[u8], is_padded: bool) -> String {
    let (last, padding) = if is_padded { (b"+/", "=") } else { (b"-_", "") };
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().chain(&[0, 0]).take(3).fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for place in 0..4 {
            match alphabet.get(number >> (18 - 6 * place) & 63) {
                Some(byte) if place <= group.len() => text.push(char::from(*byte)),
                _ => text.push_str(padding),
            }
        }
    }
    text
}

#[tokio::test]
async fn a_token_is_got_where_the_registry_says() -> Result<()> {
    let (server, folder) = (TokenServer::start().await?, TempDir::new()?);
    let mut stage = Stage::with(&server.access, |config| log_in(config, &folder, PASSWORD)).await?;
    assert_eq!(stage.fetch().await?.bytes, stage.component);
    let asked = server.stub.requests();
    assert!(asked.iter().any(|request| request.contains("pull%2Cpush")), "{asked:?}");
    assert!(asked.last().is_some_and(|request| request.contains("%3Apull ")), "{asked:?}");

    stage.components = Components::new(None);
    log_in(&mut stage.plugin.registry, &folder, "wr0ng")?;
    has(&final_failure(stage.fetch().await), &["denies it: 401 Unauthorized: UNAUTHORIZED who are you", "check the"]);
    stage.plugin.registry.login = None;
    has(&final_failure(stage.fetch().await), &["who are you", "asked without credentials"]);
    let token = folder.path().join("token");
    std::fs::write(&token, "no token of this registry")?;
    stage.plugin.registry.login = Some(RegistryLogin::Token(SecretSource::File(token)));
    has(&final_failure(stage.components.fetch(&stage.plugin, LIMIT).await), &["denies it: 401"]);
    Ok(())
}
