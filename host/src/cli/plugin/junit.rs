//! The report of a conformance run as the XML that CI servers know from JUnit.

use std::fmt::Write as _;

use super::report::{Head, Totals};
use crate::conformance::{CaseReport, Verdict};

/// One test suite, with a test case for each case.
pub(super) fn document(head: &Head, reports: &[CaseReport], totals: &Totals) -> String {
    let (plugin, sha256) = head.plugin();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string can't fail.
    let _ = writeln!(
        xml,
        "<testsuites><testsuite name=\"memcell plugin test {}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3}\">",
        escaped(plugin),
        reports.len(),
        totals.failed,
        totals.skipped,
        totals.elapsed.as_secs_f64()
    );
    let _ = writeln!(
        xml,
        "  <properties><property name=\"sha256\" value=\"{sha256}\"/><property name=\"seed\" value=\"{}\"/></properties>",
        head.seed()
    );
    for report in reports {
        let name = report.name;
        let _ = write!(
            xml,
            "  <testcase classname=\"memcell.conformance\" name=\"{name}\" time=\"{:.3}\">",
            report.elapsed.as_secs_f64()
        );
        match &report.verdict {
            Verdict::Passed { notes } if notes.is_empty() => {}
            Verdict::Passed { notes } => {
                let _ = write!(xml, "<system-out>{}</system-out>", escaped(&notes.join("\n")));
            }
            Verdict::Skipped { reason } => {
                let _ = write!(xml, "<skipped message=\"{}\"/>", escaped(reason));
            }
            Verdict::Failed(failure) => {
                let text = format!(
                    "expected  {}\nfound     {}\ncontract  “{}”",
                    failure.expected, failure.found, failure.contract
                );
                let _ = write!(xml, "<failure message=\"{}\">{}</failure>", escaped(&failure.found), escaped(&text));
            }
        }
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite></testsuites>\n");
    xml
}

/// Text for XML 1.0, in which most control characters can't be written at all.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_plugin_says_fits_into_xml() {
        assert_eq!(
            escaped("a<b>&\"c\"\n\0\u{1b}é\u{ffff}"),
            "a&lt;b&gt;&amp;&quot;c&quot;&#10;\u{fffd}\u{fffd}é\u{fffd}"
        );
    }
}
