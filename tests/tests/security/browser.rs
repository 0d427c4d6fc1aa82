//! Pages of other sites, seen by somebody whose browser reaches a host that asks for no token.

use anyhow::{Context, Result, ensure};
use memcell_tests::host::{Answer, TestHost};

use super::{ADMIN, host_with_roles};

async fn ask(host: &TestHost, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let mut request = host.client.request(method.parse()?, format!("{}{path}", host.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    host.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_changes_nothing() -> Result<()> {
    let host = TestHost::start_from_file("").await?;
    let id = host.append(&serde_json::json!({ "timestamp": "2025-06-26", "user_id": "ana" })).await?;
    let everything = "/v1/memcells?user_id=ana";
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:1")],
    ] {
        for (method, path) in [("DELETE", everything), ("POST", "/v1/config/reload"), ("POST", "/v1/jobs")] {
            let answer = ask(&host, method, path, headers).await?;
            ensure!(answer.status == 403 && answer.body["code"] == "cross_site", "{headers:?} {answer:?}");
        }
    }
    for form in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
        let answer = ask(&host, "POST", "/v1/memcells/restore?user_id=ana", &[("content-type", form)]).await?;
        ensure!(answer.status == 415, "{answer:?}");
    }
    // No other site is told that it may ask for more than a form can, or read what is answered.
    let preflight = ask(&host, "OPTIONS", "/v1/memcells", &[("origin", "https://evil.example")]).await?;
    ensure!(preflight.status == 405, "{preflight:?}");
    ensure!(!preflight.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{preflight:?}");
    ensure!(host.request("GET", &format!("/v1/memcells/{id}")).await?.status == 200);
    // The host's own page may.
    let own = host.url.clone();
    for headers in [&[("sec-fetch-site", "same-origin")][..], &[("origin", own.as_str())]] {
        let answer = ask(&host, "DELETE", everything, headers).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_name_leads_nowhere() -> Result<()> {
    let host = TestHost::start_from_file("[http]\nhosts = [\"memcell.example.com\"]\n").await?;
    let port = host.url.rsplit(':').next().context("no port")?.to_owned();
    for name in ["evil.example", "127.0.0.1.evil.example"] {
        for path in ["/v1/memcells", "/healthz", "/openapi.json", "/nowhere"] {
            let answer = ask(&host, "GET", path, &[("host", &format!("{name}:{port}"))]).await?;
            ensure!(answer.status == 403 && answer.body["code"] == "unknown_host", "{answer:?}");
        }
    }
    for name in ["localhost", "127.0.0.1", "[::1]", "memcell.example.com"] {
        let answer = ask(&host, "GET", "/v1/memcells", &[("host", &format!("{name}:{port}"))]).await?;
        ensure!(answer.status == 200, "{name}: {answer:?}");
    }
    // With tokens a name is of no use to whoever has none.
    let (host, _directory) = host_with_roles("").await?;
    let authorization = format!("Bearer {ADMIN}");
    let headers = [("host", "db.internal:8080"), ("authorization", authorization.as_str())];
    ensure!(ask(&host, "GET", "/v1/memcells", &headers).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_what_to_keep_to() -> Result<()> {
    let (host, _directory) = host_with_roles("").await?;
    for path in ["/healthz", "/v1/memcells", "/nowhere", "/metrics"] {
        let answer = host.request("GET", path).await?;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            ensure!(answer.header(name) == value, "{path} {name}: {answer:?}");
        }
        let policy = answer.header("content-security-policy");
        ensure!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{answer:?}");
    }
    Ok(())
}
