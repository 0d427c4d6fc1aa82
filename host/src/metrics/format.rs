//! The two text formats that scrapers read, and which of them one is given.

use std::fmt::Write as _;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, which everything reads.
    Text,
    /// OpenMetrics 1.0: with units, and an end that shows that nothing was cut off.
    OpenMetrics,
}

impl Format {
    /// The one for a request with this `accept` header: OpenMetrics if it is asked for by name, and not less than the other. That is what
    /// Prometheus does; a header that can't be understood asks for nothing.
    pub fn accepted_by(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_wanted = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
                let weight =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
                weight.filter(|weight| is_wanted && *weight > 0.0)
            });
            ranges.fold(0.0, f32::max)
        };
        let open_metrics = weight("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= weight("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => super::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Our own OpenMetrics text in Prometheus' format. The samples are the same; a counter is described under the name that its sample has,
/// and units and the end are not told.
pub(super) fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            // Writing to a string can't fail.
            let _ = match (described.strip_suffix(" counter"), help.split_once(' ')) {
                (Some(name), Some((_, help))) => {
                    writeln!(text, "# HELP {name}_total {help}\n# TYPE {name}_total counter")
                }
                _ => writeln!(text, "# HELP {help}\n# TYPE {described}"),
            };
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        for accept in
            ["", "*/*", "text/plain", "text/html, */*;q=0.8", "application/openmetrics-text;q=0", "nonsense;;,"]
        {
            assert_eq!(Format::accepted_by(accept), Format::Text, "{accept}");
        }
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in
            [prometheus, "application/openmetrics-text", "text/plain; q=0.1, Application/OpenMetrics-Text;q=0.2"]
        {
            assert_eq!(Format::accepted_by(accept), Format::OpenMetrics, "{accept}");
        }
        let other = "application/openmetrics-text;q=0.5, text/plain";
        assert_eq!(Format::accepted_by(other), Format::Text);
    }

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let open_metrics = "# HELP a_b Things done.\n# TYPE a_b counter\na_b_total{x=\"# HELP\"} 1\n\
                            # HELP c_seconds How long.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 2.5\n# EOF\n";
        let text = "# HELP a_b_total Things done.\n# TYPE a_b_total counter\na_b_total{x=\"# HELP\"} 1\n\
                    # HELP c_seconds How long.\n# TYPE c_seconds gauge\nc_seconds 2.5\n";
        assert_eq!(to_text(open_metrics), text);
    }
}
