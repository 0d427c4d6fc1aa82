//! The OpenAPI document, collected from the handlers: what they say of themselves, and what is true of all of them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Header, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi as _};

use super::Api;
use super::access::Needs;
use super::answers;
use super::error::{Answer, PROBLEM_JSON, Problem};
use super::requests::REQUEST_ID;
use super::uri::{NoParameters, Parameters};

/// What the document says beside its routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "memcell",
        description = "Stores MemCells in MongoDB, which is authoritative, and mirrors them to key-value backends.\n\n\
            Every error is a problem (RFC 9457) with a stable `code`: besides those of the routes, `unknown_route` \
            (404), `method_not_allowed` (405, with `allow`), `malformed_uri` (400), `uri_too_long` (414), \
            `headers_too_large` (431), `unknown_host` and `cross_site` (403: what browsers must not be made to do), \
            `rate_limited` (429) and `overloaded` (503), both with `retry-after`. (A \
            431 over HTTP/1.1 has no body.) Unknown query parameters are refused.\n\n\
            Where the server has tokens, an operation needs one with the role that its security requirement names, or \
            with one that includes it: `admin` includes `write`, and `write` includes `read`. Every `GET` route takes `HEAD` too."
    ),
    tags(
        (name = "memcells", description = "The documents"),
        (name = "users", description = "What one user has"),
        (name = "jobs", description = "Work on whole collections: backfill, verify, repair, restore, rekey"),
        (name = "operations", description = "How the server is doing"),
    ),
    components(schemas(Problem))
)]
struct Base;

/// How tokens are called in the document.
const BEARER: &str = "token";

/// The document without any routes.
pub(super) fn base() -> Document {
    let mut document = Base::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("`authorization: Bearer TOKEN`, where the server has tokens"));
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(BEARER.to_owned(), RefOr::T(SecurityScheme::Http(bearer.build())));
    document
}

/// Says of all operations of a document what they need.
pub(super) fn describe_access(document: &mut Document, needs: Needs) {
    for operation in document.paths.paths.values_mut().flat_map(operations_mut) {
        let Some(role) = needs.role() else {
            operation.security = Some(Vec::new());
            continue;
        };
        operation.security = Some(vec![SecurityRequirement::new(BEARER, [role.as_str()])]);
        operation.responses.responses.extend(problems([
            ("401", "`unauthenticated`: a token is needed; `invalid_token`: this is none"),
            ("403", "`forbidden`: the token has not the role that is needed"),
        ]));
    }
}

const VALIDATION: &str = "x-memcell-validation";

/// What each header of an answer means, wherever it occurs.
const HEADERS: [(&str, &str); 5] = [
    ("location", "The path of the new MemCell"),
    (
        "x-memcell-revision",
        "The revision that the answer is about; absent if another program wrote the MemCell without one",
    ),
    (
        "x-memcell-mirrored",
        "How far the copies had got by then, at worst: `none` (there is no backend, or nothing to copy), `queued`, \
         `applied`, `dropped` (it will be read again), `timeout` or `failed`",
    ),
    (
        VALIDATION,
        "If the read was validated, or was to be: the outcome, of many the worst. `consistent`, `in-flight` (a change \
         is on its way), `missing`, `different`, `corrupt`, `unavailable` (the copy did not come in time), `skipped`, \
         or `deferred` (it goes on in the background)",
    ),
    ("x-request-id", "The id of the request in the server's log: the one that was sent, or a fresh one"),
];

/// The finished document as JSON.
pub(super) fn render(mut document: Document) -> Bytes {
    for path in document.paths.paths.values_mut() {
        for operation in operations_mut(path) {
            operation.responses.responses.values_mut().for_each(describe_headers);
        }
    }
    match document.to_json() {
        Ok(json) => json.into(),
        // No document of these types can make this happen, and the API is of use without its description.
        Err(error) => {
            tracing::error!(%error, "the openapi document makes no json");
            Bytes::from_static(b"null")
        }
    }
}

fn operations_mut(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.patch, &mut path.put, &mut path.delete].into_iter().flatten()
}

/// Adds the header that every answer has, and says what all of them mean.
fn describe_headers(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    response.headers.insert(REQUEST_ID.as_str().to_owned(), text_header());
    for (name, meaning) in HEADERS {
        if let Some(RefOr::T(header)) = response.headers.get_mut(name) {
            header.description = Some(meaning.to_owned());
        }
    }
}

fn text_header() -> RefOr<Header> {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).build().into()
}

/// Get this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value), ParameterProblem)
)]
pub(super) async fn document(State(api): State<Api>, Parameters(NoParameters): Parameters<NoParameters>) -> Answer {
    Ok(answers::json(StatusCode::OK, api.openapi))
}

