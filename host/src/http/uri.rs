//! Reading URIs strictly: what is malformed, and a query parameter that is unknown or repeated, is refused, never
//! ignored.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bson::DateTime;

use super::error::{Answer, ApiError};
use crate::memcell::parse_border;

/// The parameters of one request.
pub(super) struct QueryString {
    pairs: Vec<(String, String)>,
    /// Every name that was looked for, whether or not it is there: these are the known ones.
    known: Vec<&'static str>,
}

impl QueryString {
    /// Decodes `name=value&…`.
    ///
    /// # Errors
    /// `malformed_uri` if an escape is no `%` and two hexadecimal digits, or the bytes aren't UTF-8.
    pub(super) fn parse(query: &str) -> Answer<Self> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode_plus(name)?, decode_plus(value)?))
        });
        Ok(Self { pairs: pairs.collect::<Answer<_>>()?, known: Vec::new() })
    }

    /// The value of a parameter that can be given once.
    ///
    /// # Errors
    /// If it is there more than once.
    pub(super) fn one(&mut self, name: &'static str) -> Answer<Option<&str>> {
        self.known.push(name);
        let mut values = self.pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
        let value = values.next();
        match values.next() {
            Some(_) => Err(ApiError::invalid_argument(format!("the parameter {name} can be given only once"))),
            None => Ok(value),
        }
    }

    /// The values of a parameter that can be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }

    /// A parameter as a text.
    ///
    /// # Errors
    /// If it is there more than once.
    pub(super) fn text(&mut self, name: &'static str) -> Answer<Option<String>> {
        Ok(self.one(name)?.map(str::to_owned))
    }

    /// A parameter that is one of a few words.
    ///
    /// # Errors
    /// If it is another word, or there more than once.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Answer<Option<T>> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
            return Ok(Some(*meaning));
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(ApiError::invalid_argument(format!("{name} must be {}, found {}", words.join(" or "), shown(value))))
    }

    /// A parameter that is `true` or `false`.
    ///
    /// # Errors
    /// If it is anything else, or there more than once.
    pub(super) fn flag(&mut self, name: &'static str) -> Answer<Option<bool>> {
        self.word(name, &[("true", true), ("false", false)])
    }

    /// A parameter that is a whole number, 0 or more.
    ///
    /// # Errors
    /// If it is anything else, or there more than once.
    pub(super) fn count(&mut self, name: &'static str) -> Answer<Option<u64>> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        // `str::parse` would take a leading plus sign, which no other part of the API does.
        match value.parse() {
            Ok(number) if value.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(number)),
            _ => Err(ApiError::invalid_argument(format!(
                "{name} must be a whole number, 0 or more, found {}",
                shown(value)
            ))),
        }
    }

    /// A parameter that is an ISO 8601 date and time, UTC if it has no offset, as the border of a range.
    ///
    /// # Errors
    /// If it is anything else, or there more than once.
    pub(super) fn border(&mut self, name: &'static str) -> Answer<Option<DateTime>> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        parse_border(value).map(Some).ok_or_else(|| {
            // A bare `+` in a query is a space. Guessing what was meant would hide the mistake in other clients' code.
            let with_plus = value.rsplit_once(' ').map(|(moment, offset)| format!("{moment}+{offset}"));
            let hint = match with_plus.as_deref().and_then(parse_border) {
                Some(_) => ": the + of an offset must be written as %2B in a query",
                None => " such as 2025-06-26T00:03:30Z",
            };
            ApiError::invalid_argument(format!(
                "{name} must be an ISO 8601 date and time{hint}, found {}",
                shown(value)
            ))
        })
    }

    /// Refuses what nobody has looked for.
    ///
    /// # Errors
    /// `unknown_parameter`, with a list of the known ones.
    pub(super) fn finish(self) -> Answer<()> {
        let Some((unknown, _)) = self.pairs.iter().find(|(name, _)| !self.known.contains(&name.as_str())) else {
            return Ok(());
        };
        let known = match self.known.as_slice() {
            [] => "this route takes none".to_owned(),
            known => format!("known here: {}", known.join(", ")),
        };
        let detail = format!("there is no parameter {}; {known}", shown(unknown));
        Err(ApiError::new(StatusCode::BAD_REQUEST, "unknown_parameter", detail))
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> &[&'static str] {
        &self.known
    }
}

/// A set of parameters that a route takes.
pub(super) trait FromQuery: Sized {
    /// Takes its parameters. Every one is looked for in every call, for that is what makes them known.
    fn read(query: &mut QueryString) -> Answer<Self>;
}

impl<A: FromQuery, B: FromQuery> FromQuery for (A, B) {
    fn read(query: &mut QueryString) -> Answer<Self> {
        // An error of the first must not keep the parameters of the second from becoming known.
        let (first, second) = (A::read(query), B::read(query));
        Ok((first?, second?))
    }
}

/// No parameters at all.
pub(super) struct NoParameters;

impl FromQuery for NoParameters {
    fn read(_query: &mut QueryString) -> Answer<Self> {
        Ok(Self)
    }
}

/// Extracts the parameters of a route and refuses all others.
pub(super) struct Parameters<P>(pub(super) P);

