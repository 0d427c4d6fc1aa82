//! The operator's settings, read by name and type, with nothing ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::units;

/// The `[backends.NAME.settings]` of the host's configuration, as text by name.
///
/// Each getter consumes its name and answers `None` if the operator left it out. Values of the wrong form are
/// [`Error::InvalidArgument`], with a text that names the setting and says what is expected. What no getter asked for is an
/// error as well, from [`Settings::finish`].
pub struct Settings {
    given: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
}

impl Settings {
    /// Settings as the host hands them over.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that is given twice.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut given = BTreeMap::new();
        for (name, value) in pairs {
            if given.contains_key(&name) {
                return Err(Error::invalid_argument(format!("the setting {name:?} is given twice")));
            }
            given.insert(name, value);
        }
        Ok(Self { given, known: BTreeSet::new() })
    }

    /// Any text.
    pub fn string(&mut self, name: &'static str) -> Option<String> {
        self.known.insert(name);
        self.given.remove(name)
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.parsed(name, &expected, |text| text.trim().parse().ok().filter(|number| range.contains(number)))
    }

    /// A number of bytes: `4096`, `64MiB`, `1GB`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn bytes(&mut self, name: &'static str) -> Result<Option<u64>> {
        self.parsed(name, "a size such as 4096, 64MiB or 1GB", units::parse_bytes)
    }

    /// A length of time: `250ms`, `2s`, `5m`, `24h`, `30d`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        self.parsed(name, "a duration such as 250ms, 2s, 5m, 24h or 30d", units::parse_duration)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>> {
        self.choice(name, &[("true", true), ("false", false)])
    }

    /// One of several words, as what it stands for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn choice<T: Clone>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(name, &format!("one of {}", words.join(", ")), |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone())
        })
    }

    /// Refuses what no getter asked for. May be called more than once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names the unknown settings and lists the known ones.
    pub fn finish(&self) -> Result<()> {
        if self.given.is_empty() {
            return Ok(());
        }
        let unknown: Vec<String> = self.given.keys().map(|name| format!("{name:?}")).collect();
        let known: Vec<&str> = self.known.iter().copied().collect();
        let (noun, unknown) = (if unknown.len() == 1 { "setting" } else { "settings" }, unknown.join(", "));
        Err(Error::invalid_argument(match known.as_slice() {
            [] => format!("unknown {noun} {unknown}; there are none"),
            known => format!("unknown {noun} {unknown}; known: {}", known.join(", ")),
        }))
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(text) = self.string(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => {
                let shown: String = text.chars().take(64).collect();
                Err(Error::invalid_argument(format!("the setting {name:?} is {shown:?}, which is not {expected}")))
            }
        }
    }
}

impl fmt::Debug for Settings {
    /// Names only: values can be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("given", &self.given.keys()).field("known", &self.known).finish()
    }
}

/// The value of a setting that can't be left out.
///
/// # Errors
/// [`Error::InvalidArgument`] if it was.
pub fn required<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::invalid_argument(format!("the setting {name:?} is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap()
    }

    fn invalid<T: fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(Error::InvalidArgument(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_by_type() {
        let mut settings = settings(&[
            ("path", "a b"),
            ("count", "-3"),
            ("room", "64MiB"),
            ("wait", "2s"),
            ("sync", "false"),
            ("mode", "slow"),
        ]);
        assert_eq!(settings.string("path").as_deref(), Some("a b"));
        assert_eq!(settings.integer("count", -5..=5), Ok(Some(-3)));
        assert_eq!(settings.bytes("room"), Ok(Some(64 << 20)));
        assert_eq!(settings.duration("wait"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(settings.boolean("sync"), Ok(Some(false)));
        assert_eq!(settings.choice("mode", &[("fast", 1), ("slow", 2)]), Ok(Some(2)));
        assert_eq!(settings.bytes("absent"), Ok(None));
        assert_eq!(settings.finish(), Ok(()));
    }

    #[test]
    fn values_of_the_wrong_form() {
        let mut settings = settings(&[("count", "6"), ("room", "much"), ("wait", "2"), ("sync", "yes"), ("mode", "")]);
        assert_eq!(
            invalid(settings.integer("count", 1..=5)),
            "the setting \"count\" is \"6\", which is not a whole number from 1 to 5"
        );
        assert!(invalid(settings.bytes("room")).contains("\"room\""));
        assert!(invalid(settings.duration("wait")).contains("\"wait\""));
        assert!(invalid(settings.boolean("sync")).contains("one of true, false"));
        assert!(invalid(settings.choice("mode", &[("fast", 1)])).contains("\"mode\""));
        assert_eq!(invalid(required("path", settings.string("path"))), "the setting \"path\" is missing");
    }

    #[test]
    fn nothing_is_ignored() {
        let mut settings = settings(&[("pth", "secret"), ("x", "1"), ("path", "p")]);
        settings.string("path");
        settings.string("mode");
        assert_eq!(invalid(settings.finish()), r#"unknown settings "pth", "x"; known: mode, path"#);
        assert!(!format!("{settings:?}").contains("secret"));
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(invalid(Settings::new(twice)), "the setting \"a\" is given twice");
    }
}
