//! The route of several writes that take place together or not at all.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::answers::{self, Annotate as _};
use super::body::JsonObject;
use super::error::{Answer, ApiError};
use super::openapi::{BodyProblems, CommonProblems, NotFoundProblem, TakenProblem, UnsupportedProblem};
use super::schemas::{NewMemCellSchema, PatchSchema, TransactionAnswer};
use super::uri::{NoParameters, Parameters};
use crate::Result;
use crate::memcell::{EventId, NewMemCell, Patch, Unique};
use crate::store::{Operation, OperationResult};

/// Writes that take place together or not at all, in their order; later ones see what earlier ones did.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a json object with `operations`")]
pub(super) struct TransactionRequest {
    #[schema(value_type = Vec<OperationRequest>)]
    operations: Vec<Unique>,
}

/// One write.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields, expecting = "a json object with `op`")]
enum OperationRequest {
    /// As `POST /v1/memcells`.
    Append {
        #[schema(value_type = NewMemCellSchema)]
        memcell: Map<String, Value>,
    },
    /// As `PATCH /v1/memcells/{event_id}`.
    Update {
        event_id: String,
        #[schema(value_type = PatchSchema)]
        patch: Map<String, Value>,
    },
    /// As `DELETE /v1/memcells/{event_id}`.
    Delete { event_id: String, deleted_by: Option<String> },
    /// As `DELETE /v1/memcells/{event_id}?hard=true`.
    HardDelete { event_id: String },
    /// As `POST /v1/memcells/{event_id}/restore`.
    Restore { event_id: String },
}

/// The name of an operation, for the answer.
fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Append(_) => "append",
        Operation::Update(..) => "update",
        Operation::Delete(..) => "delete",
        Operation::HardDelete(_) => "hard_delete",
        Operation::Restore(_) => "restore",
    }
}

fn read(value: Value) -> Answer<Operation> {
    if value.is_array() {
        return Err(ApiError::invalid_body("it is a json object, found a list"));
    }
    let request = serde_json::from_value(value).map_err(|error| ApiError::invalid_body(error.to_string()))?;
    let checked = || -> Result<Operation> {
        Ok(match request {
            OperationRequest::Append { memcell } => Operation::Append(NewMemCell::from_api(memcell)?),
            OperationRequest::Update { event_id, patch } => {
                Operation::Update(EventId::parse(&event_id)?, Patch::from_api(patch)?)
            }
            OperationRequest::Delete { event_id, deleted_by } => {
                Operation::Delete(EventId::parse(&event_id)?, deleted_by)
            }
            OperationRequest::HardDelete { event_id } => Operation::HardDelete(EventId::parse(&event_id)?),
            OperationRequest::Restore { event_id } => Operation::Restore(EventId::parse(&event_id)?),
        })
    };
    Ok(checked()?)
}

/// Write several MemCells together
///
/// All of it takes place or nothing; the error of the first operation that fails names its index, from 0: `operation 3:
/// …`. Needs a MongoDB replica set or sharded cluster.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    tag = "memcells",
    request_body = TransactionRequest,
    responses(
        (status = 200, description = "The result of each operation", body = TransactionAnswer, headers(
            ("x-memcell-mirrored" = String),
        )),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
        TakenProblem,
        UnsupportedProblem,
    )
)]
pub(super) async fn transact(
    State(api): State<Api>,
    Parameters(NoParameters): Parameters<NoParameters>,
    JsonObject(request): JsonObject<TransactionRequest>,
) -> Answer {
    let mut operations = Vec::with_capacity(request.operations.len());
    for (index, Unique(value)) in request.operations.into_iter().enumerate() {
        operations.push(read(value).map_err(|error| error.within(format_args!("operation {index}")))?);
    }
    let names: Vec<&'static str> = operations.iter().map(name).collect();
    let written = api.store.transact(operations).await?;
    let body = write(&names, &written.value)?;
    Ok(answers::json(StatusCode::OK, body).with_mirrored(written.mirrored))
}

fn write(names: &[&'static str], results: &[OperationResult]) -> Result<Vec<u8>> {
    let mut out = b"{\"items\":[".to_vec();
    let mut separator = "";
    for (name, result) in names.iter().zip(results) {
        out.extend_from_slice(format!("{separator}{{\"op\":\"{name}\",").as_bytes());
        match result {
            OperationResult::MemCell(cell) => {
                out.extend_from_slice(b"\"memcell\":");
                cell.write_api_json(&mut out)?;
            }
            OperationResult::Deleted => out.extend_from_slice(b"\"deleted\":1"),
            OperationResult::Restored(true) => out.extend_from_slice(b"\"restored\":1"),
            OperationResult::Restored(false) => out.extend_from_slice(b"\"restored\":0"),
        }
        out.push(b'}');
        separator = ",";
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use serde_json::json;

    use super::*;
    use crate::memcell::MemCell;

    const ID: &str = "685c8c52a1b2c3d4e5f60718";

    #[test]
    fn operations_are_read_by_their_name() {
        for (value, expected) in [
            (json!({ "op": "append", "memcell": { "timestamp": "2025-06-26T00:03:30Z" } }), "append"),
            (json!({ "op": "update", "event_id": ID, "patch": { "subject": "s" } }), "update"),
            (json!({ "op": "delete", "event_id": ID }), "delete"),
            (json!({ "op": "delete", "event_id": ID, "deleted_by": "me" }), "delete"),
            (json!({ "op": "hard_delete", "event_id": ID }), "hard_delete"),
            (json!({ "op": "restore", "event_id": ID }), "restore"),
        ] {
            assert_eq!(name(&read(value).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        for (value, code) in [
            (json!(7), "invalid_body"),
            (json!({}), "invalid_body"),
            (json!({ "op": "drop" }), "invalid_body"),
            (json!({ "op": "append" }), "invalid_body"),
            (json!({ "op": "append", "memcell": [] }), "invalid_body"),
            (json!({ "op": "restore", "event_id": ID, "hard": true }), "invalid_body"),
            (json!({ "op": "append", "memcell": {} }), "invalid_document"),
            (json!({ "op": "update", "event_id": ID, "patch": { "revision": 1 } }), "invalid_document"),
            (json!({ "op": "restore", "event_id": "x" }), "invalid_id"),
        ] {
            assert_eq!(read(value.clone()).err().unwrap().code(), code, "{value}");
        }
    }

    #[test]
    fn results_bear_the_names_of_their_operations() {
        let cell = MemCell::from_raw(rawdoc! { "_id": "x" });
        let results = [
            OperationResult::MemCell(cell),
            OperationResult::Deleted,
            OperationResult::Restored(true),
            OperationResult::Restored(false),
        ];
        let written = write(&["append", "hard_delete", "restore", "restore"], &results).unwrap();
        let expected = json!({ "items": [
            { "op": "append", "memcell": { "event_id": "x" } },
            { "op": "hard_delete", "deleted": 1 },
            { "op": "restore", "restored": 1 },
            { "op": "restore", "restored": 0 },
        ] });
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
    }
}
