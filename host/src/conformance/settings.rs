//! Cases: a setting is honoured or refused, never ignored.

use super::contract;
use super::failure::{Checked, Stop, failed};
use super::run::Run;
use crate::kv::{GuestError, KvError};

pub(super) fn unknown_settings_are_refused(run: &Run<'_>) -> Checked {
    for name in ["conformance_no_such_setting", "Conformance No-Such.Setting"] {
        is_refused(run, name, "1")?;
    }
    // A known name in another spelling is another name.
    for (name, value) in &run.trials().config().settings {
        let other = format!("{name}_");
        is_refused(run, &other, value)?;
    }
    Ok(())
}

pub(super) fn malformed_settings_are_refused(run: &Run<'_>) -> Checked {
    let malformed = run.suite().malformed_settings();
    if malformed.is_empty() {
        return Err(Stop::Skip("no malformed setting was given to try".to_owned()));
    }
    malformed.iter().try_for_each(|(name, value)| {
        let refusal = is_refused(run, name, value)?;
        // Whatever the value is, a name that isn't known is refused, and nothing was tried.
        let other = format!("{name}_no_such_setting");
        let of_unknown = is_refused(run, &other, value).ok();
        if of_unknown.is_some_and(|of_unknown| of_unknown.replace(&other, name) == refusal) {
            run.note(format!("{name:?} is refused in the same words as a setting that there isn't; is that its name?"));
        }
        Ok(())
    })
}

/// That `open` refuses this setting, beside those that are configured, and says which. Answers what it says.
fn is_refused(run: &Run<'_>, name: &str, value: &str) -> Checked<String> {
    let mut settings = run.trials().config().settings.clone();
    settings.retain(|(other, _)| other != name);
    settings.push((name.to_owned(), value.to_owned()));
    let expected = format!("open with the setting {name:?} = {value:?}: the error invalid-argument, which names it");
    match run.trials().with_settings(settings).open(0) {
        Err(KvError::Refused(GuestError::InvalidArgument(text))) if text.contains(name) => Ok(text),
        Err(error) => failed(contract::SETTINGS, expected, error.to_string()),
        Ok(_) => failed(contract::SETTINGS, expected, "no error: it is open"),
    }
}
