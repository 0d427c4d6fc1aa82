//! The alert rules by themselves: they are valid, each has a case that fires and one that doesn't, and a runbook.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use memcell_tests::artifacts::workspace;
use memcell_tests::prometheus::{promtool, shipped};

/// The names of the alerts, with the lines of each.
fn alerts() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(shipped().join("memcell.rules.yml"))?;
    let mut alerts = BTreeMap::new();
    for rule in text.split("- alert: ").skip(1) {
        let (name, rest) = rule.split_once('\n').context("an alert without lines")?;
        alerts.insert(name.to_owned(), rest.to_owned());
    }
    Ok(alerts)
}

#[test]
fn promtool_finds_nothing_wrong() -> Result<()> {
    let checked = promtool(&shipped(), &["check", "rules", "memcell.rules.yml"], "")?;
    let count = format!("{} rules found", alerts()?.len());
    ensure!(checked.contains("SUCCESS") && checked.contains(&count), "{checked}");
    promtool(&shipped(), &["check", "config", "prometheus.yml"], "")?;
    let tested = promtool(&shipped(), &["test", "rules", "memcell.test.yml"], "")?;
    ensure!(tested.contains("SUCCESS"), "{tested}");
    Ok(())
}

#[test]
fn each_alert_is_tested_both_ways() -> Result<()> {
    let cases = fs::read_to_string(shipped().join("memcell.test.yml"))?;
    for name in alerts()?.keys() {
        let of_it = cases.split("alertname: ").skip(1).filter(|case| case.lines().next() == Some(name.as_str()));
        let ends: Vec<bool> =
            of_it.map(|case| case.lines().nth(1).is_some_and(|line| line.trim() == "exp_alerts: []")).collect();
        ensure!(ends.contains(&true) && ends.contains(&false), "{name} is not tested both firing and keeping quiet");
    }
    Ok(())
}

#[test]
fn each_alert_says_what_to_do() -> Result<()> {
    let runbooks = fs::read_to_string(workspace().join("docs/runbooks.md"))?;
    let alerts = alerts()?;
    for (name, rule) in &alerts {
        for part in ["severity: ", "summary: ", "description: "] {
            ensure!(rule.contains(part), "{name} has no {part}");
        }
        let anchor = format!("runbook_url: docs/runbooks.md#{}", name.to_lowercase());
        ensure!(rule.lines().any(|line| line.trim() == anchor), "{name} does not lead to its runbook");
        let (_, runbook) =
            runbooks.split_once(&format!("## {name}\n")).with_context(|| format!("{name} has no runbook"))?;
        let runbook = runbook.split("\n## ").next().unwrap_or_default();
        ensure!(runbook.contains("**Check:**") && runbook.contains("**Do:**"), "the runbook of {name} is not complete");
    }
    for heading in runbooks.lines().filter_map(|line| line.strip_prefix("## ")) {
        ensure!(!heading.starts_with("MemCell") || alerts.contains_key(heading), "there is no alert {heading}");
    }
    Ok(())
}
