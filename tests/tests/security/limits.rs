//! More than a host takes: of bytes, of headers, of requests, of connections. Each is answered at once, and nothing else
//! suffers from it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memcell_tests::host::{PATIENCE, TestHost, eventually};

use super::client::Client;
use super::{READ, WRITE, address, host_with_roles, with_token};

async fn client(host: &TestHost) -> Result<Client> {
    Ok(Client::connect(address(&host.url)?).await?)
}

/// Begins requests that need their bodies, and waits until the host works on all of them.
async fn hold(host: &TestHost, count: usize, length: usize) -> Result<Vec<Client>> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut client = client(host).await?;
        let headers = format!("content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n");
        client.send("POST", "/v1/memcells", &headers, "").await?;
        let answer = client.receive().await?;
        ensure!(answer.status == 100, "{answer:?}");
        held.push(client);
    }
    Ok(held)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_uris_are_bounded() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nmax_head = \"8KiB\"\nmax_headers = 16\nmax_uri = \"1KiB\"\n").await?;
    for (path, headers, expected) in [
        ("/v1/memcells?user_id=x".to_owned(), String::new(), 200),
        (format!("/v1/memcells?user_id={}", "x".repeat(1000)), String::new(), 200),
        (format!("/v1/memcells?user_id={}", "x".repeat(1024)), String::new(), 414),
        ("/v1/memcells".to_owned(), format!("x: {}\r\n", "x".repeat(7000)), 200),
        ("/v1/memcells".to_owned(), format!("x: {}\r\n", "x".repeat(9000)), 431),
        ("/v1/memcells".to_owned(), "x: y\r\n".repeat(15), 200),
        ("/v1/memcells".to_owned(), "x: y\r\n".repeat(17), 431),
    ] {
        let answer = client(&host).await?.ask("GET", &path, &headers, "").await?;
        ensure!(answer.status == expected, "{} {}: {}", path.len(), headers.len(), answer.status);
        if answer.status == 414 {
            ensure!(answer.json()["code"] == "uri_too_long", "{answer:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bound_are_refused_at_once() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nmax_requests = 2\n").await?;
    let mut held = hold(&host, 2, 2).await?;
    let begun = Instant::now();
    for _ in 0..50 {
        let answer = host.request("GET", "/v1/memcells").await?;
        ensure!(answer.status == 503 && answer.body["code"] == "overloaded", "{answer:?}");
        ensure!(answer.header("retry-after") == "1", "{answer:?}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for path in ["/healthz", "/readyz", "/metrics"] {
        ensure!(host.request("GET", path).await?.status == 200, "{path} is answered all the same");
    }
    // One that ends, be it by going away, makes room for another.
    drop(held.pop());
    eventually("there is room", async || Ok(host.request("GET", "/v1/memcells").await?.status == 200)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_a_bounded_memory() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nmax_body = \"1MiB\"\nmax_bodies = \"2MiB\"\n").await?;
    let held = hold(&host, 2, 1 << 20).await?;
    let cell = serde_json::json!({ "timestamp": "2025-06-26", "user_id": "ana" });
    let answer = host.json("POST", "/v1/memcells", &cell).await?;
    ensure!(answer.status == 503 && answer.body["code"] == "overloaded", "{answer:?}");
    ensure!(host.request("GET", "/v1/memcells").await?.status == 200, "what has no body is not concerned");
    drop(held);
    eventually("there is memory", async || Ok(host.json("POST", "/v1/memcells", &cell).await?.status == 201)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_has_a_rate_of_its_own() -> Result<()> {
    let (host, _directory) = host_with_roles("[http]\nrate = 1\nburst = 5\n").await?;
    let count = async |token: &str| with_token(&host, "GET", "/v1/memcells/count", Some(token)).await;
    let statuses = async |tokens: Vec<String>| {
        let sent = tokens.iter().map(|token| count(token));
        futures::future::try_join_all(sent).await
    };
    let answers = statuses(vec![READ.to_owned(); 40]).await?;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    ensure!(taken >= 5 && !refused.is_empty() && taken + refused.len() == 40, "{answers:?}");
    for answer in refused {
        ensure!(answer.body["code"] == "rate_limited" && answer.header("retry-after") == "1", "{answer:?}");
    }
    ensure!(count(WRITE).await?.status == 200, "another token is another client");
    ensure!(with_token(&host, "GET", "/healthz", None).await?.status == 200);
    // Whoever has no token is told apart by his address, and so is whoever tries tokens out.
    let answers = statuses((0..40).map(|number| format!("guessed-token-number-{number}")).collect()).await?;
    let slowed = answers.iter().filter(|answer| answer.status == 429).count();
    ensure!(slowed > 0 && answers.iter().all(|answer| matches!(answer.status, 401 | 429)), "{answers:?}");
    eventually("the bucket fills again", async || Ok(count(READ).await?.status == 200)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_hear_so() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nmax_connections = 3\n").await?;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = client(&host).await?;
        ensure!(client.ask("GET", "/healthz", "", "").await?.status == 200);
        open.push(client);
    }
    for _ in 0..20 {
        let mut refused = client(&host).await?;
        let answer = refused.ask("GET", "/v1/memcells", "", "").await?;
        ensure!(answer.status == 503 && answer.json()["code"] == "overloaded" && answer.is_last(), "{answer:?}");
        ensure!(answer.header("retry-after") == Some("1"), "{answer:?}");
    }
    for client in &mut open {
        ensure!(client.ask("GET", "/v1/memcells", "", "").await?.status == 200, "those that are there go on");
    }
    let inside = open.first_mut().context("a client")?;
    let figures = inside.ask("GET", "/metrics", "", "").await?;
    for figure in ["memcell_http_connections 3\n", "memcell_http_connections_refused_total 20\n"] {
        ensure!(String::from_utf8_lossy(&figures.body).contains(figure), "{figures:?}");
    }
    drop(open);
    eventually("there is room", async || Ok(client(&host).await?.ask("GET", "/healthz", "", "").await?.status == 200))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_nothing_is_sent_away() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nidle_timeout = \"1s\"\n").await?;
    let mut silent = client(&host).await?;
    let mut once = client(&host).await?;
    ensure!(once.ask("GET", "/healthz", "", "").await?.status == 200);
    let mut trickling = client(&host).await?;
    trickling.send("GET", "/healthz", "x: y", "").await.context("half a head")?;
    for client in [&mut silent, &mut once] {
        tokio::time::timeout(PATIENCE, client.closed()).await??;
    }
    let rest = tokio::time::timeout(PATIENCE, trickling.receive()).await?;
    ensure!(rest.is_err() || rest.as_ref().is_ok_and(|answer| answer.status == 408), "{rest:?}");
    Ok(())
}
