//! What is shown, step by step. Each step checks what it has seen, and says it only then.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::Options;
use crate::api::Api;
use crate::stage::{SHARDS, Stage};
use crate::story::{self, Story};
use crate::summary;

/// What needs at least this many documents: some for each kind of change, and one that is left alone.
const FEWEST: usize = 5;

/// The most documents that each kind of change is shown on.
const MOST_CHANGED: usize = 100;

/// The summary that another program writes into MongoDB.
const FOREIGN_SUMMARY: &str = "written into MongoDB by another program, past the host";

/// What happens to which documents. No document is in two lists but for `restored`, which are some of `hidden`.
struct Plan {
    updated: Vec<String>,
    hidden: Vec<String>,
    restored: Vec<String>,
    removed: Vec<String>,
    foreign: String,
}

impl Plan {
    fn new(ids: &[String]) -> Result<Self> {
        ensure!(ids.len() >= FEWEST, "{} documents are too few to show anything: {FEWEST} are needed", ids.len());
        let share = (ids.len() / 10).clamp(1, MOST_CHANGED);
        let mut rest = ids.iter().cloned();
        let mut take = |count| rest.by_ref().take(count).collect::<Vec<String>>();
        let (updated, hidden, removed) = (take(share), take(share.max(2)), take(share));
        let restored = hidden.iter().take(hidden.len() / 2).cloned().collect();
        let foreign = rest.next().context("no document is left")?;
        Ok(Self { updated, hidden, restored, removed, foreign })
    }

    /// The documents that aren't there any more afterwards.
    fn gone(&self) -> HashSet<&str> {
        let restored: HashSet<&String> = self.restored.iter().collect();
        let hidden = self.hidden.iter().filter(|id| !restored.contains(id));
        hidden.chain(&self.removed).map(String::as_str).collect()
    }
}

/// The whole demonstration. Unless it is to be shown once only, the host still runs afterwards.
pub(crate) async fn play(stage: &mut Stage, options: &Options) -> Result<()> {
    let mut story = Story::default();
    story::line(
        "MongoDB keeps the documents; a sandboxed WebAssembly plugin keeps copies; every read can be compared.\n",
    )?;
    story.step("started a private MongoDB server, with its data in a temporary directory")?;
    let imported = import(stage, &mut story, options.data.as_deref()).await?;

    let url = stage.start_host().await?;
    story.step(format_args!("started `memcell serve`: its HTTP API is at {url}"))?;
    let mut api = Api::new(&url)?;
    let backend = api.settled(imported).await?;
    ensure!(backend.shards == SHARDS, "the backend has {} shards instead of {SHARDS}", backend.shards);
    story.step(format_args!(
        "backend {:?} is live: copied all {imported} documents into {SHARDS} instances of the plugin",
        backend.name
    ))?;

    let ids = api.event_ids().await?;
    ensure!(ids.len() as u64 == imported, "{} documents are listed, but {imported} were imported", ids.len());
    let found = read_all(&mut api, &ids, &HashSet::new()).await?;
    story.step(format_args!("read all {found} back, each compared with its copy: {found} consistent"))?;

    let plan = Plan::new(&ids)?;
    change(&api, &plan).await?;
    story.step(format_args!(
        "through the API: updated {}, soft-deleted {} and restored {} of these, removed {} for good",
        plan.updated.len(),
        plan.hidden.len(),
        plan.restored.len(),
        plan.removed.len()
    ))?;

    let gone = plan.gone();
    let live = (ids.len() - gone.len()) as u64;
    api.settled(live).await?;
    let found = read_all(&mut api, &ids, &gone).await?;
    check_updates(&mut api, &plan).await?;
    story.step(format_args!(
        "read all again: {found} are there, {} are gone from MongoDB and backend alike: {} consistent",
        gone.len(),
        ids.len()
    ))?;

    catch_foreign_change(stage, &mut story, &mut api, &plan.foreign).await?;
    let backend = api.settled(live).await?;
    ensure!(backend.restarts == 0, "an instance of the plugin had to be replaced: {backend:?}");

    if options.once {
        stage.stop_host().await?;
        story.step("told the host to end: it drained its mirror and did")?;
    }
    story::line(format_args!("\n{}\n", summary::table(imported, live, &api.figures, &backend)))?;
    if options.once { Ok(()) } else { story::line(how_to_go_on(&url, &plan.foreign, &stage.log())) }
}

async fn import(stage: &Stage, story: &mut Story, given: Option<&Path>) -> Result<u64> {
    let (file, name) = match given {
        Some(file) => (file.to_owned(), file.file_name().unwrap_or_default().to_string_lossy().into_owned()),
        None => (stage.generate()?, "a generated file".to_owned()),
    };
    let report = stage.memcell.import(&file).await?;
    ensure!(report.imported == report.read, "not all documents of {name} were imported: {report:?}");
    story.step(format_args!(
        "`memcell import` took {} documents from {name} in {:.1} s",
        report.imported, report.seconds
    ))?;
    Ok(report.imported)
}

