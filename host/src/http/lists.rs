//! The routes of all MemCells that match: list, count, and deletion and restoration in bulk.

use std::num::NonZeroU64;

use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::answers::{self, Annotate as _};
use super::error::Answer;
use super::listing::Listing;
use super::openapi::{CommonProblems, MediaTypeProblem, TooLargeProblem};
use super::parameters::{
    DeleteParameters, FilterParameters, PageParameters, Paging, RangeParameters, Scope, ScopeParameters, Selection,
};
use super::schemas::{Count, Deleted, MemCellList, Restored};
use super::uri::Parameters;
use crate::query::Page;

/// List MemCells
///
/// Those that match all conditions. `next` is null at the end, and else the `cursor` of the following page. With
/// `limit=0` all of them are streamed; if that fails in the middle, the connection is closed before the body is
/// complete.
#[utoipa::path(
    get,
    path = "/v1/memcells",
    tag = "memcells",
    params(FilterParameters, RangeParameters, PageParameters),
    responses((status = 200, description = "The MemCells", body = MemCellList), CommonProblems)
)]
pub(super) async fn list(State(api): State<Api>, Parameters(parameters): Parameters<(Selection, Paging)>) -> Answer {
    let (Selection(filter), Paging(page)) = parameters;
    let Some(limit) = page.limit else {
        return Listing::whole(api.store.find(&filter, &page).await?).answer(api.request_timeout).await;
    };
    // One more than is answered tells whether there are more.
    let order = page.order;
    let page = Page { limit: Some(limit.checked_add(1).unwrap_or(NonZeroU64::MAX)), ..page };
    Listing::page(api.store.find(&filter, &page).await?, limit, order).answer(api.request_timeout).await
}

/// Count MemCells
#[utoipa::path(
    get,
    path = "/v1/memcells/count",
    tag = "memcells",
    params(FilterParameters, RangeParameters),
    responses((status = 200, description = "How many match all conditions", body = Count), CommonProblems)
)]
pub(super) async fn count(State(api): State<Api>, Parameters(Selection(filter)): Parameters<Selection>) -> Answer {
    answers::value(StatusCode::OK, &Count { count: api.store.count(&filter).await? })
}

/// Delete the MemCells of a user or of a time
///
/// At least one of `user_id`, `start` and `end` must be given. Softly, only those are counted that were not deleted
/// before.
#[utoipa::path(
    delete,
    path = "/v1/memcells",
    tag = "memcells",
    params(ScopeParameters, RangeParameters, DeleteParameters),
    responses(
        (status = 200, description = "How many were deleted", body = Deleted, headers(("x-memcell-mirrored" = String))),
        CommonProblems,
        MediaTypeProblem,
        TooLargeProblem,
    )
)]
pub(super) async fn delete_many(
    State(api): State<Api>,
    Parameters(parameters): Parameters<(Scope, DeleteParameters)>,
) -> Answer {
    let (Scope(scope), how) = parameters;
    let written = match how.hard {
        true => api.store.hard_delete_many(&scope).await?,
        false => api.store.delete_many(&scope, how.deleted_by.as_deref()).await?,
    };
    let answer = answers::value(StatusCode::OK, &Deleted { deleted: written.value })?;
    Ok(answer.with_mirrored(written.mirrored))
}

/// Restore the soft-deleted MemCells of a user or of a time
///
/// At least one of the parameters must be given.
#[utoipa::path(
    post,
    path = "/v1/memcells/restore",
    tag = "memcells",
    params(ScopeParameters, RangeParameters),
    responses(
        (status = 200, description = "How many were restored", body = Restored, headers(
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        MediaTypeProblem,
        TooLargeProblem,
    )
)]
pub(super) async fn restore_many(State(api): State<Api>, Parameters(Scope(scope)): Parameters<Scope>) -> Answer {
    let written = api.store.restore_many(&scope).await?;
    let answer = answers::value(StatusCode::OK, &Restored { restored: written.value })?;
    Ok(answer.with_mirrored(written.mirrored))
}
