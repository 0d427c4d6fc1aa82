//! The dashboard in a real browser, on a real host: what it shows, that it is live, that what it offers works, by keyboard
//! as well, and that nothing in a document can harm it. Pictures of it go to `target/dashboard`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "indexing a JSON value answers null for what it lacks, and a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use memcell_host::config::BackendConfig;
use memcell_tests::artifacts;
use memcell_tests::browser::{Browser, ENTER, TAB};
use memcell_tests::host::{TestHost, eventually, hostile, in_memory};
use memcell_tests::operations::memcell;
use memcell_tests::sample::Samples;
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

/// What a document must not be able to do.
const ATTACK: &str = "<script>window.harmed = 1</script><img src=x onerror=window.harmed=1>";

async fn browse(host: &TestHost) -> Result<Browser> {
    let browser = Browser::start().await?;
    browser.open(&host.url).await?;
    browser.text_becomes("#connection", |text| text.contains("Live")).await?;
    Ok(browser)
}

async fn no_complaints(browser: &Browser) -> Result<()> {
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// A backend that loses the first write of what [`plant_mismatch`] makes of a document.
fn losing() -> Result<BackendConfig> {
    hostile(&[("mode", "lost-write"), ("on", "put"), ("containing", "added <b>"), ("times", "1")])
}

/// Changes a document behind the host's back, which the backend loses, and waits until that is confirmed.
async fn plant_mismatch(host: &TestHost) -> Result<String> {
    let mut given = memcell("as it was said");
    given["original_data"] = json!([{ "messages": [{ "content": "as it was said" }] }]);
    let id = host.append(&given).await?;
    host.settled().await?;
    let behind = doc! { "$set": { "summary": format!("as it was {ATTACK}"), "added <b>": ATTACK } };
    host.collection.update_one(doc! { "_id": ObjectId::parse_str(&id)? }, behind).await?;
    host.settled().await?;
    host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
    eventually("the mismatch is confirmed", async || Ok(!host.store.mismatches().is_empty())).await?;
    Ok(id)
}

/// The value of a backend's cell.
async fn figure(browser: &Browser, label: &str) -> Result<String> {
    browser.text(&format!("#backends td[data-label=\"{label}\"]")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_and_a_mismatch_is_mended_by_keyboard() -> Result<()> {
    let host = TestHost::start(vec![losing()?]).await?;
    host.live().await?;
    let browser = browse(&host).await?;
    browser.text_becomes("#backends tbody", |text| text.contains("local") && text.contains("live")).await?;
    assert!(browser.text("#mismatches").await?.contains("No mismatch is known"));
    assert_eq!(figure(&browser, "Entries").await?, "0");

    // From here on, nothing is loaded again.
    browser.run("window.isTheSame = true", json!([])).await?;
    let id = plant_mismatch(&host).await?;
    browser.text_becomes("#backends td[data-label=\"Entries\"]", |text| text == "1").await?;
    browser.text_becomes("#summary", |text| text.contains("1 since the start")).await?;
    let shown = browser.text_becomes("#mismatches", |text| text.contains(&id)).await?;
    for part in ["as it was said", ATTACK, "summary", "added <b>", "not there", "only in MongoDB", "MongoDB", "local"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let elements = "return document.querySelectorAll('main script, main img, main b').length";
    assert_eq!(browser.run(elements, json!([])).await?, 0);
    assert_eq!(browser.run("return window.harmed ?? 0", json!([])).await?, 0);
    browser.text_becomes("#validation", |text| text.contains("different")).await?;

    browser.tab_to("#mismatches button").await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#confirm", |text| text.contains(&id)).await?;
    browser.tab_to("#confirm-yes").await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#messages", |text| text.contains("right again")).await?;
    browser.text_becomes("#mismatches", |text| text.contains("No mismatch is known")).await?;
    assert!(host.store.mismatches().is_empty());
    let read = host.request("GET", &format!("/v1/memcells/{id}?validate=true")).await?;
    assert_eq!(read.header("x-memcell-validation"), "consistent");
    assert_eq!(browser.run("return window.isTheSame", json!([])).await?, true);
    no_complaints(&browser).await?;
    // Should the page ever try to make markup of a text, the browser refuses.
    let markup = "try { document.createElement('p').innerHTML = arguments[0] } catch (error) { return error.name }";
    assert_eq!(browser.run(markup, json!([ATTACK])).await?, "TypeError");

    let url = host.url.clone();
    host.stop().await?;
    browser.text_becomes("#connection", |text| text.contains("not reachable")).await.with_context(|| url)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_started_watched_and_cancelled() -> Result<()> {
    let host = TestHost::start(vec![in_memory()?]).await?;
    host.live().await?;
    let batch: Vec<Value> = Samples::new(4).take(60).collect();
    assert_eq!(host.json("POST", "/v1/memcells/batch", &json!(batch)).await?.status, 200);
    host.settled().await?;
    let browser = browse(&host).await?;
    browser.text_becomes("#jobs", |text| text.contains("No job was done yet")).await?;
    browser.click("#jobs button[type=submit]").await?;
    let done = browser.text_becomes("#jobs tbody", |text| text.contains("done")).await?;
    assert!(done.contains("verify") && done.contains("no difference"), "{done}");

    // What changes something is asked about first.
    browser.fill("#job-kind", "repair").await?;
    browser.fill("#job-rate", "1").await?;
    browser.click("#jobs button[type=submit]").await?;
    browser.text_becomes("#confirm", |text| text.contains("Start a repair of local?")).await?;
    browser.click("#confirm-no").await?;
    assert_eq!(host.request("GET", "/v1/jobs").await?.body["items"].as_array().map(Vec::len), Some(1));
    browser.click("#jobs button[type=submit]").await?;
    browser.click("#confirm-yes").await?;
    browser.text_becomes("#jobs tbody", |text| text.contains("running")).await?;
    browser.click("#jobs tbody button").await?;
    browser.text_becomes("#confirm", |text| text.contains("Cancel the repair of local?")).await?;
    browser.click("#confirm-yes").await?;
    browser.text_becomes("#jobs tbody", |text| text.contains("cancelled")).await?;
    no_complaints(&browser).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_its_secrets() -> Result<()> {
    let mut secretive = in_memory()?;
    secretive.settings = vec![("password".to_owned(), "s3cret".to_owned()), ("mode".to_owned(), "calm".to_owned())];
    let host = TestHost::start(vec![secretive]).await?;
    let browser = browse(&host).await?;
    browser.text_becomes("#config", |text| text.contains("[backends.local]")).await?;
    // The plugin doesn't know these settings, and says so.
    browser.text_becomes("#backends", |text| text.contains("failed")).await?;
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })", json!([])).await?;
    let shown = browser.text("#config").await?;
    for part in ["settings.password", "hidden", "settings.mode", "calm", "operation_timeout", "5s", "not set"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let page = browser.run("return document.documentElement.outerHTML", json!([])).await?;
    assert!(!page.as_str().context("no page")?.contains("s3cret"));
    let config = host.request("GET", "/v1/config").await?;
    assert!(!config.body.to_string().contains("s3cret"), "{config:?}");
    no_complaints(&browser).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_backends_it_says_what_to_do() -> Result<()> {
    let host = TestHost::start(Vec::new()).await?;
    let browser = browse(&host).await?;
    browser.text_becomes("#backends", |text| text.contains("No backend is configured")).await?;
    browser.text_becomes("#validation", |text| text.contains("No read was compared")).await?;
    browser.text_becomes("#jobs", |text| text.contains("No job was done yet")).await?;
    assert_eq!(browser.run("return document.querySelector('.job-form').checkVisibility()", json!([])).await?, false);
    browser.picture(&pictures()?.join("empty.png")).await?;
    no_complaints(&browser).await
}

fn pictures() -> Result<PathBuf> {
    let folder = artifacts::workspace().join("target/dashboard");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Something of everything on the page, light and dark, on a screen and on a phone.
#[tokio::test(flavor = "multi_thread")]
async fn everything_fits_has_a_name_and_is_reached_by_keyboard() -> Result<()> {
    let mut other = in_memory()?;
    other.name = "other".to_owned();
    let mut failed = BackendConfig::new("failed", "/nonexistent/plugin.wasm".into());
    failed.shards = 2;
    let host = TestHost::start(vec![losing()?, other, failed]).await?;
    eventually("the backends are live", async || {
        let states = host.request("GET", "/v1/backends").await?.body;
        Ok(states["items"][0]["state"] == "live" && states["items"][1]["state"] == "live")
    })
    .await?;
    plant_mismatch(&host).await?;
    let order = json!({ "kind": "verify", "backend": "other" });
    assert_eq!(host.json("POST", "/v1/jobs", &order).await?.status, 201);
    let browser = browse(&host).await?;
    browser.text_becomes("#jobs tbody", |text| text.contains("done")).await?;
    browser.text_becomes("#mismatches", |text| text.contains("Repair")).await?;

    for (name, scheme, width, is_phone) in [
        ("light", "light", 1280, false),
        ("dark", "dark", 1280, false),
        ("phone", "light", 390, true),
        ("phone-dark", "dark", 390, true),
    ] {
        browser.prefer(scheme).await?;
        browser.resize(width, 844, is_phone).await?;
        let excess = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(excess, json!([])).await?, 0, "{name}: nothing sticks out");
        let background = "return getComputedStyle(document.body).backgroundColor";
        let background = browser.run(background, json!([])).await?;
        let is_dark = background.as_str().is_some_and(|color| color.starts_with("rgb(15,"));
        assert_eq!(is_dark, scheme == "dark", "{name}: {background}");
        browser.picture(&pictures()?.join(format!("{name}.png"))).await?;
    }
    // The reader's own choice beats the system's.
    browser.click("#theme").await?;
    assert_eq!(browser.text("#theme").await?, "Theme: light");
    let background = browser.run("return getComputedStyle(document.body).backgroundColor", json!([])).await?;
    assert_eq!(background, "rgb(245, 246, 248)");

    let controls = browser.named_controls().await?;
    assert!(controls.len() > 15, "{controls:?}");
    for (role, name) in &controls {
        // The document, and what only scripts give the focus to.
        assert!(!name.is_empty() || role == "main" || role == "generic", "a {role} without a name in {controls:?}");
    }
    reached_by_keyboard(&browser).await?;
    no_complaints(&browser).await
}

/// Each control that can be seen has its turn when the tabulator is pressed again and again.
async fn reached_by_keyboard(browser: &Browser) -> Result<()> {
    let number = "const all = [...document.querySelectorAll('a, button, input, select, summary')].filter((one) => \
                  one.checkVisibility() && !one.disabled); all.forEach((one, index) => { one.dataset.turn = index }); \
                  document.activeElement.blur(); return all.length";
    let all = browser.run(number, json!([])).await?.as_u64().context("no number")?;
    let mut reached = BTreeSet::new();
    for _ in 0..2 * all {
        browser.press(TAB).await?;
        let turn = browser.run("return document.activeElement.dataset.turn ?? null", json!([])).await?;
        reached.extend(turn.as_str().map(str::to_owned));
    }
    assert_eq!(reached.len() as u64, all, "reached {reached:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_host_asks_for_a_token() -> Result<()> {
    const READ: &str = "a-token-that-may-only-read";
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("token");
    std::fs::write(&file, READ)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let component = artifacts::plugin("in_memory")?;
    let host = TestHost::start_from_file(&format!(
        "[auth.tokens.viewer]\nrole = \"read\"\nfile = {:?}\n[backends.local]\nplugin = {:?}\n",
        file.display().to_string(),
        component.display().to_string()
    ))
    .await?;
    let browser = Browser::start().await?;
    browser.open(&host.url).await?;
    browser.text_becomes("#sign-in-text", |text| text.contains("asks for an access token")).await?;
    browser.fill("#token", "one-that-nobody-has-given-out").await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#sign-in-text", |text| text.contains("was not accepted")).await?;
    browser.fill("#token", "\u{2026}pasted-from-a-letter").await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#sign-in-text", |text| text.contains("characters that no token has")).await?;
    browser.fill("#token", READ).await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#connection", |text| text.contains("Live")).await?;
    // As if it had been revoked, and there were no other one.
    browser.run("sessionStorage.setItem('memcell-token', 'one-that-is-no-longer-let-in')", json!([])).await?;
    let refused = |text: &str| text.contains("was not accepted") && !text.contains("characters");
    browser.text_becomes("#sign-in-text", refused).await?;
    browser.click("#sign-in-no").await?;
    browser.text_becomes("#connection", |text| text.contains("Signed out")).await?;
    let is_hidden = browser.run("return document.getElementById('main').hidden", json!([])).await?;
    assert_eq!(is_hidden, json!(true), "what was seen with the token is still there");
    browser.click("#sign").await?;
    browser.fill("#token", READ).await?;
    browser.press(ENTER).await?;
    browser.text_becomes("#connection", |text| text.contains("Live")).await?;
    let is_hidden = browser.run("return document.getElementById('main').hidden", json!([])).await?;
    assert_eq!(is_hidden, json!(false));
    browser.text_becomes("#sign", |text| text == "Sign out").await?;
    // Only this tab keeps it, and only until it is told to forget it.
    let kept = browser.run("return [sessionStorage.getItem('memcell-token'), document.cookie]", json!([])).await?;
    assert_eq!(kept, json!([READ, ""]));
    browser.click("#sign").await?;
    browser.text_becomes("#sign-in-text", |text| text.contains("asks for an access token")).await?;
    let kept = browser.run("return sessionStorage.getItem('memcell-token')", json!([])).await?;
    assert_eq!(kept, Value::Null);
    host.stop().await?;
    Ok(())
}
