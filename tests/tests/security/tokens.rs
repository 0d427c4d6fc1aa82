//! Tokens: in which form they are taken, their replacement while the host runs, and that none is ever shown.

use anyhow::{Result, ensure};
use memcell_tests::host::TestHost;

use super::client::Client;
use super::{ADMIN, Program, READ, WRITE, address, all_roles, host_with_roles, secret, with_token};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_in_one_form() -> Result<()> {
    let (host, _directory) = host_with_roles("").await?;
    let ask = async |headers: &[String]| {
        let mut request = host.client.get(format!("{}/v1/memcells/count", host.url));
        for value in headers {
            request = request.header("authorization", value.as_bytes());
        }
        host.send(request).await
    };
    for good in [format!("Bearer {READ}"), format!("bearer {READ}"), format!("BEARER  {READ} ")] {
        ensure!(ask(std::slice::from_ref(&good)).await?.status == 200, "{good}");
    }
    let twice = vec![format!("Bearer {READ}"), format!("Bearer {READ}")];
    let shorter = READ.split_at(READ.len() - 1).0;
    for bad in [
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![READ.to_owned()],
        vec![format!("Basic {READ}")],
        vec![format!("Bearer {shorter}")],
        vec![format!("Bearer {READ}x")],
        vec![format!("Bearer {}", READ.to_uppercase())],
        vec![format!("Bearer \u{e4}{READ}")],
        vec![format!("Bearer {}", "x".repeat(10_000))],
        twice,
    ] {
        let answer = ask(&bad).await?;
        ensure!(answer.status == 401 && answer.body["code"] == "invalid_token", "{bad:?}: {answer:?}");
        ensure!(answer.header("www-authenticate").contains("invalid_token"), "{answer:?}");
    }
    let none = ask(&[]).await?;
    ensure!(none.status == 401 && none.body["code"] == "unauthenticated", "{none:?}");
    ensure!(none.header("www-authenticate") == "Bearer realm=\"memcell\"", "{none:?}");
    // A token in the URL would be in the logs of everything on the way.
    let answer = with_token(&host, "GET", &format!("/v1/memcells/count?access_token={READ}"), None).await?;
    ensure!(answer.status == 401, "{answer:?}");
    Ok(())
}

async fn count(host: &TestHost, token: &str) -> Result<u16> {
    Ok(with_token(host, "GET", "/v1/memcells/count", Some(token)).await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_replaced_by_a_reload() -> Result<()> {
    let (host, directory) = host_with_roles("").await?;
    let path = directory.path();
    let reload = async |token| with_token(&host, "POST", "/v1/config/reload", Some(token)).await;
    let fresh = "fresh-token-7bVw2kLq9eN4Xr6t";
    secret(path, "read.token", fresh)?;
    ensure!(count(&host, READ).await? == 200 && count(&host, fresh).await? == 401, "nothing was reloaded yet");
    let answer = reload(ADMIN).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let expected = serde_json::json!({ "changes": [{ "key": "auth.tokens.read", "change": "changed" }] });
    ensure!(answer.body == expected, "{answer:?}");
    ensure!(count(&host, READ).await? == 401 && count(&host, fresh).await? == 200);

    // What is wrong changes nothing, and is told without being shown.
    let all = all_roles(path)?;
    secret(path, "read.token", fresh)?;
    for (content, part) in [("hunter2", "must have 20"), (WRITE, "is the same token as"), ("", "is empty")] {
        let name = if content == WRITE { "admin.token" } else { "write.token" };
        secret(path, name, content)?;
        let answer = reload(ADMIN).await?;
        ensure!(answer.status == 422 && answer.body["code"] == "invalid_config", "{answer:?}");
        let text = answer.body.to_string();
        ensure!(text.contains("auth.tokens.") && text.contains(part), "{text}");
        ensure!(content.is_empty() || !text.contains(content), "{text}");
        ensure!(count(&host, WRITE).await? == 200 && count(&host, ADMIN).await? == 200);
        secret(path, "write.token", WRITE)?;
        secret(path, "admin.token", ADMIN)?;
    }

    // A role is changed, and a token taken away.
    let fewer: String =
        all.lines().filter(|line| !line.contains("tokens.read")).map(|line| format!("{line}\n")).collect();
    host.rewrite_config(&fewer.replace("role = \"write\"", "role = \"read\""))?;
    let answer = reload(ADMIN).await?;
    ensure!(answer.body["changes"].as_array().map(Vec::len) == Some(2), "{answer:?}");
    ensure!(count(&host, fresh).await? == 401 && count(&host, WRITE).await? == 200);
    ensure!(with_token(&host, "POST", "/v1/memcells/restore", Some(WRITE)).await?.status == 403);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_open() -> Result<()> {
    let (host, _directory) = host_with_roles("").await?;
    ensure!(with_token(&host, "GET", "/metrics", None).await?.status == 401);
    ensure!(with_token(&host, "GET", "/metrics", Some(READ)).await?.status == 200);
    let (host, _directory) = host_with_roles("open_metrics = true\n").await?;
    ensure!(with_token(&host, "GET", "/metrics", None).await?.status == 200);
    ensure!(with_token(&host, "GET", "/metrics", Some("stale-token-of-a-scraper")).await?.status == 200);
    ensure!(with_token(&host, "GET", "/v1/backends", None).await?.status == 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_ever_shown() -> Result<()> {
    let program = Program::new("[log]\nlevel = \"trace\"\n").await?;
    let digest = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let more = format!(
        "[log]\nlevel = \"trace\"\n{}tokens.other = {{ role = \"read\", sha256 = \"{digest}\" }}\n",
        all_roles(program.path())?
    );
    program.configure("127.0.0.1:0", &more)?;
    let host = program.serve().await?;
    let mut client = Client::connect(address(host.url())?).await?;
    let guess = "guessed-token-3tYc5nMj8pZ1Lf0q";
    let mut shown = String::new();
    for token in [READ, WRITE, ADMIN, guess] {
        let headers = format!("authorization: Bearer {token}\r\n");
        for (method, path) in [
            ("GET", "/v1/memcells/count"),
            ("GET", "/v1/backends"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/mismatches"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/readyz"),
            ("GET", "/v1/config"),
            ("POST", "/v1/config/reload"),
            ("POST", "/v1/jobs"),
        ] {
            let answer = client.ask(method, path, &headers, "").await?;
            shown.push_str(&format!("{answer:?}{}", String::from_utf8_lossy(&answer.body)));
        }
    }
    let summary = program.memcell.run("config", &["check"], None).await?;
    shown.push_str(&format!(
        "{}{}",
        String::from_utf8_lossy(&summary.stdout),
        String::from_utf8_lossy(&summary.stderr)
    ));
    host.stop().await?;
    let log = program.log();
    ensure!(log.contains("request refused") && log.contains("admin request"), "the log is there");
    for secret in [READ, WRITE, ADMIN, guess, digest] {
        ensure!(!log.contains(secret), "{secret} is in the log");
        ensure!(!shown.contains(secret), "{secret} is in an answer");
    }
    Ok(())
}
