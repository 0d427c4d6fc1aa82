//! The Grafana dashboard: every panel says what it shows, and asks only for what there is.

use std::fs;

use anyhow::{Context, Result, ensure};
use memcell_tests::artifacts::workspace;
use serde_json::Value;

use crate::promql;

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(workspace().join("ops/grafana/memcell.json"))?)?)
}

fn panels(dashboard: &Value) -> Result<&Vec<Value>> {
    dashboard["panels"].as_array().context("no panels")
}

/// Every expression as Grafana sends it: with all hosts and backends chosen.
pub(crate) fn expressions() -> Result<Vec<String>> {
    let dashboard = dashboard()?;
    let targets = panels(&dashboard)?.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().context("a target without an expression"));
    let sent = |text: &str| text.replace("$instance", ".*").replace("$backend", ".*").replace("$__rate_interval", "1m");
    expressions.map(|text| text.map(sent)).collect()
}

#[test]
fn panels_are_complete() -> Result<()> {
    let dashboard = dashboard()?;
    let mut rows = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels(&dashboard)? {
        let title = panel["title"].as_str().filter(|title| !title.is_empty()).context("a panel without a title")?;
        ensure!(ids.insert(panel["id"].as_u64().context("no id")?), "{title}: its id is another's");
        if panel["type"] == "row" {
            rows.push(title);
            continue;
        }
        ensure!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title} says not what it shows");
        ensure!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        ensure!(panel["datasource"]["uid"] == "${datasource}", "{title} has a data source of its own");
        ensure!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title} asks for nothing");
    }
    ensure!(rows == ["Overview", "Operations", "Mirror", "Validation", "Plugins", "Jobs", "Process"], "{rows:?}");
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    ensure!(names == ["datasource", "instance", "backend"], "{names:?}");
    Ok(())
}

#[test]
fn it_asks_only_for_what_there_is() -> Result<()> {
    let expressions = expressions()?;
    ensure!(expressions.len() > 40);
    for expression in &expressions {
        promql::check(expression)?;
        ensure!(!expression.contains('$'), "an unknown variable: {expression}");
    }
    // And for all there is: a figure that nobody sees might as well not be there.
    for figure in memcell_host::metrics::declared() {
        let is_shown =
            figure.series().iter().any(|name| expressions.iter().any(|expression| expression.contains(name)));
        ensure!(is_shown, "{} is in no panel", figure.family);
    }
    Ok(())
}
