//! Sizes and durations as people write them.

use std::time::Duration;

const SIZES: [(&str, u64); 11] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes, from a whole number and a unit such as `MiB` or `MB`; a bare number is bytes.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// A duration, from a whole number and one of `ms`, `s`, `m`, `h`, `d`. A bare number is refused: it could mean anything.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(parse_bytes(text), expect, "{text:?}");
        check("0", Some(0));
        check("512", Some(512));
        check("64MiB", Some(64 << 20));
        check(" 64 MiB ", Some(64 << 20));
        check("5kB", Some(5000));
        check("16777216TiB", None);
        for wrong in ["", "MiB", "-1", "1.5GiB", "1 mib", "1e3", "0x10", "٣"] {
            check(wrong, None);
        }
    }

    #[test]
    fn durations() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_duration(text), expect.map(Duration::from_millis), "{text:?}");
        };
        check("250ms", Some(250));
        check("2s", Some(2000));
        check("5 m", Some(300_000));
        check("24h", Some(86_400_000));
        check("30d", Some(30 * 86_400_000));
        for wrong in ["", "30", "s", "-1s", "1.5s", "1h30m", "1S", "99999999999999999d"] {
            check(wrong, None);
        }
    }
}
