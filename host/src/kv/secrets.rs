//! Secrets that a plugin was given, kept out of what it says: it may quote a setting that it doesn't like.

use std::sync::Arc;

use super::GuestError;
use crate::config::{BackendConfig, REDACTED};

/// A shorter value is no secret, and its characters would be missing from all sorts of texts.
const MIN_BYTES: usize = 4;

/// So many characters of the beginning, or of the end, give a longer secret away: texts are cut off, by plugins and by the host.
const TELLING: usize = 16;

/// What a backend's settings hold that may be secret, in the forms in which it may be quoted. All clones are one.
#[derive(Clone)]
pub(super) struct Secrets(Arc<[String]>);

impl Secrets {
    pub(super) fn of(config: &BackendConfig) -> Self {
        let mut forms: Vec<String> = config.secret_settings().flat_map(forms_of).collect();
        forms.retain(|form| form.len() >= MIN_BYTES);
        // Of two that begin alike, nothing of the longer one may be left.
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self(forms.into())
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(Arc::default())
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| without(&text, form))
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

/// A value as it is, as it stands within quotes, and, if it has several lines, each of them, which may be printed one by one.
fn forms_of(value: &str) -> impl Iterator<Item = String> {
    let quoted = format!("{value:?}");
    let quoted = quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned();
    let json = serde_json::Value::from(value).to_string();
    let json = json.get(1..json.len() - 1).unwrap_or_default().to_owned();
    let lines = value.lines().map(|line| line.trim().to_owned());
    [value.to_owned(), value.trim().to_owned(), quoted, json].into_iter().chain(lines)
}

/// A text without a secret, and without what was cut off of it.
fn without(text: &str, secret: &str) -> String {
    let telling = secret.char_indices().nth(TELLING).map_or(secret.len(), |(at, _)| at);
    let (lead, more) = secret.split_at(telling);
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    // A text that was cut off in front may begin in the middle of it.
    let ends = secret.char_indices().skip(1).map(|(at, _)| secret.get(at..).unwrap_or_default());
    let telling_ends = secret.chars().count().saturating_sub(TELLING);
    if let Some(end) = ends.take(telling_ends).find(|end| text.starts_with(end)) {
        hidden.push_str(REDACTED);
        rest = text.get(end.len()..).unwrap_or_default();
    }
    while let Some((before, found)) = rest.split_once(lead) {
        hidden.push_str(before);
        hidden.push_str(REDACTED);
        let same: usize = found.chars().zip(more.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        rest = found.get(same..).unwrap_or_default();
    }
    hidden.push_str(rest);
    hidden
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

    #[test]
    fn a_secret_is_hidden_in_whatever_form_it_is_quoted() {
        let long: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
        let key = "-----BEGIN KEY-----\nhunter2+hunter2\n\"x\\y\"\n";
        let mut config = BackendConfig::new("local", "x.wasm".into());
        config.settings = vec![("long".to_owned(), long.clone()), ("key".to_owned(), key.to_owned())];
        config.secrets = ["long".to_owned()].into();
        let secrets = Secrets::of(&config);
        assert_eq!(secrets.hide(&format!("{:?} is none", &long[..40])), "\"***\" is none");
        assert_eq!(secrets.hide(&format!("{} and so on", &long[30..])), "*** and so on");
        assert_eq!(secrets.hide(&format!("{}_", &long[..15])), "abcdefghijklmno_");
        assert_eq!(secrets.hide(&format!("{key:?}")), "\"***\"");
        assert_eq!(secrets.hide(&format!("{:?}", key.trim())), "\"***\"");
        assert_eq!(secrets.hide("line hunter2+hunter2, then \"x\\y\""), "line ***, then ***");
    }
}
