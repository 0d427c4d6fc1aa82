//! The indexes of the collection.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::error::ErrorKind as DriverKind;
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};

use super::connect::bounded;
use super::error::driver_error;
use crate::Result;

/// How long to wait for indexes that are being built.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// MongoDB's code for a collection that doesn't exist yet.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// Creates those that are missing. An index that another program made on the same keys serves as well, whatever its
/// name and options are; asking for it again under our name would be an error.
pub(super) async fn ensure(collection: &Collection<RawDocumentBuf>, timeout: Duration) -> Result<()> {
    let present = keys_present(collection, timeout).await?;
    let missing: Vec<IndexModel> = wanted().into_iter().filter(|index| !present.contains(&index.keys)).collect();
    if !missing.is_empty() {
        bounded(BUILD_TIMEOUT, collection.create_indexes(missing)).await?;
    }
    Ok(())
}

/// Creates them all in a collection that is there and has none of them: it is a new one, made by a write after the one before was dropped
/// or another took its name. Where some are missing, somebody may have reasons. Answers whether it did.
pub(super) async fn restore(collection: &Collection<RawDocumentBuf>, timeout: Duration) -> Result<bool> {
    let (present, wanted) = (keys_present(collection, timeout).await?, wanted());
    if present.is_empty() || wanted.iter().any(|index| present.contains(&index.keys)) {
        return Ok(false);
    }
    bounded(BUILD_TIMEOUT, collection.create_indexes(wanted)).await?;
    Ok(true)
}

/// What the indexes of a collection are on; of one that isn't there: nothing.
pub(super) async fn keys_present<T: Send + Sync>(
    collection: &Collection<T>,
    timeout: Duration,
) -> Result<Vec<Document>> {
    let listed = bounded(timeout, async {
        let indexes: Vec<IndexModel> = collection.list_indexes().await?.try_collect().await?;
        Ok(indexes.into_iter().map(|index| directions_as_int32(&index.keys)).collect())
    });
    match listed.await {
        Err(error) if driver_error(&error).is_some_and(is_missing_collection) => Ok(Vec::new()),
        listed => listed,
    }
}

fn is_missing_collection(error: &mongodb::error::Error) -> bool {
    matches!(&*error.kind, DriverKind::Command(command) if command.code == NAMESPACE_NOT_FOUND)
}

/// Shells and drivers write the direction 1 as a double or an int64, too.
fn directions_as_int32(keys: &Document) -> Document {
    let direction = |value: &bson::Bson| match value {
        bson::Bson::Double(direction) if *direction == 1.0 => 1.into(),
        bson::Bson::Double(direction) if *direction == -1.0 => (-1).into(),
        bson::Bson::Int64(1) => 1.into(),
        bson::Bson::Int64(-1) => (-1).into(),
        other => other.clone(),
    };
    keys.iter().map(|(name, value)| (name.clone(), direction(value))).collect()
}

fn wanted() -> Vec<IndexModel> {
    let sparse = |keys| {
        let options = IndexOptions::builder().sparse(true).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    // MongoDB removes what has expired, about once a minute.
    let expiring = |keys| {
        let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    let plain = |keys| IndexModel::builder().keys(keys).build();
    vec![
        sparse(doc! { "deleted_at": 1 }),
        plain(doc! { "user_id": 1, "deleted_at": 1, "timestamp": -1 }),
        plain(doc! { "group_id": 1, "deleted_at": 1, "timestamp": -1 }),
        sparse(doc! { "participants": 1 }),
        plain(doc! { "user_id": 1, "type": 1, "deleted_at": 1, "timestamp": -1 }),
        plain(doc! { "group_id": 1, "type": 1, "deleted_at": 1, "timestamp": -1 }),
        plain(doc! { "created_at": 1 }),
        expiring(doc! { "expires_at": 1 }),
        plain(doc! { "updated_at": 1 }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_compare_whatever_their_number_type() {
        let written = doc! { "a": 1.0, "b": -1_i64, "c": "text" };
        assert_eq!(directions_as_int32(&written), doc! { "a": 1, "b": -1, "c": "text" });
    }
}
