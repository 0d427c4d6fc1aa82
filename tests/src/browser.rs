//! A real browser without a window, driven as its users would: pages, keys, clicks, and what its developer tools say.
//!
//! It is Chromium (Debian's packages `chromium` and `chromium-driver`), by way of its WebDriver server. Both end when they are dropped, also by a failing test.

#![expect(clippy::indexing_slicing, reason = "indexing a JSON value answers null for what it lacks")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{Killed, free_port};
use crate::host::{PATIENCE, eventually};

/// How WebDriver names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver has them.
pub const TAB: char = '\u{e004}';
/// See [`TAB`].
pub const ENTER: char = '\u{e007}';

/// Starting takes as long as the machine is busy.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
pub struct Browser {
    client: reqwest::Client,
    session: String,
    /// The browser itself, which the server would leave behind.
    process: Option<Pid>,
    // In the order in which they are dropped: the browser writes into the directory until it ends.
    _server: Killed,
    _directory: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

impl Browser {
    /// An empty page.
    ///
    /// # Errors
    /// If Chromium or its driver is missing, or doesn't start.
    pub async fn start() -> Result<Self> {
        let (port, directory) = (free_port()?, TempDir::new()?);
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Killed::spawn(command)?;
        let client = reqwest::Client::new();
        let driver = format!("http://127.0.0.1:{port}");
        eventually("the WebDriver server answers", async || {
            Ok(client.get(format!("{driver}/status")).send().await.is_ok())
        })
        .await?;
        // Root has no sandbox of Chromium's kind, and containers little shared memory.
        let profile = format!("--user-data-dir={}", directory.path().display());
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", &profile];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let started =
            client.post(format!("{driver}/session")).json(&capabilities).timeout(START_PATIENCE).send().await?;
        let answer: Value = started.json().await?;
        let id = answer["value"]["sessionId"].as_str();
        let id =
            id.with_context(|| format!("Chromium did not start (is it installed? `cargo xtask setup`): {answer}"))?;
        let session = format!("{driver}/session/{id}");
        let process = answer["value"]["capabilities"]["goog:processID"].as_i64();
        let process = process.and_then(|process| i32::try_from(process).ok()).and_then(Pid::from_raw);
        ensure!(process.is_some(), "the WebDriver server doesn't tell the browser's process: {answer}");
        let browser = Self { client, session, process, _server: server, _directory: directory };
        browser.resize(1280, 1000, false).await?;
        Ok(browser)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let request = self.client.post(format!("{}/{path}", self.session)).json(&body).timeout(START_PATIENCE);
        let response = request.send().await?;
        let (status, answer) = (response.status(), response.json::<Value>().await?);
        ensure!(status.is_success(), "{path} {body}: {answer}");
        Ok(answer["value"].clone())
    }

    /// Goes to a page, and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", json!({ "url": url })).await.map(drop)
    }

    /// What a function body answers in the page; `arguments` are its arguments.
    pub async fn run(&self, script: &str, arguments: Value) -> Result<Value> {
        self.post("execute/sync", json!({ "script": script, "args": arguments })).await
    }

    /// The text of the first element, as it is to be read; empty if there is none.
    pub async fn text(&self, selector: &str) -> Result<String> {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        Ok(self.run(script, json!([selector])).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the text of an element fulfils a condition.
    pub async fn text_becomes(&self, selector: &str, is_right: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector).await?;
            if is_right(&text) {
                return Ok(text);
            }
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {selector}, which says {text:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn element(&self, selector: &str) -> Result<String> {
        let found = self.post("element", json!({ "using": "css selector", "value": selector })).await?;
        Ok(found[ELEMENT].as_str().with_context(|| format!("no element {selector}"))?.to_owned())
    }

    /// Clicks the first element, which must be visible.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.element(selector).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Types into a field, or chooses of a list.
    pub async fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector).await?;
        self.post(&format!("element/{element}/value"), json!({ "text": text })).await.map(drop)
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: char) -> Result<()> {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] })).await?;
        Ok(())
    }

    /// Presses the tabulator until the element that has the focus matches.
    pub async fn tab_to(&self, selector: &str) -> Result<()> {
        for _ in 0..100 {
            self.press(TAB).await?;
            let script = "return document.activeElement.matches(arguments[0])";
            if self.run(script, json!([selector])).await? == true {
                return Ok(());
            }
        }
        bail!("{selector} can't be reached with the keyboard");
    }

    /// A command of the developer tools.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Gives the page another size, as a phone would if `is_phone`.
    pub async fn resize(&self, width: u32, height: u32, is_phone: bool) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// What the reader's system prefers: `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// Takes a picture of the whole page.
    pub async fn picture(&self, file: &Path) -> Result<()> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", parameters).await?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().context("no picture")?)?;
        Ok(std::fs::write(file, bytes)?)
    }

    /// What the console has said since it was asked last: errors, and what the page's policy forbade.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await?;
        let entries = entries.as_array().context("no log")?.iter();
        let heard = entries.filter(|entry| entry["level"] != "DEBUG");
        Ok(heard.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect())
    }

    /// Role and name of everything that can be focused, as a screen reader is told.
    pub async fn named_controls(&self) -> Result<Vec<(String, String)>> {
        self.devtools("Accessibility.enable", json!({})).await?;
        let tree = self.devtools("Accessibility.getFullAXTree", json!({})).await?;
        let nodes = tree["nodes"].as_array().context("no tree")?.iter();
        let is_focusable = |node: &&Value| {
            let properties = node["properties"].as_array();
            let mut properties = properties.into_iter().flatten();
            node["ignored"] == false
                && properties.any(|one| one["name"] == "focusable" && one["value"]["value"] == true)
        };
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().trim().to_owned();
        Ok(nodes.filter(is_focusable).map(|node| (text(&node["role"]), text(&node["name"]))).collect())
    }
}
