//! Registries that are none: silent, endless, lying, or leading elsewhere. Each costs a bounded time and a clear reason.

use std::time::{Duration, Instant};

use anyhow::Result;
use memcell_host::config::{OciPlugin, OciReference, RegistryConfig, RegistryLogin, SecretSource};
use memcell_host::oci::Components;
use tempfile::TempDir;

use crate::stub::{Stub, answer, with_headers};
use crate::{LIMIT, Stage, final_failure, has, passing_failure};

/// Any component of a registry that answers like this, fetched within a second.
async fn asked(stub: &Stub) -> Result<memcell_host::oci::Fetched, memcell_host::oci::OciError> {
    Components::new(None).fetch(&plugin(stub), LIMIT).await
}

fn plugin(stub: &Stub) -> OciPlugin {
    let mut registry = RegistryConfig::new(stub.address.clone());
    registry.insecure = true;
    registry.timeout = Duration::from_secs(1);
    let repository = "team/plugin".to_owned();
    let reference = OciReference { registry: stub.address.clone(), repository, tag: None, digest: [7; 32] };
    OciPlugin { reference, registry }
}

/// A test for each: what it answers to everything, whether it may be better later, and what is said.
macro_rules! misbehaves {
    ($($name:ident: $answer:expr => $failure:ident, $parts:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() -> Result<()> {
                let stub = Stub::start(|_| $answer).await?;
                let started = Instant::now();
                has(&$failure(asked(&stub).await), &$parts);
                assert!(started.elapsed() < Duration::from_secs(5));
                Ok(())
            }
        )*
    };
}

misbehaves! {
    silent: Vec::new() => passing_failure, ["took longer than 1s", "raise `timeout`"];
    garbage: b"\x16\x03\x01 not HTTP at all\r\n\r\n".to_vec() => passing_failure, ["the connection to the registry failed"];
    hangs_up: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec()
        => passing_failure, ["the connection to the registry failed"];
    a_web_page: answer(200, "<html>welcome</html>") => final_failure, ["the manifest has the SHA-256 digest", "0707"];
    endless_manifest: with_headers(200, "", &"x".repeat(5 << 20)) => final_failure, ["its manifest is longer than 4194304"];
    broken_down: answer(503, "<html>down for maintenance</html>") => passing_failure, ["can't answer just now: 503"];
    too_many: with_headers(429, "Retry-After: 60\r\n", "") => passing_failure, ["429", "again after 60"];
    forbidden: answer(403, r#"{"errors":[{"code":"DENIED","message":"not\n you"}]}"#)
        => final_failure, ["denies it: 403 Forbidden: DENIED not  you"];
    a_teapot: answer(418, &"short and stout".repeat(10_000)) => final_failure, ["it answers 418"];
    in_circles: with_headers(307, "Location: /v2/again\r\n", "") => final_failure, ["redirects more than 5 times"];
    leads_nowhere: with_headers(302, "", "") => final_failure, ["leads on to nowhere"];
    leads_to_a_file: with_headers(302, "Location: file:///etc/passwd\r\n", "") => final_failure, ["leads on to nowhere"];
    wants_nothing: answer(401, "") => final_failure, ["offers no way in that memcell knows", "but nothing"];
    wants_the_unknown: with_headers(401, "WWW-Authenticate: Negotiate a=\"b\"\r\n", "") => final_failure, ["but Negotiate"];
    sends_for_a_token_to_nowhere: with_headers(401, "WWW-Authenticate: Bearer realm=\"token\"\r\n", "")
        => final_failure, ["sends for a token to nowhere"];
}

/// A registry that sends for a token to itself, and answers this there.
async fn token_is(body: &'static str) -> Result<String> {
    let stub = Stub::start(move |request| match request.starts_with("GET /token?") {
        true => answer(200, body),
        false => {
            let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
            with_headers(401, &format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n"), "")
        }
    })
    .await?;
    Ok(final_failure(asked(&stub).await))
}

#[tokio::test]
async fn tokens_that_are_none() -> Result<()> {
    has(&token_is("<html>").await?, &["gives no token: its answer is not JSON"]);
    has(&token_is("{}").await?, &["gives no token: there is none in its answer"]);
    has(&token_is(r#"{"token":"a\r\nX-More: b"}"#).await?, &["no header can hold"]);
    has(&token_is(r#"{"access_token":"a"}"#).await?, &["denies it: 401"]);
    Ok(())
}

#[tokio::test]
async fn credentials_go_no_farther_than_the_registry() -> Result<()> {
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("token"), "s3cret")?;
    let elsewhere = Stub::start(|_| answer(404, "")).await?;
    let location = format!("Location: http://{}/blob\r\n", elsewhere.address);
    let stub = Stub::start(move |_| with_headers(307, &location, "")).await?;
    let mut plugin = plugin(&stub);
    plugin.registry.login = Some(RegistryLogin::Token(SecretSource::File(folder.path().join("token"))));
    has(&final_failure(Components::new(None).fetch(&plugin, LIMIT).await), &["doesn't have it: 404"]);
    let shown = |stub: &Stub| stub.requests().iter().filter(|request| request.contains("Bearer s3cret")).count();
    assert_eq!((shown(&stub), shown(&elsewhere)), (1, 0));
    assert_eq!(elsewhere.requests().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_blob_may_lie_elsewhere() -> Result<()> {
    // As registries of cloud providers do it: the manifest is theirs, the layer is in a store that they send to.
    let stage = Stage::new().await?;
    let address = stage.registry.address();
    let stub = Stub::start(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        with_headers(307, &format!("Location: http://{address}{path}\r\n"), "")
    })
    .await?;
    let mut plugin = stage.plugin.clone();
    plugin.reference.registry.clone_from(&stub.address);
    plugin.registry.name.clone_from(&stub.address);
    assert_eq!(Components::new(None).fetch(&plugin, LIMIT).await?.bytes, stage.component);
    Ok(())
}
