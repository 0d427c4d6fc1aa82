//! Browsers carry out what any page tells them, with the network position of whoever looks at it. What keeps foreign pages
//! from using a host that asks nobody for a token, and what tells browsers how to treat its answers.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use std::net::IpAddr;

use super::body::check_media_type;
use super::error::{Answer, ApiError};
use super::uri::shown;

/// What a browser says about the page that a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a page may do: be shown, with scripts and styles of this host's own, and talk to this host. A script can't be put into it
/// by way of a document either: with no trusted types the browser refuses every way of turning a text into markup.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                           require-trusted-types-for 'script'; trusted-types 'none'";

/// What anything else may do, should a browser take it for a page.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Which hosts a request may be addressed to.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    named: Vec<String>,
    /// Whether only those, addresses and `localhost` are taken.
    is_strict: bool,
}

impl Hosts {
    /// `named`: by their names, in lower case. `is_local`: whether only this machine can reach the API.
    pub(super) fn new(named: &[String], is_local: bool) -> Self {
        // A host that others reach by a name, with nobody having said which, can't tell its own from an attacker's.
        Self { named: named.to_vec(), is_strict: is_local || !named.is_empty() }
    }

    /// Refuses what a name of somebody else was made to lead to (DNS rebinding): for the browser it is that somebody's own,
    /// so that his pages may read the answer. An address can't be made to lead anywhere else.
    ///
    /// # Errors
    /// `unknown_host`. None for a request that doesn't name a host: browsers always do.
    pub(super) fn check(&self, head: &Parts) -> Answer<()> {
        if !self.is_strict {
            return Ok(());
        }
        let header = head.headers.get(HOST);
        let host = head.uri.authority().map(Authority::as_str).or(header.and_then(|value| value.to_str().ok()));
        let is_known = match (host, header) {
            (Some(host), _) => host_of(host).is_some_and(|host| self.knows(&host)),
            (None, Some(_)) => false,
            (None, None) => true,
        };
        if is_known {
            return Ok(());
        }
        let host = shown(host.unwrap_or_default());
        let detail = format!(
            "the request is for the host {host}, which is none of this one's names: http.hosts in the configuration lists them"
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, "unknown_host", detail))
    }

    fn knows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.named.iter().any(|name| name == host)
    }

    /// Refuses changes that a page of another site wants to make.
    ///
    /// # Errors
    /// `cross_site`; `unsupported_media_type` for a body that is no JSON, as forms send it.
    pub(super) fn check_change(&self, head: &Parts) -> Answer<()> {
        if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        if self.is_cross_site(head) {
            let detail = "a page of another site may not change anything here";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", detail));
        }
        // Requests without a body need no type. Forms, which any page can send, always have one.
        if head.headers.contains_key(CONTENT_TYPE) { check_media_type(&head.headers) } else { Ok(()) }
    }

    fn is_cross_site(&self, head: &Parts) -> bool {
        if let Some(site) = head.headers.get(SEC_FETCH_SITE) {
            return site != "same-origin" && site != "none";
        }
        // Browsers of before 2023 don't say so, and neither do others to hosts that they don't trust; they all say this.
        let Some(origin) = head.headers.get(ORIGIN) else { return false };
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let Some(origin) = origin.as_ref().and_then(Uri::authority) else { return true };
        let own = head.uri.authority().map(Authority::as_str);
        let own = own.or_else(|| head.headers.get(HOST).and_then(|value| value.to_str().ok()));
        let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(origin.as_str()));
        !is_own && !self.named.iter().any(|name| name.eq_ignore_ascii_case(origin.host()))
    }
}

/// Refuses what HTTP/1.1 has to refuse: a request that doesn't say which host it is for, or says it twice. Whatever stands between may
/// take it for another one than this does.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn check_addressed(head: &Parts) -> Answer<()> {
    let headers = head.headers.get_all(HOST).iter().count();
    let detail = match headers {
        0 if head.version == Version::HTTP_11 => "the request has no host header, which HTTP/1.1 requires",
        0 | 1 => return Ok(()),
        _ => "the request has more than one host header, and one is what it may have",
    };
    Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_argument", detail))
}

