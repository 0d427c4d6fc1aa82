//! ISO 8601 dates and times, read leniently and written in one way.

use bson::DateTime;
use serde::Serializer;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// What [`parse_datetime`] takes, for error messages.
pub(super) const EXPECTED: &str = "expected an ISO 8601 date and time such as 2025-06-26T00:03:30Z";

/// Writes a moment into a report, in ISO 8601.
///
/// # Errors
/// For years that ISO 8601 has no form for.
pub(crate) fn as_time<S: Serializer>(time: &DateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = time.try_to_rfc3339_string().map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

/// Reads an ISO 8601 date and time, truncated to milliseconds (towards the past), as MongoDB keeps it.
///
/// `T` or a space divides date and time; seconds and their fraction (any number of digits) can be left out, and so
/// can the whole time, which is midnight then. An offset (`Z`, `+08:00`, `+0800`, `+08`) is honoured; without one it
/// is UTC. `None` if it is anything else.
pub fn parse_datetime(text: &str) -> Option<DateTime> {
    parse(text).map(|(truncated, _)| truncated)
}

/// As [`parse_datetime`], for the border of a range of what MongoDB keeps: of two whole milliseconds, none is between the border and the
/// next one, which stands for it.
pub fn parse_border(text: &str) -> Option<DateTime> {
    let (truncated, is_whole) = parse(text)?;
    let millis = truncated.timestamp_millis();
    Some(DateTime::from_millis(if is_whole { millis } else { millis.saturating_add(1) }))
}

/// The moment, truncated to milliseconds, and whether nothing was cut off.
fn parse(text: &str) -> Option<(DateTime, bool)> {
    let mut rest = Digits(text);
    let year = i32::from(rest.number(4)?);
    rest.literal("-")?;
    let month = Month::try_from(u8::try_from(rest.number(2)?).ok()?).ok()?;
    rest.literal("-")?;
    let day = u8::try_from(rest.number(2)?).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    if rest.0.is_empty() {
        return Some((in_utc(date, Time::MIDNIGHT, UtcOffset::UTC), true));
    }

    rest.literal("T").or_else(|| rest.literal("t")).or_else(|| rest.literal(" "))?;
    let hour = u8::try_from(rest.number(2)?).ok()?;
    rest.literal(":")?;
    let minute = u8::try_from(rest.number(2)?).ok()?;
    let mut second = 0;
    let (mut millisecond, mut is_whole) = (0, true);
    if rest.literal(":").is_some() {
        second = u8::try_from(rest.number(2)?).ok()?;
        if rest.literal(".").or_else(|| rest.literal(",")).is_some() {
            (millisecond, is_whole) = rest.milliseconds()?;
        }
    }
    let time = Time::from_hms_milli(hour, minute, second, millisecond).ok()?;
    let offset = rest.offset()?;
    rest.0.is_empty().then(|| (in_utc(date, time, offset), is_whole))
}

fn in_utc(date: Date, time: Time, offset: UtcOffset) -> DateTime {
    // Counted in milliseconds and not as another calendar date: near the ends of the calendar an offset leads out of
    // it.
    let local = PrimitiveDateTime::new(date, time).assume_utc();
    let millis = (local.unix_timestamp() - i64::from(offset.whole_seconds())) * 1000;
    DateTime::from_millis(millis + i64::from(local.millisecond()))
}

/// What is left to read of a text. Each method takes what it names from the front, or leaves everything as it was.
struct Digits<'a>(&'a str);

impl Digits<'_> {
    fn literal(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// A number of exactly `width` digits.
    fn number(&mut self, width: usize) -> Option<u16> {
        let (digits, rest) = self.0.split_at_checked(width)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    /// The digits behind the decimal mark, of which the first three count, and whether the others are zeros.
    fn milliseconds(&mut self) -> Option<(u16, bool)> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end)?;
        if digits.is_empty() {
            return None;
        }
        self.0 = rest;
        let millisecond = digits.bytes().chain(*b"00").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        Some((millisecond, digits.bytes().skip(3).all(|digit| digit == b'0')))
    }

    fn offset(&mut self) -> Option<UtcOffset> {
        if self.0.is_empty() || self.literal("Z").is_some() || self.literal("z").is_some() {
            return Some(UtcOffset::UTC);
        }
        let sign = if self.literal("+").is_some() { 1 } else { self.literal("-").map(|()| -1)? };
        let hours = i32::from(self.number(2)?);
        let minutes = match self.literal(":") {
            Some(()) => self.number(2)?,
            None if self.0.is_empty() => 0,
            None => self.number(2)?,
        };
        if hours > 23 || minutes > 59 {
            return None;
        }
        UtcOffset::from_whole_seconds(sign * (hours * 3600 + i32::from(minutes) * 60)).ok()
    }
}

