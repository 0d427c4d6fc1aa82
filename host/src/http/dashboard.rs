//! The dashboard: a page for people at `/`, and what it is made of under `/assets/`. It is compiled in, loads nothing from
//! anywhere else, and knows only what the routes of the API say.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::Api;
use super::answers::Annotate as _;
use super::error::Answer;
use super::requests::unknown_route;
use super::uri::{NoParameters, Parameters, Segment};
use crate::hex;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
    /// Of exactly these bytes, so that a browser notices another version.
    etag: HeaderValue,
}

/// Each file by the name it has below `/assets/`; the first is the page itself.
macro_rules! assets {
    ($($name:literal: $content_type:expr),* $(,)?) => {
        [$(asset($name, $content_type, include_str!(concat!("dashboard/", $name)))),*]
    };
}

static ASSETS: LazyLock<[Asset; 16]> = LazyLock::new(|| {
    assets! {
        "index.html": HTML,
        "dashboard.css": CSS,
        "dashboard.js": JAVASCRIPT,
        "api.js": JAVASCRIPT,
        "backends.js": JAVASCRIPT,
        "chart.js": JAVASCRIPT,
        "config.js": JAVASCRIPT,
        "dialogs.js": JAVASCRIPT,
        "dom.js": JAVASCRIPT,
        "format.js": JAVASCRIPT,
        "jobs.js": JAVASCRIPT,
        "mismatches.js": JAVASCRIPT,
        "summary.js": JAVASCRIPT,
        "theme.js": JAVASCRIPT,
        "validation.js": JAVASCRIPT,
        "icon.svg": SVG,
    }
});

fn asset(name: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    let digest = hex::encode(&Sha256::digest(text.as_bytes()));
    // Hexadecimal digits in quotes are a header value.
    let etag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    Asset { name, content_type, text, etag }
}

/// The routes of the page. They are no part of the API, and of its description.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/", get(page)).route("/assets/{name}", get(file))
}

async fn page(headers: HeaderMap, Parameters(NoParameters): Parameters<NoParameters>, uri: Uri) -> Answer {
    serve("index.html", &headers, uri).await
}

async fn file(
    headers: HeaderMap,
    Segment(name): Segment,
    Parameters(NoParameters): Parameters<NoParameters>,
    uri: Uri,
) -> Answer {
    serve(&name, &headers, uri).await
}

/// The file, or that the browser's copy is still the same.
async fn serve(name: &str, headers: &HeaderMap, uri: Uri) -> Answer {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else { return unknown_route(uri).await };
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| names(known, &asset.etag));
    let mut response = Response::new(if is_known { "" } else { asset.text }.into());
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Ok(response
        .with(CONTENT_TYPE, HeaderValue::from_static(asset.content_type))
        .with(ETAG, asset.etag.clone())
        // Kept, and asked for again each time: a page must not run with scripts of another version.
        .with(CACHE_CONTROL, HeaderValue::from_static("no-cache")))
}

/// Whether `if-none-match` names this tag. A proxy that compresses makes tags weak.
fn names(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_tag_is_recognised() {
        let etag = HeaderValue::from_static("\"ab\"");
        for known in ["\"ab\"", "W/\"ab\"", "\"x\", W/\"ab\"", "*"] {
            assert!(names(&HeaderValue::from_static(known), &etag), "{known}");
        }
        for known in ["\"x\"", "ab", ""] {
            assert!(!names(&HeaderValue::from_static(known), &etag), "{known}");
        }
    }

    #[test]
    fn the_page_has_nothing_inline_and_nothing_from_elsewhere() {
        for asset in ASSETS.iter() {
            let (name, text) = (asset.name, asset.text);
            for bad in ["https://", "style=", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "javascript:"] {
                assert!(!text.contains(bad), "{name} contains {bad}");
            }
            // The one address that is no address: the namespace of SVG.
            assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("http://"), "{name}");
        }
        let page = ASSETS.iter().find(|asset| asset.name == "index.html").unwrap().text;
        for part in page.split('"').filter_map(|part| part.strip_prefix("assets/")) {
            assert!(ASSETS.iter().any(|asset| asset.name == part), "the page wants {part}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!page.contains("<style") && !page.split_whitespace().any(handler), "{page}");
    }
}
