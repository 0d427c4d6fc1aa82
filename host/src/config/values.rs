//! From one TOML value to one checked value, or to the text that says what was expected instead.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::reader::{describe, quote};
use super::units::{parse_bytes, parse_duration, show_bytes, show_duration};
use super::{Destination, MongoUri, OciName, OciPlugin, PluginSource, RegistryConfig, registry};
use crate::hex;

type Parsed<T> = Result<T, String>;

/// A duration within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Parsed<Duration> {
    const FORM: &str =
        "a duration in quotes: a whole number and its unit, ms, s, m, h or d, such as \"250ms\" or \"5m\"";
    move |value| quantity(value, FORM, &range, parse_duration, show_duration)
}

/// A number of bytes within `range`.
pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Parsed<u64> {
    const FORM: &str =
        "a size in quotes: a whole number and its unit, B, kB, KiB, MB, MiB, GB, GiB, TB or TiB, such as \"64MiB\"";
    move |value| quantity(value, FORM, &range, parse_bytes, show_bytes)
}

/// A number of bytes within `range`, which is one of small numbers.
pub(super) fn small_bytes<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let number = bytes(range.clone())(value)?;
        T::try_from(number).map_err(|_| format!("is too large: {}", describe(value)))
    }
}

fn quantity<T: PartialOrd + Copy>(
    value: &DeValue<'_>,
    form: &str,
    range: &RangeInclusive<T>,
    parse: fn(&str) -> Option<T>,
    show: fn(T) -> String,
) -> Parsed<T> {
    if matches!(value, DeValue::Integer(_) | DeValue::Float(_)) {
        return Err(format!("needs a unit: write {form}; found {}", describe(value)));
    }
    let quantity =
        value.as_str().and_then(parse).ok_or_else(|| format!("must be {form}; found {}", describe(value)))?;
    if range.contains(&quantity) {
        return Ok(quantity);
    }
    let (low, high) = (show(*range.start()), show(*range.end()));
    Err(format!("must be between {low} and {high}, found {}", describe(value)))
}

/// A whole number within `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Parsed<T>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value| {
        let DeValue::Integer(_) = value else {
            return Err(format!("must be a whole number (without quotes), found {}", describe(value)));
        };
        let number = to_i64(value).and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
        number
            .ok_or_else(|| format!("must be between {} and {}, found {}", range.start(), range.end(), describe(value)))
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| format!("must be true or false (without quotes), found {}", describe(value)))
}

/// A share from 0 to 1.
pub(super) fn ratio(value: &DeValue<'_>) -> Parsed<f64> {
    let number = to_f64(value).filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("must be a number from 0 to 1, such as 0.25, found {}", describe(value)))
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let chosen = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        chosen.map(|(_, chosen)| *chosen).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
            format!("must be {}, found {}", words.join(" or "), describe(value))
        })
    }
}

/// Any text.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Parsed<&'v str> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, found {}", describe(value)))
}

/// A path, taken from `folder` unless it is absolute.
pub(super) fn path(folder: &Path) -> impl Fn(&DeValue<'_>) -> Parsed<PathBuf> {
    move |value| match text(value)? {
        "" => Err("must be a path, found an empty text".to_owned()),
        home if home == "~" || home.starts_with("~/") => {
            Err(format!("must be the whole path: ~ means nothing here, found {}", quote(home)))
        }
        // A component-wise rebuild drops the `./` in the middle that joining would leave.
        path => Ok(folder.join(path).components().collect()),
    }
}

/// The path of a component, or a reference to one in a registry.
pub(super) fn plugin(folder: &Path, registries: &[RegistryConfig]) -> impl Fn(&DeValue<'_>) -> Parsed<PluginSource> {
    move |value| {
        let written = text(value)?;
        if OciName::is_meant_by(written) {
            let reference = OciName::parse(written)?.pinned()?;
            let registry = registry::named(registries, &reference.registry);
            return Ok(PluginSource::Oci(Box::new(OciPlugin { reference, registry })));
        }
        match written.split_once("://") {
            Some(_) => Err(format!("must be a path, or a reference that begins with oci://, found {}", quote(written))),
            None => path(folder)(value).map(PluginSource::File),
        }
    }
}

/// An IP address and a port.
pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        let example = "such as \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\"";
        format!("must be an IP address and a port, {example}, found {}", quote(text))
    })
}

/// The URL of a service. A refusal doesn't quote it: there may be a password in it.
pub(super) fn http_url(value: &DeValue<'_>) -> Parsed<String> {
    const FORM: &str =
        "must be a URL that begins with http:// or https://, such as \"http://127.0.0.1:4318/v1/traces\"";
    let text = value.as_str().ok_or(FORM)?;
    let url = reqwest::Url::parse(text).map_err(|error| format!("{FORM}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(FORM.to_owned());
    }
    Ok(text.to_owned())
}

/// A TCP endpoint, `host:port`.
pub(super) fn destination(value: &DeValue<'_>) -> Parsed<Destination> {
    Destination::parse(text(value)?)
}

/// The name of an environment variable.
pub(super) fn variable_name(value: &DeValue<'_>) -> Parsed<String> {
    let name = text(value)?;
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("must be the name of an environment variable, found {}", quote(name)));
    }
    Ok(name.to_owned())
}

