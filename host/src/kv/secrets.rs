//! Secrets that a plugin was given, kept out of what it says: it may quote a setting that it doesn't like.

use std::sync::Arc;

use super::GuestError;
use crate::config::{BackendConfig, REDACTED};

/// A shorter value is no secret, and its characters would be missing from all sorts of texts.
const MIN_BYTES: usize = 4;

/// The values of a backend's settings that may be secrets. All clones are one.
#[derive(Clone)]
pub(super) struct Secrets(Arc<[String]>);

impl Secrets {
    pub(super) fn of(config: &BackendConfig) -> Self {
        let mut values: Vec<String> =
            config.secret_settings().filter(|value| value.len() >= MIN_BYTES).map(str::to_owned).collect();
        // Of two that begin alike, nothing of the longer one may be left.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values.into())
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(Arc::default())
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), REDACTED))
    }

    /// The same error without them.
    pub(super) fn hide_in(&self, error: GuestError) -> GuestError {
        match error {
            GuestError::InvalidArgument(text) => GuestError::InvalidArgument(self.hide(&text)),
            GuestError::TooLarge(text) => GuestError::TooLarge(self.hide(&text)),
            GuestError::Unavailable(text) => GuestError::Unavailable(self.hide(&text)),
            GuestError::Timeout => GuestError::Timeout,
            GuestError::QuotaExceeded(text) => GuestError::QuotaExceeded(self.hide(&text)),
            GuestError::Corrupt(text) => GuestError::Corrupt(self.hide(&text)),
            GuestError::Unsupported(text) => GuestError::Unsupported(self.hide(&text)),
            GuestError::Other(text) => GuestError::Other(self.hide(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_in_a_text() {
        let mut config = BackendConfig::new("local", "x.wasm".into());
        let settings = [
            ("address", "redis://:hunter2@h:1"),
            ("a_key", "abcd"),
            ("b_key", "abcdef"),
            ("pin_key", "1"),
            ("n", "plain"),
        ];
        config.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        config.secrets = ["n".to_owned()].into();
        let secrets = Secrets::of(&config);
        let said = "\"redis://:hunter2@h:1\" is no address, abcdef1 is no key, plain abcd is another";
        assert_eq!(secrets.hide(said), "\"***\" is no address, ***1 is no key, *** *** is another");
        let GuestError::Other(text) = secrets.hide_in(GuestError::Other("abcd".into())) else { panic!() };
        assert_eq!(text, REDACTED);
    }
}
