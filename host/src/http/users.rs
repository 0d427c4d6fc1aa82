//! The routes of one user.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use bson::{DateTime, RawBsonRef};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::answers;
use super::error::Answer;
use super::listing::Listing;
use super::openapi::CommonProblems;
use super::parameters::{LatestParameters, RangeParameters};
use super::schemas::MemCellList;
use super::uri::{Parameters, Segment};
use crate::memcell::json::{Dialect, write_value};
use crate::query::ActivitySummary;
use crate::{Error, ErrorKind, Result};

/// What one user did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Activity {
    user_id: String,
    /// How many live MemCells the user has in the range.
    total_count: u64,
    /// How many there are of each `type`; `unknown` for those without one.
    type_distribution: BTreeMap<String, u64>,
    /// The earliest `timestamp` among them; null if there are none.
    #[schema(value_type = Option<String>, format = DateTime)]
    earliest_activity: Option<Value>,
    /// The latest `timestamp` among them; null if there are none.
    #[schema(value_type = Option<String>, format = DateTime)]
    latest_activity: Option<Value>,
}

impl Activity {
    fn new(summary: ActivitySummary) -> Result<Self> {
        Ok(Self {
            user_id: summary.user_id,
            total_count: summary.total_count,
            type_distribution: summary.type_distribution,
            earliest_activity: summary.earliest_activity.map(datetime).transpose()?,
            latest_activity: summary.latest_activity.map(datetime).transpose()?,
        })
    }
}

/// A datetime in the form that it has in a MemCell.
fn datetime(moment: DateTime) -> Result<Value> {
    let mut json = Vec::new();
    write_value(RawBsonRef::DateTime(moment), Dialect::Api, &mut json)?;
    serde_json::from_slice(&json)
        .map_err(|source| Error::new(ErrorKind::Internal, "a datetime makes no json").with_source(source))
}

/// Get a user's latest MemCells
///
/// Those of exactly this user, the newest first.
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/latest",
    tag = "users",
    params(("user_id" = String, Path, description = "The user"), LatestParameters),
    responses((status = 200, description = "The MemCells; `next` is always null", body = MemCellList), CommonProblems)
)]
pub(super) async fn latest(
    State(api): State<Api>,
    Segment(user_id): Segment,
    Parameters(parameters): Parameters<LatestParameters>,
) -> Answer {
    let cells = api.store.latest_by_user(&user_id, parameters.limit()).await?;
    Listing::whole(cells).answer(api.request_timeout).await
}

/// Sum up what a user did
///
/// By the live MemCells of exactly this user.
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}/activity",
    tag = "users",
    params(("user_id" = String, Path, description = "The user"), RangeParameters),
    responses((status = 200, description = "The sum; zero for an unknown user", body = Activity), CommonProblems)
)]
pub(super) async fn activity(
    State(api): State<Api>,
    Segment(user_id): Segment,
    Parameters(range): Parameters<RangeParameters>,
) -> Answer {
    let summary = api.store.activity_summary(&user_id, range.range()).await?;
    answers::value(StatusCode::OK, &Activity::new(summary)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_activity_has_the_datetimes_of_memcells() {
        let summary = ActivitySummary {
            user_id: "u".to_owned(),
            total_count: 2,
            type_distribution: BTreeMap::from([("Conversation".to_owned(), 2)]),
            earliest_activity: crate::memcell::parse_datetime("2025-06-26T00:03:30.1Z"),
            latest_activity: None,
        };
        let expected = json!({
            "user_id": "u", "total_count": 2, "type_distribution": { "Conversation": 2 },
            "earliest_activity": "2025-06-26T00:03:30.100Z", "latest_activity": null,
        });
        assert_eq!(serde_json::to_value(Activity::new(summary).unwrap()).unwrap(), expected);
    }
}
