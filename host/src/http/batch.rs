//! The routes of many MemCells named one by one.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::answers::{self, Annotate as _};
use super::body::{JsonBody, JsonObject, object};
use super::error::{Answer, ApiError, ElementError};
use super::openapi::{BodyProblems, CommonProblems};
use super::parameters::validation;
use super::schemas::{MemCellMap, NewMemCellSchema};
use super::uri::{NoParameters, Parameters};
use crate::memcell::{EventId, MemCell, NewMemCell, Unique};
use crate::store::Mirrored;

/// The most ids in one batch read: the answer is held in memory before it is sent.
const MAX_IDS: usize = 10_000;

/// What became of each element of a batch, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    items: Vec<BatchItem>,
}

/// What became of one element of a batch: it has either an `event_id` or an `error`.
#[derive(Serialize, ToSchema)]
struct BatchItem {
    /// Its place in the batch, from 0.
    index: usize,
    /// The id it is stored under.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// Why it is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ElementError>,
}

impl BatchItem {
    fn new(index: usize, result: crate::Result<Option<EventId>>) -> Self {
        match result {
            Ok(id) => Self { index, event_id: id.map(|id| id.to_string()), error: None },
            Err(error) => Self { index, event_id: None, error: Some(ApiError::from(error).into_element()) },
        }
    }
}

/// Which MemCells to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchGet {
    /// Up to 10,000 ids. Those that are unknown or no ids at all are absent in the answer; naming one twice is naming
    /// it once.
    #[schema(max_items = 10_000)]
    event_ids: Vec<String>,
    /// Answer only these top-level fields, and `event_id`.
    fields: Option<Vec<String>>,
    /// Whether to compare the MemCells with the backend's copies; the default is the server's configuration.
    validate: Option<bool>,
}

/// Append many MemCells
///
/// Each for itself: one that is refused does not hinder the others, and the answer says which.
#[utoipa::path(
    post,
    path = "/v1/memcells/batch",
    tag = "memcells",
    request_body = Vec<NewMemCellSchema>,
    responses(
        (status = 200, description = "What became of each", body = BatchAnswer, headers(
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        BodyProblems,
    )
)]
pub(super) async fn append_many(
    State(api): State<Api>,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonBody(Unique(body)): JsonBody<Unique>,
) -> Answer {
    let Value::Array(elements) = body else {
        return Err(ApiError::invalid_body("a batch is a json array of MemCells"));
    };
    let mut items = Vec::with_capacity(elements.len());
    let (mut indexes, mut cells) = (Vec::new(), Vec::new());
    for (index, element) in elements.into_iter().enumerate() {
        match object(element, "a MemCell").and_then(NewMemCell::from_api) {
            Ok(cell) => {
                indexes.push(index);
                cells.push(cell);
            }
            Err(error) => items.push(BatchItem::new(index, Err(error))),
        }
    }
    let mut mirrored = Mirrored::None;
    if !cells.is_empty() {
        let written = api.store.append_many(cells).await?;
        mirrored = written.mirrored;
        let results = indexes.into_iter().zip(written.value);
        items.extend(results.map(|(index, result)| BatchItem::new(index, result.map(|cell| cell.event_id()))));
        items.sort_unstable_by_key(|item| item.index);
    }
    Ok(answers::value(StatusCode::OK, &BatchAnswer { items })?.with_mirrored(mirrored))
}

/// Get many MemCells
///
/// Answers what MongoDB has of them, by id.
#[utoipa::path(
    post,
    path = "/v1/memcells/batch-get",
    tag = "memcells",
    request_body = BatchGet,
    responses(
        (status = 200, description = "The MemCells that there are", body = MemCellMap, headers(
            ("x-memcell-validation" = String),
        )),
        CommonProblems,
        BodyProblems,
    )
)]
pub(super) async fn get_many(
    State(api): State<Api>,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonObject(wanted): JsonObject<BatchGet>,
) -> Answer {
    let mut seen = HashSet::new();
    let ids = wanted.event_ids.iter().filter_map(|id| EventId::parse(id).ok());
    let ids: Vec<EventId> = ids.filter(|id| seen.insert(*id)).collect();
    if ids.len() > MAX_IDS {
        return Err(ApiError::invalid_argument(format!(
            "{} ids are too many at once: the limit is {MAX_IDS}",
            ids.len()
        )));
    }
    let read = api.store.get_many(&ids, wanted.fields.as_deref(), validation(wanted.validate)).await?;
    let body = write_map(&ids, read.value)?;
    Ok(answers::json(StatusCode::OK, body).with_validation(read.validation))
}

/// `{"items":{"id":{…},…}}`, in the order of `ids`.
fn write_map(ids: &[EventId], cells: Vec<MemCell>) -> crate::Result<Vec<u8>> {
    let mut cells: HashMap<_, _> = cells.into_iter().map(|cell| (cell.event_id(), cell)).collect();
    let mut out = b"{\"items\":{".to_vec();
    let mut separator = "";
    for id in ids {
        let Some(cell) = cells.remove(&Some(*id)) else { continue };
        out.extend_from_slice(format!("{separator}\"{id}\":").as_bytes());
        cell.write_api_json(&mut out)?;
        separator = ",";
    }
    out.extend_from_slice(b"}}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use serde_json::json;

    use super::*;
    use crate::{Error, ErrorKind};

    #[test]
    fn an_item_has_an_id_or_an_error() {
        let id = EventId::parse("685C8C52A1B2C3D4E5F60718").unwrap();
        let item = serde_json::to_value(BatchItem::new(0, Ok(Some(id)))).unwrap();
        assert_eq!(item, json!({ "index": 0, "event_id": "685c8c52a1b2c3d4e5f60718" }));
        let item = serde_json::to_value(BatchItem::new(3, Err(Error::invalid_field("a.b", "no")))).unwrap();
        assert_eq!(
            item,
            json!({ "index": 3, "error": { "code": "invalid_document", "detail": "no", "field": "a.b" } })
        );
        let item = serde_json::to_value(BatchItem::new(4, Err(Error::new(ErrorKind::AlreadyExists, "taken")))).unwrap();
        assert_eq!(item, json!({ "index": 4, "error": { "code": "already_exists", "detail": "taken" } }));
    }

    #[test]
    fn a_map_has_the_order_of_the_request_and_no_gaps() {
        let ids: Vec<EventId> = (0..3).map(|_| EventId::new()).collect();
        let cell = |id: EventId| MemCell::from_raw(rawdoc! { "_id": id.object_id() });
        let written = write_map(&ids, vec![cell(ids[2]), cell(ids[0])]).unwrap();
        let expected =
            format!(r#"{{"items":{{"{0}":{{"event_id":"{0}"}},"{1}":{{"event_id":"{1}"}}}}}}"#, ids[0], ids[2]);
        assert_eq!(String::from_utf8(written).unwrap(), expected);
        assert_eq!(write_map(&ids, Vec::new()).unwrap(), b"{\"items\":{}}");
    }
}
