//! What the environment says in place of the file: any key has a variable, `MEMCELL_` and its dotted path in capitals, with
//! `_` for what a variable's name can't hold, such as `MEMCELL_BACKENDS_LOCAL_QUEUE_BYTES`.

use std::collections::BTreeMap;

/// What the names of all variables begin with.
const PREFIX: &str = "MEMCELL_";

/// Variables that override keys.
#[derive(Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    /// Whether files and variables with secrets are left alone, and taken for good.
    #[cfg(test)]
    without_secrets: bool,
}

impl Environment {
    /// That of this process. A variable that is set but empty counts as unset.
    pub(super) fn of_process() -> Self {
        // A value that isn't Unicode is kept in a readable form, so that it is reported as wrong rather than ignored.
        let readable = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self::new(readable)
    }

    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
        Self {
            variables: variables.into_iter().filter(ours).collect(),
            #[cfg(test)]
            without_secrets: false,
        }
    }

    /// The variable of a key and its value, if it is set.
    pub(super) fn of_key(&self, key: &str) -> Option<(&str, &str)> {
        let (name, value) = self.variables.get_key_value(&variable_of(key))?;
        Some((name, value))
    }

    /// Of a test that has no secrets to read.
    #[cfg(test)]
    pub(super) fn without_secrets() -> Self {
        Self { without_secrets: true, ..Self::default() }
    }

    pub(super) fn reads_secrets(&self) -> bool {
        #[cfg(test)]
        return !self.without_secrets;
        #[cfg(not(test))]
        true
    }

    /// The variables that begin like one of a key in one of these tables, and are none of these keys'.
    pub(super) fn unknown<'e>(&'e self, tables: &[&str], keys: &[&str]) -> impl Iterator<Item = &'e str> {
        let tables: Vec<String> = tables.iter().map(|table| format!("{}_", variable_of(table))).collect();
        let known: Vec<String> = keys.iter().map(|key| variable_of(key)).collect();
        let names = self.variables.keys().map(String::as_str);
        names.filter(move |name| {
            tables.iter().any(|table| name.starts_with(table)) && !known.iter().any(|known| known == name)
        })
    }
}

/// The name of the variable that overrides a key, given by its dotted path.
pub(super) fn variable_of(key: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(key.chars().map(letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_variable() {
        assert_eq!(variable_of("mongodb.uri"), "MEMCELL_MONGODB_URI");
        assert_eq!(variable_of("backends.my-redis.queue.bytes"), "MEMCELL_BACKENDS_MY_REDIS_QUEUE_BYTES");
    }

    #[test]
    fn only_what_looks_like_a_key_can_be_unknown() {
        let names =
            ["MEMCELL_HTTP_LISTN", "MEMCELL_HTTP_LISTEN", "MEMCELL_LOG", "MEMCELL_TOKEN", "HTTP_X", "MEMCELL_HTTP_"];
        let environment = Environment::new(names.map(|name| (name.to_owned(), "x".to_owned())));
        let unknown: Vec<&str> = environment.unknown(&["http", "log"], &["http.listen", "log.level"]).collect();
        assert_eq!(unknown, ["MEMCELL_HTTP_", "MEMCELL_HTTP_LISTN"]);
        assert_eq!(environment.of_key("http.listen"), Some(("MEMCELL_HTTP_LISTEN", "x")));
    }
}
