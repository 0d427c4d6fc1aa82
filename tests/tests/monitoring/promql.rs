//! Which metrics and labels a PromQL expression names. Not a parser: whether an expression is valid, Prometheus says itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use memcell_host::metrics::declared;

/// Labels that Prometheus adds to what it scrapes.
const ADDED: [&str; 2] = ["instance", "job"];

/// The labels of each series that a host can have, and those that Prometheus has of a target itself.
pub(crate) fn known_series() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::from([("up".to_owned(), ADDED.map(str::to_owned).into())]);
    for figure in declared() {
        for series in figure.series() {
            let mut labels: BTreeSet<String> =
                figure.labels.iter().chain(&ADDED).map(|label| (*label).to_owned()).collect();
            if series.ends_with("_bucket") {
                labels.insert("le".to_owned());
            }
            known.insert(series, labels);
        }
    }
    known
}

/// The words of an expression, without what stands between quotes.
fn words(expression: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in expression.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ':' | '.' => word.push(c),
            _ => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
            }
        }
    }
    words
}

/// Checks that an expression names only series that there can be, and only labels that they can have.
pub(crate) fn check(expression: &str) -> Result<()> {
    let known = known_series();
    let words = words(expression);
    let mut named = BTreeSet::new();
    // Of matchers, and of `by (…)`, `on (…)` and the like.
    let mut used: Vec<(Option<String>, String)> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        if let Some(labels) = known.get(word) {
            named.extend(labels.iter().cloned());
        } else if word.starts_with("memcell_") || word.starts_with("process_") {
            ensure!(false, "there is no metric {word}: {expression}");
        }
        let is_matcher = word == "{";
        let is_grouping = matches!(word.as_str(), "by" | "on" | "without" | "ignoring" | "group_left" | "group_right");
        if is_matcher || (is_grouping && words.get(at + 1).is_some_and(|next| next == "(")) {
            let of = (is_matcher && at > 0).then(|| words[at - 1].clone());
            let end = if is_matcher { "}" } else { ")" };
            let begin = if is_matcher { at + 1 } else { at + 2 };
            let length = words[begin..].iter().position(|word| word == end).unwrap_or(0);
            let inside = &words[begin..begin + length];
            let labels = inside.iter().filter(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_'));
            used.extend(labels.map(|label| (of.clone(), label.clone())));
            at = begin + length;
        }
        at += 1;
    }
    ensure!(!named.is_empty(), "it names no metric: {expression}");
    for (of, label) in used {
        let fits = match of.as_ref().and_then(|of| known.get(of)) {
            Some(labels) => labels.contains(&label),
            None => named.contains(&label),
        };
        ensure!(fits, "{} has no label {label}: {expression}", of.as_deref().unwrap_or("none of its metrics"));
    }
    Ok(())
}

#[test]
fn made_up_names_are_found() {
    for fine in [
        "up == 0",
        "sum by (instance, backend) (rate(memcell_kv_restarts_total{backend=~\"a|b\"}[5m])) > 0",
        "histogram_quantile(0.9, sum by (le) (rate(memcell_operation_duration_seconds_bucket[5m])))",
        "time() - memcell_mirror_checkpoint_timestamp_seconds{instance=\"memcell_made_up\"}",
    ] {
        check(fine).unwrap();
    }
    for wrong in [
        "memcell_made_up > 0",
        "memcell_kv_restarts > 0",
        "memcell_kv_restarts_total{kind=\"x\"}",
        "sum by (route) (memcell_kv_restarts_total)",
        "memcell_operation_duration_seconds_count{le=\"1\"}",
        "vector(1)",
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}
