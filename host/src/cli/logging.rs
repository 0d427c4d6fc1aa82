//! The log: events on the standard error, as text or as JSON, and how much of it, which can be changed.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use super::Failure;
use crate::config::LogFormat;
use crate::reload::SetLogLevel;
use crate::trace::Exporter;

/// What commands log that aren't services: their results are what they have to say.
pub(super) const QUIET: &str = "warn";

/// Begins to log, and to send spans where there is somebody to send them to. Answers what changes the directives.
///
/// # Errors
/// If the directives are malformed, or something in the process logs already.
pub(super) fn start(format: LogFormat, directives: &str, spans: Option<&Exporter>) -> Result<SetLogLevel, Failure> {
    let filter = filter(directives).map_err(|error| Failure::Work(format!("the log level: {error}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = io::stderr().is_terminal();
    // Said of a standard error that is gone, on the standard error, they would be panics in whatever had something to log.
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let as_text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = if as_text {
        lines.with_ansi(terminal).boxed()
    } else {
        // Of the spans the innermost: a request with its id, or a call with those of its requests.
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    let spans = spans.map(Exporter::layer);
    let started = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    started.map_err(|error| Failure::Work(format!("the log: {error}")))?;
    Ok(Box::new(move |directives| set_level(directives, |filter| handle.reload(filter))))
}

/// What these directives let through. The library that speaks HTTP/2 warns of what clients do, so that any of them could fill the log: it is
/// heard only if it is named.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("h2=off,{directives}"))
}

/// A level that can't be set leaves the present one.
fn set_level(directives: &str, reload: impl FnOnce(EnvFilter) -> Result<(), reload::Error>) {
    let set = filter(directives).map_err(|error| error.to_string());
    if let Err(error) = set.and_then(|filter| reload(filter).map_err(|error| error.to_string())) {
        tracing::error!(error, directives, "the log level could not be changed");
    }
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
    fn the_library_of_http_2_is_heard_if_it_is_named() {
        for (directives, expected) in
            [("info", "h2=off,info"), ("info,h2=debug", "h2=debug,info"), ("off", "h2=off,off"), ("", "h2=off")]
        {
            assert_eq!(filter(directives).unwrap().to_string(), expected);
        }
    }

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
