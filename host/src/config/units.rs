//! Durations and byte sizes as people write them: a whole number and its unit.

use std::time::Duration;

/// Every unit of time with its milliseconds, the largest first.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Every unit of size with its bytes, the largest first.
const SIZE: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

/// Reads `250ms`, `2s`, `5m`, `24h`, `30d`. `None` if it isn't of that form, or beyond what 64 bits of milliseconds
/// hold.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &TIME).map(Duration::from_millis)
}

/// Reads `512B`, `64KiB`, `256MiB`, `1GiB`, `1TiB`, and the decimal `kB`, `MB`, `GB`, `TB`. `None` as for durations.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, &SIZE)
}

/// Writes a duration so that [`parse_duration`] reads it again, in the largest unit that divides it. Whole milliseconds
/// only.
pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME, "0s")
}

/// Writes a size so that [`parse_bytes`] reads it again, in the largest unit that divides it.
pub(super) fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZE, "0B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    // Between the two, one space is as common as none.
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(number: u64, units: &[(&str, u64)], zero: &str) -> String {
    let exact = units.iter().find(|(_, factor)| number > 0 && number.is_multiple_of(*factor));
    exact.map_or_else(|| zero.to_owned(), |(name, factor)| format!("{}{name}", number / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("250ms", 250), ("2s", 2000), ("5m", 300_000), ("24 h", 86_400_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let wrong = ["", "5", "s", "-1s", "+1s", "1.5s", "1S", "1sec", "1s ", " 1s", "1  s", "1µs", "1h30m"];
        for text in wrong.into_iter().chain(["213503982335d", "99999999999999999999s"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0B", 0), ("64KiB", 65_536), ("64kB", 64_000), ("1GiB", 1 << 30), ("2 MB", 2_000_000)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "64", "64K", "64kb", "64KB", "64kib", "1.5GiB", "16777216TiB", "B"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for millis in [0, 1, 999, 1000, 1500, 60_000, 61_000, 3_600_000, 86_400_000, u64::MAX] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for bytes in [0, 1, 1000, 1024, 1536, 1 << 20, 3 << 30, 1 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_bytes(256 << 20), "256MiB");
    }
}
