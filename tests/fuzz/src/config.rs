//! The configuration: a file, and behind a line `---` environment variables as `NAME=value` lines.

use std::path::Path;

use memcell_host::config::Config;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (file, variables) = text.split_once("\n---\n").unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<(String, String)> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match Config::parse_with(file, Path::new("/nowhere/memcell.toml"), variables) {
        Ok(config) => {
            assert!(config.changes_to(&config).is_empty(), "a configuration differs from itself");
            assert!(config.shown().is_object());
            let uri = config.mongodb.redacted_uri();
            assert!(!uri.is_empty());
        }
        Err(error) => {
            let lines = file.lines().count() + 1;
            assert!(!error.problems().is_empty(), "it is refused, and nothing is wrong with it");
            for problem in error.problems() {
                assert!(!problem.message.is_empty(), "{problem:?}");
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?} of {lines} lines");
                assert!(problem.column.is_none_or(|column| column > 0), "{problem:?}");
            }
            // Each problem is one line, for whoever reads with a program.
            assert_eq!(error.to_string().lines().count(), error.problems().len(), "{error}");
        }
    }
}