/// Reads each document with validation. All but `gone` must be there, and all must be consistent. Answers how many are there.
async fn read_all(api: &mut Api, ids: &[String], gone: &HashSet<&str>) -> Result<usize> {
    for id in ids {
        let reading = api.read(id).await?;
        ensure!(reading.outcome == "consistent", "the copy of {id} is {}, not consistent", reading.outcome);
        let expected = !gone.contains(id.as_str());
        ensure!(reading.document.is_some() == expected, "{id} should {}be there", if expected { "" } else { "not " });
        if let Some(document) = reading.document {
            let answered = document.get("event_id").and_then(Value::as_str);
            ensure!(answered == Some(id), "asked for {id}, the answer is {answered:?}");
        }
    }
    Ok(ids.len() - gone.len())
}

async fn change(api: &Api, plan: &Plan) -> Result<()> {
    for id in &plan.updated {
        let updated = api.update(id, &json!({ "summary": new_summary(id), "reviewed": true })).await?;
        ensure!(updated.get("summary") == Some(&json!(new_summary(id))), "the update of {id} was not answered");
    }
    for id in &plan.hidden {
        api.soft_delete(id).await?;
    }
    for id in &plan.restored {
        api.restore(id).await?;
    }
    for id in &plan.removed {
        api.hard_delete(id).await?;
    }
    Ok(())
}

fn new_summary(id: &str) -> String {
    format!("a new summary for {id}")
}

async fn check_updates(api: &mut Api, plan: &Plan) -> Result<()> {
    for id in &plan.updated {
        let document = api.read(id).await?.document.with_context(|| format!("{id} is gone"))?;
        let (summary, reviewed) = (document.get("summary"), document.get("reviewed"));
        ensure!(
            summary == Some(&json!(new_summary(id))) && reviewed == Some(&json!(true)),
            "{id} does not show its update: {summary:?}, {reviewed:?}"
        );
    }
    Ok(())
}

/// How often the document is changed until a read is faster than the mirror, which follows within milliseconds.
const MOST_TRIES: u32 = 50;

/// Changes a document in MongoDB without the host. The next read must notice, and answer MongoDB's version all the same; and
/// the mirror must follow by itself.
async fn catch_foreign_change(stage: &Stage, story: &mut Story, api: &mut Api, id: &str) -> Result<()> {
    let filter = doc! { "_id": ObjectId::parse_str(id)? };
    for attempt in 1..=MOST_TRIES {
        let summary = format!("{FOREIGN_SUMMARY} ({attempt})");
        let update = doc! { "$set": { "summary": &summary } };
        let changed = stage.collection.update_one(filter.clone(), update).await?;
        ensure!(changed.modified_count == 1, "MongoDB changed {} documents instead of one", changed.modified_count);
        let started = Instant::now();
        let reading = api.read(id).await?;
        let document = reading.document.with_context(|| format!("{id} is gone"))?;
        let answered = document.get("summary");
        ensure!(answered == Some(&json!(summary)), "the answer was not MongoDB's document: {answered:?}");
        if reading.outcome != "different" {
            let outcome = &reading.outcome;
            ensure!(outcome == "consistent", "the read of a document changed behind the host is {outcome}");
            continue;
        }
        let earlier = match attempt {
            1 => String::new(),
            2 => " (once before, the mirror was faster than the read)".to_owned(),
            tries => format!(" ({} times before, the mirror was faster than the read)", tries - 1),
        };
        story.step(format_args!("changed the summary of {id} directly in MongoDB, behind the host's back{earlier}"))?;
        story.step("the next validated read caught it: x-memcell-validation: different")?;
        story.step("that read answered MongoDB's document, not the copy: MongoDB always has the last word")?;
        api.becomes_consistent(id).await?;
        let elapsed = started.elapsed().as_millis();
        story.step(format_args!(
            "the mirror followed by itself: {elapsed} ms after the change, the copy is consistent"
        ))?;
        api.no_mismatches().await?;
        return story.step("so no mismatch was confirmed, and GET /v1/mismatches is empty");
    }
    bail!("changed {MOST_TRIES} times behind the host, the document was never read before the mirror had followed")
}

fn how_to_go_on(url: &str, id: &str, log: &Path) -> String {
    let log = log.display();
    format!(
        "\
The host keeps running. For example:

  curl -i {url}/v1/memcells/{id}
  curl '{url}/v1/memcells?limit=2'
  curl -X PATCH -H 'content-type: application/json' -d '{{\"summary\": \"mine\"}}' {url}/v1/memcells/{id}
  curl {url}/v1/backends
  curl {url}/v1/mismatches
  curl {url}/metrics

Its log is {log}.
Ctrl-C stops it and removes everything."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{n:024x}")).collect()
    }

    #[test]
    fn a_plan_touches_every_document_once() {
        for count in [FEWEST, 9, 10, 11, 100, 5000] {
            let ids = ids(count);
            let plan = Plan::new(&ids).unwrap();
            let mut touched: Vec<&String> =
                plan.updated.iter().chain(&plan.hidden).chain(&plan.removed).chain([&plan.foreign]).collect();
            let all = touched.len();
            touched.sort_unstable();
            touched.dedup();
            assert_eq!(touched.len(), all, "{count}");
            for list in [&plan.updated, &plan.hidden, &plan.restored, &plan.removed] {
                assert!((1..=MOST_CHANGED).contains(&list.len()), "{count}");
            }
            assert_eq!(plan.gone().len(), plan.hidden.len() - plan.restored.len() + plan.removed.len());
        }
        assert!(Plan::new(&ids(FEWEST - 1)).is_err());
    }
}