/// An array of at most `most` different values.
pub(super) fn list<T: PartialEq>(
    most: usize,
    parse: impl Fn(&DeValue<'_>) -> Parsed<T>,
) -> impl Fn(&DeValue<'_>) -> Parsed<Vec<T>> {
    move |value| {
        let items = value
            .as_array()
            .ok_or_else(|| format!("must be an array, such as [{}], found {}", describe(value), describe(value)))?;
        if items.len() > most {
            return Err(format!("must have {most} values at the most, found {}", items.len()));
        }
        let mut parsed: Vec<T> = Vec::with_capacity(items.len());
        for (item, place) in items.iter().zip(1..) {
            let one = parse(item.get_ref()).map_err(|reason| format!("value {place} {reason}"))?;
            if parsed.contains(&one) {
                return Err(format!("has value {place} twice, {}", describe(item.get_ref())));
            }
            parsed.push(one);
        }
        Ok(parsed)
    }
}

/// The SHA-256 digest of a file.
pub(super) fn digest(value: &DeValue<'_>) -> Parsed<[u8; 32]> {
    hex::sha256(text(value)?)
        .ok_or_else(|| format!("must be 64 hexadecimal digits, as sha256sum prints them, found {}", describe(value)))
}

/// What `mongodb.uri` says: `None` for `embedded`. The refusal never quotes the text, which may hold a password.
pub(super) fn mongodb_uri(text: &str) -> Parsed<Option<MongoUri>> {
    if text == "embedded" {
        return Ok(None);
    }
    MongoUri::parse(text).map(Some).map_err(|reason| format!("{reason}; or write \"embedded\" for a private server"))
}

/// A name that MongoDB takes for a database.
pub(super) fn database_name(value: &DeValue<'_>) -> Parsed<String> {
    let name = text(value)?;
    if name.is_empty()
        || name.len() > 63
        || name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'])
    {
        return Err(format!("must be 1 to 63 bytes without /\\. \"$*<>:|? and blanks, found {}", quote(name)));
    }
    if matches!(name, "admin" | "config" | "local") {
        return Err(format!("must not be {name}, which MongoDB keeps for itself"));
    }
    Ok(name.to_owned())
}

/// A name that MongoDB takes for a collection.
pub(super) fn collection_name(value: &DeValue<'_>) -> Parsed<String> {
    let name = text(value)?;
    let outer_dot = name.starts_with('.') || name.ends_with('.');
    // 255 bytes are for `database.collection`, and the database's name can take 63 of them and a dot.
    if name.is_empty() || name.len() > 191 || name.contains(['$', '\0']) || outer_dot || name.starts_with("system.") {
        let rule = "must be 1 to 191 bytes without $, not begin with \"system.\", and not begin or end with a dot";
        return Err(format!("{rule}, found {}", quote(name)));
    }
    Ok(name.to_owned())
}

/// Log directives, such as `info` or `warn,memcell_host=debug`.
pub(super) fn log_level(value: &DeValue<'_>) -> Parsed<String> {
    const FORM: &str = "off, error, warn, info, debug or trace, or such as \"warn,memcell_host=debug\"";
    let directives = text(value)?;
    if directives.trim().is_empty() {
        return Err(format!("must be {FORM}, found {}", quote(directives)));
    }
    // The filter takes a lone word that is no level for the name of a module, so that "warning" would silence
    // everything.
    let lone = directives.split(',').map(str::trim).filter(|one| !one.is_empty() && !one.contains(['=', '[', ':']));
    if let Some(word) = lone.into_iter().find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(format!("{} is no level: write {FORM}", quote(word)));
    }
    EnvFilter::builder().parse(directives).map_err(|error| format!("must be {FORM}: {error}"))?;
    Ok(directives.to_owned())
}

/// A setting of a plugin, as the text it is handed over as.
pub(super) fn setting(value: &DeValue<'_>) -> Parsed<String> {
    let kind = match value {
        DeValue::String(text) => return Ok(text.clone().into_owned()),
        DeValue::Boolean(boolean) => return Ok(boolean.to_string()),
        DeValue::Integer(_) => {
            return to_i64(value)
                .map(|number| number.to_string())
                .ok_or_else(|| format!("must fit into 64 bits, found {}; put it in quotes", describe(value)));
        }
        DeValue::Float(_) => {
            return to_f64(value)
                .filter(|number| number.is_finite())
                .map(|number| number.to_string())
                .ok_or_else(|| format!("must be a finite number, found {}; put it in quotes", describe(value)));
        }
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Err(format!("must be a text, a number, true or false, found {kind}; put it in quotes"))
}

fn to_i64(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn to_f64(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
        _ => None,
    }
}