/// The host of `host:port`, in lower case.
fn host_of(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    // What stands before an @ is no part of the host, and has no business here.
    (!text.contains('@')).then(|| authority.host().to_ascii_lowercase())
}

/// Adds what every answer says to browsers.
pub(super) fn harden(headers: &mut HeaderMap) {
    let is_page = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Documents are nothing for a cache on the way. Files that can't change may say otherwise.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_names_of_this_host_are_taken() {
        let hosts = Hosts::new(&["memcell.example.com".to_owned()], true);
        let check = |uri: &str, headers: &[(&str, &str)]| hosts.check(&head("GET", uri, headers)).is_ok();
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "192.168.0.7",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
            "x.localhost:1",
            "memcell.example.com",
            "Memcell.Example.com:443",
        ] {
            assert!(check("/", &[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "a@127.0.0.1", ""]
        {
            assert!(!check("/", &[("host", host)]), "{host}");
        }
        assert!(check("/", &[]), "no browser");
        assert!(check("http://localhost:1/", &[("host", "evil.example")]), "what the request line says counts");
        assert!(!check("http://evil.example/", &[("host", "localhost")]));
        let anywhere = Hosts::new(&[], false);
        assert!(anywhere.check(&head("GET", "/", &[("host", "db.internal")])).is_ok());
        assert!(Hosts::new(&["x".into()], false).check(&head("GET", "/", &[("host", "db.internal")])).is_err());
    }

    #[test]
    fn a_request_is_for_one_host() {
        let check = |version: Version, headers: &[(&str, &str)]| {
            let mut head = head("GET", "/", headers);
            head.version = version;
            check_addressed(&head).is_ok()
        };
        let (one, two) = (("host", "localhost"), ("host", "evil.example"));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(check(version, &[]), version != Version::HTTP_11, "{version:?}");
            assert!(check(version, &[one]), "{version:?}");
            assert!(!check(version, &[one, one]) && !check(version, &[one, two]), "{version:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let hosts = Hosts::new(&["memcell.example.com".to_owned()], true);
        let check = |method: &str, headers: &[(&str, &str)]| {
            let headers = [&[("host", "localhost:8080")], headers].concat();
            hosts.check_change(&head(method, "/", &headers)).map_err(|error| error.code())
        };
        let json = ("content-type", "application/json");
        for allowed in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://proxied.example")],
            &[("origin", "http://localhost:8080")],
            &[("origin", "https://memcell.example.com:8443")],
            &[json],
        ] {
            assert_eq!(check("POST", allowed), Ok(()), "{allowed:?}");
        }
        for refused in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:8080")],
            &[("sec-fetch-site", "nonsense")],
            &[("origin", "null")],
            &[("origin", "http://localhost:8081")],
            &[("origin", "http://evil.example")],
            &[("origin", "\u{e4}"), json],
        ] {
            assert_eq!(check("DELETE", refused), Err("cross_site"), "{refused:?}");
            assert_eq!(check("GET", refused), Ok(()), "reading changes nothing");
        }
        for form in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
            assert_eq!(check("POST", &[("content-type", form)]), Err("unsupported_media_type"), "{form}");
        }
    }

    #[test]
    fn pages_may_use_what_is_their_own() {
        for (media_type, expected) in
            [("text/html; charset=utf-8", PAGE_POLICY), ("application/json", DATA_POLICY), ("text/css", DATA_POLICY)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            harden(&mut headers);
            assert_eq!(headers[CONTENT_SECURITY_POLICY], expected);
            assert_eq!(headers[CACHE_CONTROL], "no-store");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        harden(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "max-age=60");
    }
}