/// Appends `2025-06-26T00:03:30Z`, with milliseconds only where they aren't zero. False, with nothing appended, for a
/// year that four digits can't express.
pub(super) fn write_datetime(value: DateTime, out: &mut Vec<u8>) -> bool {
    let millis = value.timestamp_millis();
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)) else { return false };
    let Ok(year @ 0..=9999) = u16::try_from(moment.year()) else { return false };
    push_two(year / 100, out);
    push_two(year % 100, out);
    for (mark, part) in [
        (b'-', u8::from(moment.month())),
        (b'-', moment.day()),
        (b'T', moment.hour()),
        (b':', moment.minute()),
        (b':', moment.second()),
    ] {
        out.push(mark);
        push_two(u16::from(part), out);
    }
    if let Ok(fraction @ 1..) = u16::try_from(millis.rem_euclid(1000)) {
        out.push(b'.');
        out.push(digit(fraction / 100));
        push_two(fraction % 100, out);
    }
    out.push(b'Z');
    true
}

fn push_two(number: u16, out: &mut Vec<u8>) {
    out.push(digit(number / 10));
    out.push(digit(number % 10));
}

/// The last decimal digit of a number, as ASCII.
fn digit(number: u16) -> u8 {
    u8::try_from(number % 10).map_or(b'0', |value| b'0' + value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(millis: i64) -> Option<String> {
        let mut out = Vec::new();
        write_datetime(DateTime::from_millis(millis), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse_datetime(text).map(DateTime::timestamp_millis), expected, "{text:?}");
    }

    #[test]
    fn reads_what_people_write() {
        let midnight = 1_750_896_000_000;
        let moment = midnight + 210_000;
        check("2025-06-26", Some(midnight));
        check("2025-06-26T00:03:30Z", Some(moment));
        check("2025-06-26t00:03:30z", Some(moment));
        check("2025-06-26 00:03:30", Some(moment));
        check("2025-06-26T00:03", Some(midnight + 180_000));
        check("2025-06-26T08:03:30+08:00", Some(moment));
        check("2025-06-26 08:03:30+0800", Some(moment));
        check("2025-06-26T08:03:30+08", Some(moment));
        check("2025-06-25T18:33:30-05:30", Some(moment));
        check("2025-06-26T00:03:30.1Z", Some(moment + 100));
        check("2025-06-26T00:03:30,12Z", Some(moment + 120));
        check("2025-06-26T00:03:30.123456789123", Some(moment + 123));
        check("1969-12-31T23:59:59.9999Z", Some(-1));
        check("0000-01-01T00:00:00+01:00", Some(-62_167_222_800_000));
    }

    #[test]
    fn refuses_what_is_no_date() {
        for text in [
            "",
            "yesterday",
            "2025",
            "2025-06",
            "2025-6-26",
            "2025-02-29",
            "2025-13-01",
            "2025-06-26T",
            "2025-06-26T24:00:00Z",
            "2025-06-26T00:03:60Z",
            "2025-06-26T00:03:30.Z",
            "2025-06-26T00:03:30ZZ",
            "2025-06-26T00:03:30+24:00",
            "2025-06-26T00:03:30+08:60",
            "2025-06-26T00:03:30 +08:00",
            "+2025-06-26",
            "２０２５-06-26",
            "1750896000",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_border_between_two_milliseconds_is_the_later_one() {
        let border = |text: &str| parse_border(text).map(DateTime::timestamp_millis);
        assert_eq!(border("1970-01-01T00:00:00.001Z"), Some(1));
        assert_eq!(border("1970-01-01T00:00:00.001000Z"), Some(1));
        assert_eq!(border("1970-01-01T00:00:00.0010001Z"), Some(2));
        assert_eq!(border("1969-12-31T23:59:59.9995Z"), Some(0));
        assert_eq!(border("1970-01-01T00:00:00.001x"), None);
    }

    #[test]
    fn writes_milliseconds_only_where_there_are_any() {
        assert_eq!(written(1_750_896_210_000).unwrap(), "2025-06-26T00:03:30Z");
        assert_eq!(written(1_750_896_210_007).unwrap(), "2025-06-26T00:03:30.007Z");
        assert_eq!(written(-1).unwrap(), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(-62_167_219_200_000).unwrap(), "0000-01-01T00:00:00Z");
        assert_eq!(written(-62_167_219_200_001), None);
        assert_eq!(written(253_402_300_799_999).unwrap(), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(253_402_300_800_000), None);
        assert_eq!(written(i64::MIN), None);
        assert_eq!(written(i64::MAX), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in -62_167_219_200_000..253_402_300_800_000_i64) {
            let text = written(millis).unwrap();
            prop_assert_eq!(parse_datetime(&text), Some(DateTime::from_millis(millis)));
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ:+. -]{0,40}|.{0,40}") {
            let _ = parse_datetime(&text);
        }
    }
}
