//! A MongoDB connection string that doesn't give its secrets away.

use std::fmt;

/// Options of a connection string whose values are, or may contain, secrets; compared without regard to case.
const SECRET_OPTIONS: [&str; 2] = ["tlscertificatekeyfilepassword", "authmechanismproperties"];

/// A connection string, `mongodb://…` or `mongodb+srv://…`. `Debug` and `Display` show it without passwords;
/// only [`MongoUri::expose`] gives the whole of it. That the rest of it makes sense is for the driver to say.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoUri(String);

impl MongoUri {
    /// Checks the scheme, and that a host follows. The reason for a refusal never quotes the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (_, rest) = split_scheme(text).ok_or("must start with mongodb:// or mongodb+srv://")?;
        let hosts = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
        if hosts.is_empty() || hosts.starts_with(['/', '?']) {
            return Err("names no host after the scheme");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("contains white space; percent-encode it in a password");
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole connection string, secrets included: for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The connection string with `***` for the password and for the values of options that may hold secrets.
    pub fn redacted(&self) -> String {
        let (scheme, rest) = split_scheme(&self.0).unwrap_or(("", &self.0));
        // Up to the last `@`, so that a password with a forgotten percent-encoding is covered too.
        let (user, rest) = match rest.rsplit_once('@') {
            None => (String::new(), rest),
            Some((user, rest)) => match user.split_once(':') {
                None => (format!("{user}@"), rest),
                Some((name, _)) => (format!("{name}:***@"), rest),
            },
        };
        let (hosts, options) = rest.split_once('?').map_or((rest, None), |(hosts, options)| (hosts, Some(options)));
        let mut shown = format!("{scheme}{user}{hosts}");
        for (index, option) in options.into_iter().flat_map(|options| options.split('&')).enumerate() {
            shown.push(if index == 0 { '?' } else { '&' });
            match option.split_once('=') {
                Some((name, _)) if SECRET_OPTIONS.contains(&name.to_ascii_lowercase().as_str()) => {
                    shown.push_str(name);
                    shown.push_str("=***");
                }
                _ => shown.push_str(option),
            }
        }
        shown
    }
}

impl fmt::Display for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.redacted(), f)
    }
}

fn split_scheme(text: &str) -> Option<(&'static str, &str)> {
    ["mongodb://", "mongodb+srv://"].into_iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let cases = [
            ("mongodb://h:27017/?replicaSet=rs0", "mongodb://h:27017/?replicaSet=rs0"),
            ("mongodb://u:s3cret@h1,h2/db", "mongodb://u:***@h1,h2/db"),
            ("mongodb+srv://u:s3cret@h/?w=majority", "mongodb+srv://u:***@h/?w=majority"),
            ("mongodb://u@h", "mongodb://u@h"),
            ("mongodb://u:s3cret@s3cret?s3cret/@h", "mongodb://u:***@h"),
            (
                "mongodb://h/?tlsCertificateKeyFilePassword=s3cret&w=1&authMechanismProperties=TOKEN:s3cret",
                "mongodb://h/?tlsCertificateKeyFilePassword=***&w=1&authMechanismProperties=***",
            ),
        ];
        for (text, redacted) in cases {
            let uri = MongoUri::parse(text).unwrap();
            assert_eq!(uri.redacted(), redacted);
            assert_eq!(uri.expose(), text);
            assert!(!format!("{uri} {uri:?} {uri:#?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_connection_string_is_refused_without_quoting_it() {
        for text in ["", "localhost", "http://u:s3cret@h", "mongodb://", "mongodb://u:s3cret@", "mongodb://?a=b"] {
            assert!(!MongoUri::parse(text).unwrap_err().contains("s3cret"), "{text}");
        }
        assert!(MongoUri::parse("mongodb://u:pass word@h").unwrap_err().contains("white space"));
    }
}
