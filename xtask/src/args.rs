//! The words after a command's name. A few small commands don't pay for a parser that has to be compiled before everything else.

use std::fmt;

/// A wrong command line, as opposed to failed work: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// `message` says what is wrong with the words that were given.
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// What is left to be understood of a command line. Each command takes what it knows, then calls [`Args::finish`] or
/// [`Args::rest`], which refuse the flags that nobody took.
pub(crate) struct Args {
    command: &'static str,
    words: Vec<String>,
}

impl Args {
    /// The words that followed the name of `command`.
    pub(crate) fn new(command: &'static str, words: Vec<String>) -> Self {
        Self { command, words }
    }

    /// Takes `name` (like `--once`) and says whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes `name VALUE` or `name=VALUE`.
    ///
    /// # Errors
    /// [`Usage`] if the value is missing or the option occurs twice.
    pub(crate) fn option(&mut self, name: &str) -> Result<Option<String>, Usage> {
        let mut found = None;
        let mut rest = Vec::new();
        let mut words = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = words.next() {
            let value = if word == name {
                let value = words.next().filter(|value| !value.starts_with("--"));
                value.ok_or_else(|| self.wrong(format!("{name} needs a value")))?
            } else if let Some(value) = word.strip_prefix(name).and_then(|tail| tail.strip_prefix('=')) {
                value.to_owned()
            } else {
                rest.push(word);
                continue;
            };
            if found.replace(value).is_some() {
                return Err(self.wrong(format!("{name} is given twice")));
            }
        }
        self.words = rest;
        Ok(found)
    }

    /// The words that are left, none of which may be a flag.
    ///
    /// # Errors
    /// [`Usage`] that names the first unknown flag.
    pub(crate) fn rest(self) -> Result<Vec<String>, Usage> {
        match self.words.iter().find(|word| word.starts_with('-')) {
            Some(unknown) => Err(self.wrong(format!("unknown option {unknown:?}"))),
            None => Ok(self.words),
        }
    }

    /// For a command that takes nothing more.
    ///
    /// # Errors
    /// [`Usage`] that names the first word that is left.
    pub(crate) fn finish(self) -> Result<(), Usage> {
        let command = self.command;
        match self.rest()?.first() {
            Some(extra) => Err(Self::new(command, Vec::new()).wrong(format!("unexpected {extra:?}"))),
            None => Ok(()),
        }
    }

    /// An error about one of the words that points to the command's help.
    pub(crate) fn wrong(&self, what: String) -> Usage {
        Usage(format!("{what}; `cargo xtask {} --help` tells what there is", self.command))
    }
}

/// Whether the words ask for the command's help, whatever else they say.
pub(crate) fn asks_for_help(words: &[String]) -> bool {
    words.iter().any(|word| word == "--help" || word == "-h")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new("demo", line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn flags_options_and_words_come_in_any_order() {
        let mut args = args("one --data a.jsonl --once two --port=0");
        assert!(args.flag("--once"));
        assert!(!args.flag("--once"));
        assert_eq!(args.option("--data").unwrap().as_deref(), Some("a.jsonl"));
        assert_eq!(args.option("--port").unwrap().as_deref(), Some("0"));
        assert_eq!(args.rest().unwrap(), ["one", "two"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(args("--data").option("--data").unwrap_err().to_string().starts_with("--data needs a value"));
        assert!(args("--data --once").option("--data").is_err());
        assert!(args("--data a --data=b").option("--data").unwrap_err().to_string().contains("twice"));
        assert!(args("--dataset a").option("--data").unwrap().is_none());
        assert!(args("a --fast").rest().unwrap_err().to_string().contains("\"--fast\""));
        assert!(args("a").finish().unwrap_err().to_string().contains("`cargo xtask demo --help`"));
        assert!(args("").finish().is_ok());
    }
}