impl<S: Sync, P: FromQuery> FromRequestParts<S> for Parameters<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Answer<Self> {
        let mut query = QueryString::parse(parts.uri.query().unwrap_or_default())?;
        let parameters = P::read(&mut query);
        // An unknown parameter is often a misspelt one, and then it explains what is wrong with the others.
        query.finish()?;
        parameters.map(Self)
    }
}

/// Extracts the variable segment of a route's path, decoded.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        segment.map(|Path(text)| Self(text)).map_err(|rejection| ApiError::malformed_uri(rejection.body_text()))
    }
}

/// Extracts the two variable segments of a route's path, decoded.
pub(super) struct Segments(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let segments = Path::<(String, String)>::from_request_parts(parts, state).await;
        let segments = segments.map(|Path((first, second))| Self(first, second));
        segments.map_err(|rejection| ApiError::malformed_uri(rejection.body_text()))
    }
}

/// Decodes percent-escapes.
///
/// # Errors
/// `malformed_uri`; see [`QueryString::parse`].
pub(super) fn decode(text: &str) -> Answer<Cow<'_, str>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let escaped = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        let malformed = || ApiError::malformed_uri(format!("{} has a % without two hexadecimal digits", shown(text)));
        bytes.push(escaped.ok_or_else(malformed)?);
    }
    match String::from_utf8(bytes) {
        Ok(decoded) => Ok(Cow::Owned(decoded)),
        Err(_) => Err(ApiError::malformed_uri(format!("{} is not utf-8 when decoded", shown(text)))),
    }
}

fn decode_plus(text: &str) -> Answer<String> {
    decode(&text.replace('+', " ")).map(Cow::into_owned)
}

/// What a client sent, quoted and shortened for an error message.
pub(super) fn shown(text: &str) -> String {
    const MOST_CHARS: usize = 64;
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> QueryString {
        QueryString::parse(query).unwrap()
    }

    #[test]
    fn values_are_decoded() {
        let mut query = parse("user_id=a%26b+c%2B%C3%A9&empty=&bare&p=1&p=2");
        assert_eq!(query.one("user_id").unwrap(), Some("a&b c+é"));
        assert_eq!(query.one("empty").unwrap(), Some(""));
        assert_eq!(query.one("bare").unwrap(), Some(""));
        assert_eq!(query.one("absent").unwrap(), None);
        assert_eq!(query.all("p"), ["1", "2"]);
        query.finish().unwrap();
    }

    #[test]
    fn broken_escapes_are_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "a=%+1", "%ff=1", "a=%c3", "a=%ed%a0%80"] {
            let error = QueryString::parse(query).err().unwrap();
            assert_eq!((error.status().as_u16(), error.code()), (400, "malformed_uri"), "{query}");
        }
    }

    #[test]
    fn what_can_be_given_once_is_refused_twice() {
        let error = parse("limit=1&limit=1").count("limit").unwrap_err();
        assert_eq!(error.code(), "invalid_argument");
    }

    #[test]
    fn unknown_parameters_are_refused_with_the_known_ones() {
        let mut query = parse("limit=1&limt=2");
        query.count("limit").unwrap();
        query.count("skip").unwrap();
        let error = query.finish().unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (400, "unknown_parameter"));
        assert!(error.detail().contains("\"limt\"") && error.detail().contains("limit, skip"), "{}", error.detail());
    }

    #[test]
    fn counts_are_whole_numbers() {
        assert_eq!(parse("n=0").count("n").unwrap(), Some(0));
        assert_eq!(parse("n=18446744073709551615").count("n").unwrap(), Some(u64::MAX));
        for value in ["-1", "1.5", "", "ten", "%2B1", "0x10", "18446744073709551616", "1 "] {
            assert!(parse(&format!("n={value}")).count("n").is_err(), "{value}");
        }
    }

    #[test]
    fn words_and_flags_are_exact() {
        assert_eq!(parse("v=true").flag("v").unwrap(), Some(true));
        assert_eq!(parse("v=false").flag("v").unwrap(), Some(false));
        assert_eq!(parse("").flag("v").unwrap(), None);
        for value in ["", "1", "TRUE", "yes"] {
            assert!(parse(&format!("v={value}")).flag("v").is_err(), "{value}");
        }
    }

    #[test]
    fn datetimes_are_utc_unless_they_say_otherwise() {
        let expected = Some(parse_border("2025-06-26T00:00:00Z").unwrap());
        for value in ["2025-06-26", "2025-06-26T00:00:00", "2025-06-26T08:00:00%2B08:00", "2025-06-26+00:00"] {
            assert_eq!(parse(&format!("t={value}")).border("t").unwrap(), expected, "{value}");
        }
        for value in ["", "yesterday", "1750896000"] {
            assert!(parse(&format!("t={value}")).border("t").is_err(), "{value}");
        }
        let error = parse("t=2025-06-26T08:00:00+08:00").border("t").unwrap_err();
        assert!(error.detail().contains("%2B"), "{}", error.detail());
    }

    #[test]
    fn long_values_are_shortened_when_shown() {
        assert_eq!(shown(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
        assert_eq!(shown("a\"b"), r#""a\"b""#);
    }
}