type Responses = BTreeMap<String, RefOr<Response>>;

fn problems<const N: usize>(described: [(&str, &str); N]) -> Responses {
    let problem = |(status, description): (&str, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build();
        (status.to_owned(), RefOr::T(response))
    };
    described.map(problem).into()
}

/// The errors of every route that asks the store.
pub(super) struct CommonProblems;

impl IntoResponses for CommonProblems {
    fn responses() -> Responses {
        problems([
            (
                "400",
                "`invalid_argument`, `invalid_id`, `unknown_parameter`, `malformed_uri`, and for a body \
                 `malformed_json` or `incomplete_body`",
            ),
            ("500", "`internal`: a fault of the server; its log says more"),
            (
                "503",
                "`unavailable`, `timeout`, `conflict` or `overloaded`: try again, after `retry-after` seconds if it is there; \
                 `misconfigured`: MongoDB refuses this server",
            ),
        ])
    }
}

/// The errors of every route that takes a body.
pub(super) struct BodyProblems;

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        problems([
            ("408", "`body_timeout`: the body took too long to arrive, and nothing was done"),
            ("413", "`body_too_large`"),
            ("415", "`unsupported_media_type`: only `application/json` is taken"),
            (
                "422",
                "`invalid_document`: a field breaks the rules, `field` names it; `invalid_body`: the JSON has another \
                 shape than it should",
            ),
        ])
    }
}

/// The error of a body of another type, of every route that changes something and needs no body.
pub(super) struct MediaTypeProblem;

impl IntoResponses for MediaTypeProblem {
    fn responses() -> Responses {
        problems([("415", "`unsupported_media_type`: no body is needed, and only `application/json` is taken")])
    }
}

/// The error of every route that adds to documents that are there.
pub(super) struct TooLargeProblem;

impl IntoResponses for TooLargeProblem {
    fn responses() -> Responses {
        problems([(
            "422",
            "`invalid_document`: a document would be larger than MongoDB allows. Of several, others may be done",
        )])
    }
}

/// The error of every route that takes no parameters and asks nobody.
pub(super) struct ParameterProblem;

impl IntoResponses for ParameterProblem {
    fn responses() -> Responses {
        problems([("400", "`unknown_parameter` or `malformed_uri`")])
    }
}

/// The error of every route that is about one MemCell.
pub(super) struct NotFoundProblem;

impl IntoResponses for NotFoundProblem {
    fn responses() -> Responses {
        problems([("404", "`not_found`: there is no such MemCell")])
    }
}

/// The error of reading one MemCell, which may have been validated: a copy of what is not there is a mismatch.
pub(super) struct NothingReadProblem;

impl IntoResponses for NothingReadProblem {
    fn responses() -> Responses {
        let mut responses = NotFoundProblem::responses();
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                response.headers.insert(VALIDATION.to_owned(), text_header());
            }
        }
        responses
    }
}

/// The error of every route that stores values.
pub(super) struct TakenProblem;

impl IntoResponses for TakenProblem {
    fn responses() -> Responses {
        problems([("409", "`already_exists`: the `event_id` is taken, or a value that a unique index allows once")])
    }
}

/// The error of every route that is about one job.
pub(super) struct NoJobProblem;

impl IntoResponses for NoJobProblem {
    fn responses() -> Responses {
        problems([("404", "`not_found`: there is no such job")])
    }
}

/// The error of every route that is about one mismatch.
pub(super) struct NoMismatchProblem;

impl IntoResponses for NoMismatchProblem {
    fn responses() -> Responses {
        problems([("404", "`not_found`: no such mismatch is listed, any more")])
    }
}

/// The error of beginning what is being done.
pub(super) struct SameJobProblem;

impl IntoResponses for SameJobProblem {
    fn responses() -> Responses {
        problems([("409", "`already_exists`: a job that has not ended does the same")])
    }
}

/// The errors of reloading the configuration.
pub(super) struct ReloadProblems;

impl IntoResponses for ReloadProblems {
    fn responses() -> Responses {
        problems([
            (
                "409",
                "`restart_required`: the file changes what only a restart brings into effect, and `detail` names the \
                 keys; `no_config_file`: the host was not started with a file. Nothing was changed",
            ),
            (
                "422",
                "`invalid_config`: the file is wrong, and `problems` lists what is to be mended; or a required backend \
                 can't be used. Nothing was changed",
            ),
        ])
    }
}

/// The error of every route that not every deployment of MongoDB can serve.
pub(super) struct UnsupportedProblem;

impl IntoResponses for UnsupportedProblem {
    fn responses() -> Responses {
        problems([("501", "`unsupported`: a standalone MongoDB has no transactions")])
    }
}
