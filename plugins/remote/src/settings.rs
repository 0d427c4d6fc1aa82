//! The settings, read and checked.

use std::fmt;
use std::time::Duration;

use memcell_plugin::{Error, Result, Settings, required};

use crate::address::Address;
use crate::tls::Tls;

/// Below the deadline that a host gives a call (`limits.call_timeout`, 2 s unless configured), so that a slow server is told
/// apart from a hung plugin.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(1500);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const DEFAULT_KEY_PREFIX: &str = "memcell:";

/// Redis is built with up to this many databases at the most.
const MAX_DATABASE: i64 = i32::MAX as i64;
const MAX_KEY_PREFIX_BYTES: usize = 256;

/// What the operator configured.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) addresses: Vec<Address>,
    pub(crate) cluster: ClusterMode,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
    pub(crate) key_prefix: String,
    pub(crate) connect_timeout: Duration,
    /// Of one call of the plugin, however many round trips it takes.
    pub(crate) timeout: Duration,
    pub(crate) persistent: bool,
    pub(crate) tls: Option<Tls>,
}

/// Whether the servers form a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterMode {
    Yes,
    No,
    /// The server is asked.
    Auto,
}

impl Config {
    /// Reads all settings, and refuses those that nobody knows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names the setting.
    pub(crate) fn read(settings: &mut Settings) -> Result<Self> {
        Self::read_with(settings, |name| std::env::var(name).ok())
    }

    fn read_with(settings: &mut Settings, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let addresses = settings.string("address");
        let cluster = settings.choice(
            "cluster",
            &[("true", ClusterMode::Yes), ("false", ClusterMode::No), ("auto", ClusterMode::Auto)],
        )?;
        let username = settings.string("username").filter(|name| !name.is_empty());
        let password = secret(settings, "password", "password_env", &environment)?;
        let database = settings.integer("database", 0..=MAX_DATABASE)?.unwrap_or(0);
        let key_prefix = settings.string("key_prefix").unwrap_or_else(|| DEFAULT_KEY_PREFIX.to_owned());
        let connect_timeout = timeout(settings, "connect_timeout", DEFAULT_CONNECT_TIMEOUT)?;
        let timeout = timeout(settings, "timeout", DEFAULT_TIMEOUT)?;
        let persistent = settings.boolean("persistent")?.unwrap_or(true);
        let tls = Tls::read(settings, &environment)?;
        settings.finish()?;

        let config = Self {
            addresses: Address::parse_list("address", &required("address", addresses)?)?,
            cluster: cluster.unwrap_or(ClusterMode::Auto),
            username,
            password,
            database: u32::try_from(database).unwrap_or(0),
            key_prefix,
            connect_timeout: connect_timeout.min(timeout),
            timeout,
            persistent,
            tls,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::invalid_argument(text));
        if self.username.is_some() && self.password.is_none() {
            return refuse("the setting \"username\" needs \"password_env\" or \"password\" beside it".into());
        }
        if self.cluster == ClusterMode::Yes && self.database != 0 {
            return refuse(format!("the setting \"database\" is {}, but a cluster has only database 0", self.database));
        }
        if self.cluster == ClusterMode::No && self.addresses.len() > 1 {
            return refuse("the setting \"address\" lists several servers, which only a cluster has".into());
        }
        if self.key_prefix.len() > MAX_KEY_PREFIX_BYTES {
            let given = self.key_prefix.len();
            return refuse(format!(
                "the setting \"key_prefix\" has {given} bytes; at most {MAX_KEY_PREFIX_BYTES} are taken"
            ));
        }
        if self.key_prefix.contains(['{', '}']) {
            // The braces would make a hash tag, which puts all keys into one slot and so on one node.
            return refuse("the setting \"key_prefix\" must not contain { or }".into());
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("addresses", &self.addresses)
            .field("cluster", &self.cluster)
            .field("username", &self.username)
            .field("database", &self.database)
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

fn timeout(settings: &mut Settings, name: &'static str, default: Duration) -> Result<Duration> {
    let timeout = settings.duration(name)?.unwrap_or(default);
    if timeout.is_zero() {
        return Err(Error::invalid_argument(format!("the setting {name:?} is 0; it must be longer")));
    }
    Ok(timeout)
}

/// What must not be read by everybody: in the configuration under one name, or in the environment variable that another names.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is given twice, or the variable isn't there.
pub(crate) fn secret(
    settings: &mut Settings,
    in_configuration: &'static str,
    in_environment: &'static str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>> {
    match (settings.string(in_configuration), settings.string(in_environment)) {
        (Some(_), Some(_)) => Err(Error::invalid_argument(format!(
            "only one of the settings {in_configuration:?} and {in_environment:?} can be given"
        ))),
        (given, None) => Ok(given),
        (None, Some(variable)) => match environment(&variable) {
            Some(text) => Ok(Some(text)),
            None => Err(Error::invalid_argument(format!(
                "the setting {in_environment:?} names the variable {variable:?}, which is not there: set it for the host, and \
                 list it in grants.environment"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config> {
        let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::read_with(&mut Settings::new(pairs)?, |name| (name == "SECRET").then(|| "s3cret".to_owned()))
    }

    fn refused(pairs: &[(&str, &str)], mentions: &str) {
        match read(pairs) {
            Err(Error::InvalidArgument(text)) => {
                assert!(text.contains(mentions), "{text}");
                assert!(!text.contains("s3cret"), "{text}");
            }
            other => panic!("{pairs:?}: {other:?}"),
        }
    }

    #[test]
    fn an_address_is_enough() {
        let config = read(&[("address", "h:6379")]).unwrap();
        assert_eq!(config.cluster, ClusterMode::Auto);
        assert_eq!((config.key_prefix.as_str(), config.database, config.persistent), ("memcell:", 0, true));
        assert!(config.password.is_none());
    }

    #[test]
    fn all_of_them() {
        let config = read(&[
            ("address", "a:1,b:2"),
            ("cluster", "true"),
            ("username", "memcell"),
            ("password_env", "SECRET"),
            ("database", "0"),
            ("key_prefix", ""),
            ("connect_timeout", "5s"),
            ("timeout", "1s"),
            ("persistent", "false"),
        ])
        .unwrap();
        assert_eq!(config.password.as_deref(), Some("s3cret"));
        assert_eq!(config.connect_timeout, Duration::from_secs(1), "within the timeout of the call");
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let address = ("address", "h:6379");
        refused(&[], "\"address\" is missing");
        refused(&[("address", "h")], "\"address\"");
        refused(&[address, ("adress", "h:1")], "unknown setting \"adress\"");
        refused(&[address, ("cluster", "yes")], "\"cluster\"");
        refused(&[address, ("username", "u")], "\"username\"");
        refused(&[address, ("password", "s3cret"), ("password_env", "SECRET")], "\"password_env\"");
        refused(&[address, ("password_env", "OTHER")], "grants.environment");
        refused(&[address, ("database", "-1")], "\"database\"");
        refused(&[address, ("database", "1"), ("cluster", "true")], "\"database\"");
        refused(&[("address", "a:1,b:1"), ("cluster", "false")], "\"address\"");
        refused(&[address, ("timeout", "0s")], "\"timeout\"");
        refused(&[address, ("connect_timeout", "5")], "\"connect_timeout\"");
        refused(&[address, ("key_prefix", "{a}")], "\"key_prefix\"");
        refused(&[address, ("key_prefix", &"x".repeat(257))], "\"key_prefix\"");
        refused(&[address, ("persistent", "maybe")], "\"persistent\"");
        refused(&[address, ("tls", "sure")], "\"tls\"");
    }
}
