//! `docs/metrics.md`, made from the declarations.

use std::fmt::Write as _;

use super::families::{LABELS, declared};

const OPENING: &str = "\
# Metrics

<!-- Made from host/src/metrics/families.rs. After a change there: MEMCELL_UPDATE=1 cargo test -p memcell-host metrics_table -->

`GET /metrics` shows these figures, in Prometheus' text format or, to those who ask for it in `accept` as Prometheus does, in
OpenMetrics. A figure that isn't known has no series: none is made up. Figures of a backend come with it and go with it.

Alert rules are in [ops/prometheus/memcell.rules.yml](../ops/prometheus/memcell.rules.yml), what to do about each in
[runbooks.md](runbooks.md), and a dashboard is in [ops/grafana/memcell.json](../ops/grafana/memcell.json).

| Name | Type | Labels | Unit | Meaning |
|---|---|---|---|---|
";

const LABELS_OPENING: &str = "
A histogram `NAME` has the series `NAME_bucket`, `NAME_sum` and `NAME_count`.

## Labels

No label has values that clients could make up, so the number of series is bounded by the configuration.

| Label | Values |
|---|---|
";

/// The file as it should be.
fn markdown() -> String {
    let mut text = OPENING.to_owned();
    for figure in declared() {
        let name = if figure.kind == "histogram" { figure.family.clone() } else { figure.series().concat() };
        let labels = figure.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (kind, unit, help) = (figure.kind, figure.unit.unwrap_or_default(), figure.help);
        // Writing to a string can't fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {unit} | {help} |");
    }
    text.push_str(LABELS_OPENING);
    for (label, values) in LABELS {
        let _ = writeln!(text, "| `{label}` | {values} |");
    }
    text
}

#[test]
fn the_metrics_table_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let current = markdown();
    if std::env::var_os("MEMCELL_UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "docs/metrics.md is out of date: MEMCELL_UPDATE=1 cargo test -p memcell-host metrics_table"
    );
}

#[test]
fn every_declaration_is_complete() {
    let mut names = std::collections::BTreeSet::new();
    for figure in declared() {
        assert!(names.insert(figure.family.clone()), "{} is declared twice", figure.family);
        assert!(
            figure.help.len() > 5 && !figure.help.contains(['"', '\\', '|', '\n']),
            "{}: {}",
            figure.family,
            figure.help
        );
        for label in figure.labels {
            assert!(
                !["job", "instance", "le"].contains(label),
                "Prometheus has its own {label}, and would rename ours"
            );
            assert!(LABELS.iter().any(|(known, _)| known == label), "LABELS does not say what {label} can be");
        }
    }
    for (label, _) in LABELS {
        assert!(declared().iter().any(|figure| figure.labels.contains(label)), "no figure has the label {label}");
    }
}
