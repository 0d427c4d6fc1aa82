//! The routes of one MemCell.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::Api;
use super::answers::{self, Annotate as _};
use super::body::{JsonBody, object};
use super::error::{Answer, ApiError};
use super::openapi::{
    BodyProblems, CommonProblems, MediaTypeProblem, NotFoundProblem, NothingReadProblem, TakenProblem, TooLargeProblem,
};
use super::parameters::{DeleteParameters, ReadParameters};
use super::schemas::{Deleted, MemCellSchema, NewMemCellSchema, PatchSchema, Restored};
use super::uri::{NoParameters, Parameters, Segment, shown};
use crate::Error;
use crate::memcell::{EventId, NewMemCell, Patch, Unique};

/// Append a MemCell
///
/// A given `event_id` is kept; without one, the server makes one. `created_at`, `updated_at` and `revision` are the
/// server's to set, whatever is given.
#[utoipa::path(
    post,
    path = "/v1/memcells",
    tag = "memcells",
    request_body = NewMemCellSchema,
    responses(
        (status = 201, description = "The MemCell as it was stored", body = MemCellSchema, headers(
            ("location" = String),
            ("x-memcell-revision" = u64),
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        BodyProblems,
        TakenProblem,
    )
)]
pub(super) async fn append(
    State(api): State<Api>,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonBody(Unique(body)): JsonBody<Unique>,
) -> Answer {
    let cell = NewMemCell::from_api(object(body, "a MemCell")?)?;
    let written = api.store.append(cell).await?;
    let answer = answers::memcell(StatusCode::CREATED, &written.value)?.with_mirrored(written.mirrored);
    let location = written.value.event_id().and_then(|id| HeaderValue::try_from(format!("/v1/memcells/{id}")).ok());
    Ok(match location {
        Some(location) => answer.with(LOCATION, location),
        None => answer,
    })
}

/// Get a MemCell
///
/// Answers what MongoDB has. A soft-deleted MemCell is not found.
#[utoipa::path(
    get,
    path = "/v1/memcells/{event_id}",
    tag = "memcells",
    params(("event_id" = String, Path, description = "24 hexadecimal digits"), ReadParameters),
    responses(
        (status = 200, description = "The MemCell", body = MemCellSchema, headers(
            ("x-memcell-revision" = u64),
            ("x-memcell-validation" = String),
        )),
        CommonProblems,
        NothingReadProblem,
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(parameters): Parameters<ReadParameters>,
) -> Answer {
    // Nothing is stored under what is no id, and that is all there is to say of it.
    let Ok(event_id) = EventId::parse(&id) else { return Err(Error::not_found(shown(&id)).into()) };
    let read = api.store.get(event_id, parameters.validate).await?;
    if let Some(cell) = read.value {
        return Ok(answers::memcell(StatusCode::OK, &cell)?.with_validation(read.validation));
    }
    Err(ApiError::from(Error::not_found(event_id)).with_validation(read.validation))
}

/// Update a MemCell
///
/// Replaces the given top-level fields as a whole and leaves all others. An empty patch changes nothing.
#[utoipa::path(
    patch,
    path = "/v1/memcells/{event_id}",
    tag = "memcells",
    params(("event_id" = String, Path, description = "24 hexadecimal digits")),
    request_body = PatchSchema,
    responses(
        (status = 200, description = "The MemCell as it is now", body = MemCellSchema, headers(
            ("x-memcell-revision" = u64),
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
        TakenProblem,
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonBody(Unique(body)): JsonBody<Unique>,
) -> Answer {
    let id = EventId::parse(&id)?;
    let patch = Patch::from_api(object(body, "a patch")?)?;
    let written = api.store.update(id, &patch).await?;
    Ok(answers::memcell(StatusCode::OK, &written.value)?.with_mirrored(written.mirrored))
}

/// Delete a MemCell
///
/// Softly, so that it can be restored, or for good.
#[utoipa::path(
    delete,
    path = "/v1/memcells/{event_id}",
    tag = "memcells",
    params(("event_id" = String, Path, description = "24 hexadecimal digits"), DeleteParameters),
    responses(
        (status = 200, description = "It is deleted", body = Deleted, headers(
            ("x-memcell-revision" = u64),
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        MediaTypeProblem,
        TooLargeProblem,
        NotFoundProblem,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(how): Parameters<DeleteParameters>,
) -> Answer {
    let id = EventId::parse(&id)?;
    let written = match how.hard {
        true => api.store.hard_delete(id).await?,
        false => api.store.delete(id, how.deleted_by.as_deref()).await?,
    };
    let answer = answers::value(StatusCode::OK, &Deleted { deleted: 1 })?;
    Ok(answer.with_revision(written.value).with_mirrored(written.mirrored))
}

/// Restore a soft-deleted MemCell
#[utoipa::path(
    post,
    path = "/v1/memcells/{event_id}/restore",
    tag = "memcells",
    params(("event_id" = String, Path, description = "24 hexadecimal digits")),
    responses(
        (status = 200, description = "It is there; 0 if it was not deleted", body = Restored, headers(
            ("x-memcell-revision" = u64),
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        MediaTypeProblem,
        TooLargeProblem,
        NotFoundProblem,
    )
)]
pub(super) async fn restore(
    State(api): State<Api>,
    Segment(id): Segment,
    Parameters(NoParameters): Parameters<NoParameters>,
) -> Answer {
    let written = api.store.restore(EventId::parse(&id)?).await?;
    let restored = |count| -> Answer<Response> {
        Ok(answers::value(StatusCode::OK, &Restored { restored: count })?.with_mirrored(written.mirrored))
    };
    match written.value {
        Some(cell) => {
            let answer = restored(1)?;
            Ok(match cell.revision() {
                Some(revision) => answer.with_revision(revision),
                None => answer,
            })
        }
        None => restored(0),
    }
}
