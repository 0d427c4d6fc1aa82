//! The log: events on the standard error, as text or as JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Failure;
use crate::config::LogFormat;

/// What commands log that aren't services: their results are what they have to say.
pub(super) const QUIET: &str = "warn";

/// Begins to log.
///
/// # Errors
/// If the directives are malformed, or something in the process logs already.
pub(super) fn start(format: LogFormat, directives: &str) -> Result<(), Failure> {
    let filter =
        EnvFilter::builder().parse(directives).map_err(|error| Failure::Work(format!("the log level: {error}")))?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let as_text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let started = if as_text {
        builder.with_ansi(terminal).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    started.map_err(|error| Failure::Work(format!("the log: {error}")))
}

/// Checks directives from the command line or the environment. None at all are fine too: a variable that is empty counts as unset.
pub(super) fn level(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    // The filter takes a lone word that is no level for the name of a module, so that "loud" would silence everything.
    let mut lone = text.split(',').map(str::trim).filter(|one| !one.contains(['=', '[', ':']));
    if let Some(word) = lone.find(|word| word.is_empty() || word.parse::<LevelFilter>().is_err()) {
        return Err(format!("{word:?} is no level"));
    }
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for text in ["", "off", "warn", "INFO", "warn,memcell_host=debug", "memcell_host::kv=trace"] {
            assert_eq!(level(text).unwrap(), text);
        }
        for text in [",", "loud", "warn,loud", "memcell_host=loud"] {
            assert!(level(text).is_err(), "{text:?}");
        }
    }
}
