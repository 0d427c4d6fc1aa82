//! What a registry wants to see: a user's password, or a token that another server gives for it
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::ChallengeParser;
use hyper::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::credentials::{Credentials, Kind};
use super::error::Problem;
use super::http::{Ask, Origin, Transport};
use super::session::{denied, refused};
use crate::kv::shown;

/// Tokens are of some KiB; beyond that no server takes them in a header.
const TOKEN_BYTES: u64 = 256 << 10;

/// What a registry says about how it wants to be asked.
enum Challenge {
    Basic,
    /// The scope that it names is left out: it is that of one request, and a push looks before it writes.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The header that the registry wants to see before it does what `scope` says.
///
/// # Errors
/// If these credentials won't get it.
pub(super) async fn authorization(
    transport: &Transport,
    headers: &HeaderMap,
    credentials: &Credentials,
    scope: &str,
    is_secure: bool,
) -> Result<HeaderValue, Problem> {
    match challenge(headers)? {
        Challenge::Basic => {
            basic(credentials).unwrap_or_else(|| Err(denied("401 Unauthorized".to_owned(), credentials)))
        }
        Challenge::Bearer { realm, service } => {
            let uri = token_uri(&realm, service.as_deref(), scope)?;
            if is_secure && !Origin::of(&uri).is_secure {
                let text = format!("it wants the credentials sent without TLS, to {}", shown(&realm));
                return Err(Problem::NoRegistry(text));
            }
            let user = basic(credentials).transpose()?;
            let answer = transport.ask(Ask::get(uri), user.as_ref()).await?;
            if answer.status != StatusCode::OK {
                return Err(refused(answer, credentials).await);
            }
            let no_token = |what: &str| Problem::NoRegistry(format!("{} gives no token: {what}", shown(&realm)));
            let bytes = answer.bytes(TOKEN_BYTES).await?.map_err(|_| no_token("its answer is too long"))?;
            // The error's own text may quote the token.
            let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| no_token("its answer is not JSON"))?;
            let token = answer.token.or(answer.access_token).ok_or_else(|| no_token("there is none in its answer"))?;
            bearer(&token)
        }
    }
}

/// The header for a token.
///
/// # Errors
/// If it can't be one.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, Problem> {
    header(format!("Bearer {token}"))
}

fn basic(credentials: &Credentials) -> Option<Result<HeaderValue, Problem>> {
    match &credentials.kind {
        Kind::User { name, password } => {
            Some(header(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))))
        }
        Kind::Nobody | Kind::Token(_) => None,
    }
}

fn header(text: String) -> Result<HeaderValue, Problem> {
    let no_header = |_| Problem::Credentials("they have characters that no header can hold".to_owned());
    let mut value = HeaderValue::try_from(text).map_err(no_header)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The one of the registry's challenges that can be met; a token goes first.
fn challenge(headers: &HeaderMap) -> Result<Challenge, Problem> {
    let mut basic = false;
    let mut schemes = Vec::new();
    for header in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|header| header.to_str().ok()) {
        for challenge in ChallengeParser::new(header).map_while(Result::ok) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            match parameter("realm") {
                Some(realm) if challenge.scheme.eq_ignore_ascii_case("bearer") => {
                    return Ok(Challenge::Bearer { realm, service: parameter("service") });
                }
                _ => basic |= challenge.scheme.eq_ignore_ascii_case("basic"),
            }
            schemes.push(challenge.scheme.to_owned());
        }
    }
    if basic {
        return Ok(Challenge::Basic);
    }
    let schemes = if schemes.is_empty() { "nothing".to_owned() } else { shown(&schemes.join(", ")) };
    Err(Problem::NoRegistry(format!(
        "it answers 401 and offers no way in that memcell knows (Basic, Bearer), but {schemes}"
    )))
}

fn token_uri(realm: &str, service: Option<&str>, scope: &str) -> Result<Uri, Problem> {
    let separator = if realm.contains('?') { '&' } else { '?' };
    let service = service.map(|service| format!("service={}&", escaped(service))).unwrap_or_default();
    let text = format!("{realm}{separator}{service}scope={}", escaped(scope));
    let wrong = || Problem::NoRegistry(format!("it sends for a token to nowhere: {:?}", shown(realm)));
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if is_http && uri.host().is_some() { Ok(uri) } else { Err(wrong()) }
}

/// A text as a value of a query.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => {
                use std::fmt::Write as _;
                // Writing to a String can't fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(header: &str) -> Result<Challenge, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, header.parse().unwrap());
        challenge(&headers)
    }

    #[test]
    fn challenges() {
        let bearer =
            told(r#"Basic realm="x", Bearer realm="https://auth/token",service="reg \"1\"",scope="repository:a:pull""#);
        let Ok(Challenge::Bearer { realm, service }) = bearer else { panic!() };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://auth/token", Some("reg \"1\"")));
        assert!(matches!(told("Basic realm=\"x\""), Ok(Challenge::Basic)));
        let error = told("Negotiate a=\"b\"").err().unwrap().to_string();
        assert!(error.contains("but Negotiate"), "{error}");
        assert!(told(",,,").is_err());
    }

    #[test]
    fn token_requests() {
        let uri = token_uri("https://auth/token?x=1", Some("a b"), "repository:a/b:pull,push").unwrap();
        assert_eq!(uri.to_string(), "https://auth/token?x=1&service=a%20b&scope=repository%3Aa%2Fb%3Apull%2Cpush");
        assert!(token_uri("/token", None, "s").is_err() && token_uri("file:///x", None, "s").is_err());
    }

    #[test]
    fn a_token_that_is_no_header_is_refused() {
        assert!(bearer("a\r\nb").is_err());
        assert_eq!(format!("{:?}", bearer("s3cret").unwrap()), "Sensitive");
    }
}
