//! The shapes of bodies, as the OpenAPI document describes them. Those that only describe are never made: MemCells are
//! written and read as they are, and reports have types of their own, which tests compare with what is said here.
#![expect(dead_code, reason = "most of these types describe JSON that is written without them")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// How many MemCells were deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    pub(super) deleted: u64,
}

/// How many MemCells were restored.
#[derive(Serialize, ToSchema)]
pub(super) struct Restored {
    pub(super) restored: u64,
}

/// How many MemCells there are.
#[derive(Serialize, ToSchema)]
pub(super) struct Count {
    pub(super) count: u64,
}

/// The fields of a MemCell that callers set. Each can be absent, and null but for `timestamp`; other fields are kept as
/// they are given.
#[derive(Serialize, ToSchema)]
#[schema(as = MemCellFields)]
pub(super) struct FieldsSchema {
    /// Whose it is.
    user_id: Option<String>,
    /// The group it belongs to.
    group_id: Option<String>,
    /// What it is about, in short.
    summary: Option<String>,
    /// The messages it was made from.
    original_data: Option<Vec<RawDataSchema>>,
    /// Who took part.
    participants: Option<Vec<String>>,
    /// Its kind.
    #[schema(example = "Conversation")]
    r#type: Option<String>,
    /// Its title.
    subject: Option<String>,
    /// What to find it by.
    keywords: Option<Vec<String>>,
    /// Ids of entities it mentions.
    linked_entities: Option<Vec<String>>,
    /// The story of it.
    episode: Option<String>,
    /// What may follow from it.
    foresight_memories: Option<Vec<BTreeMap<String, Value>>>,
    /// Single facts in it.
    event_log: Option<BTreeMap<String, Value>>,
    /// Whatever else belongs to it.
    extend: Option<BTreeMap<String, Value>>,
    /// When it is removed, from the database and from every copy: within about a minute of this time. Never if absent or null.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Any other fields, kept as they are.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A part of the original conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = RawData)]
struct RawDataSchema {
    data_type: Option<String>,
    messages: Option<Vec<MessageSchema>>,
    meta: Option<BTreeMap<String, Value>>,
    /// Any other fields, kept as they are.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// One message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct MessageSchema {
    content: Option<String>,
    files: Option<Vec<Value>>,
    extend: Option<BTreeMap<String, Value>>,
    /// Any other fields, kept as they are.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// A MemCell to be stored.
#[derive(Serialize, ToSchema)]
#[schema(as = NewMemCell)]
pub(super) struct NewMemCellSchema {
    /// 24 hexadecimal digits; made by the server if absent.
    #[schema(required = false, pattern = "^[0-9a-fA-F]{24}$", example = "685c8c52a1b2c3d4e5f60718")]
    event_id: String,
    /// When it took place: ISO 8601, UTC if it has no offset; kept to the millisecond.
    #[schema(format = DateTime, example = "2025-06-26T00:03:30Z")]
    timestamp: String,
    #[serde(flatten)]
    #[schema(value_type = FieldsSchema)]
    fields: (),
}

/// New values for top-level fields of a MemCell. `event_id`, `revision`, `created_at`, `updated_at`, `deleted_at` and
/// `deleted_by` can't be among them.
#[derive(Serialize, ToSchema)]
#[schema(as = MemCellPatch)]
pub(super) struct PatchSchema {
    /// When it took place: ISO 8601, UTC if it has no offset; kept to the millisecond.
    #[schema(required = false, format = DateTime)]
    timestamp: String,
    #[serde(flatten)]
    #[schema(value_type = FieldsSchema)]
    fields: (),
}

/// A stored MemCell.
#[derive(Serialize, ToSchema)]
#[schema(as = MemCell)]
pub(super) struct MemCellSchema {
    /// 24 lowercase hexadecimal digits; another program may have given it an id of another form.
    #[schema(example = "685c8c52a1b2c3d4e5f60718")]
    event_id: String,
    /// When it took place.
    #[schema(required = false, format = DateTime, example = "2025-06-26T00:03:30Z")]
    timestamp: String,
    /// Grows with every change.
    #[schema(required = false)]
    revision: u64,
    /// When it was stored.
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// When it was changed last.
    #[schema(format = DateTime)]
    updated_at: Option<String>,
    /// When it was soft-deleted; absent or null if it is not.
    #[schema(format = DateTime)]
    deleted_at: Option<String>,
    /// Who soft-deleted it.
    deleted_by: Option<String>,
    #[serde(flatten)]
    #[schema(value_type = FieldsSchema)]
    fields: (),
}

/// A part of the MemCells that match.
#[derive(ToSchema)]
pub(super) struct MemCellList {
    #[schema(value_type = Vec<MemCellSchema>)]
    items: Vec<()>,
    /// The `cursor` of the following page; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// MemCells by their ids.
#[derive(ToSchema)]
pub(super) struct MemCellMap {
    #[schema(value_type = BTreeMap<String, MemCellSchema>)]
    items: (),
}

/// The results of a transaction, one per operation.
#[derive(ToSchema)]
pub(super) struct TransactionAnswer {
    items: Vec<OperationAnswer>,
}

/// The result of one operation: `memcell` of an append or update, `deleted` or `restored` of the others.
#[derive(ToSchema)]
struct OperationAnswer {
    /// `append`, `update`, `delete`, `hard_delete` or `restore`.
    op: String,
    #[schema(value_type = Option<MemCellSchema>, nullable = false)]
    memcell: Option<()>,
    /// 1.
    #[schema(nullable = false)]
    deleted: Option<u64>,
    /// 1, or 0 if it was not deleted.
    #[schema(nullable = false)]
    restored: Option<u64>,
}

/// The backends.
#[derive(ToSchema)]
pub(super) struct BackendList {
    items: Vec<BackendSchema>,
}

/// What happened in one interval, and how the backends were at its end.
#[derive(ToSchema)]
#[schema(as = Sample)]
pub(super) struct SampleSchema {
    /// Counts up by one, from 1, since the start.
    number: u64,
    /// The end of the interval.
    #[schema(format = DateTime)]
    at: String,
    /// How long the interval was.
    seconds: f64,
    /// Operations of the store that only read.
    reads: u64,
    /// Operations of the store that write.
    writes: u64,
    /// Operations that failed through no fault of the caller.
    failed: u64,
    /// In the order of the configuration.
    backends: Vec<BackendSampleSchema>,
}

/// One backend in one interval.
#[derive(ToSchema)]
#[schema(as = BackendSample)]
struct BackendSampleSchema {
    name: String,
    /// Its state at the end.
    state: String,
    /// How far it was behind at the end, in seconds; null until it has followed MongoDB for the first time.
    #[schema(required)]
    lag_seconds: Option<f64>,
    /// Changes waiting at the end.
    queue_depth: u64,
    /// Linear memory of its instances at the end, in bytes.
    memory_bytes: u64,
    /// Entries and removals handed to its plugin.
    written: u64,
    /// Keys asked of its plugin.
    read: u64,
    /// Validated reads by outcome, as in `x-memcell-validation`; outcomes that there were none of are left out.
    validations: BTreeMap<String, u64>,
}

/// One backend.
#[derive(ToSchema)]
#[schema(as = Backend)]
pub(super) struct BackendSchema {
    /// Its name in the configuration.
    name: String,
    /// The plugin's file.
    plugin: String,
    /// The SHA-256 digest of the plugin's file, once it is loaded.
    #[schema(required)]
    sha256: Option<String>,
    /// `loading`, `backfilling`, `catching-up`, `live`, `degraded`, `failed` or `closed`.
    state: String,
    /// More about the state, where there is more to say.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// How many instances share its keys.
    shards: u32,
    /// How MemCells are encoded in it: `json` or `bson`.
    format: String,
    /// Whether reads are compared with this backend.
    validates: bool,
    /// Live entries; null while the backend doesn't answer.
    #[schema(required)]
    entries: Option<u64>,
    /// Bytes of their keys and values; null while the backend doesn't answer.
    #[schema(required)]
    bytes: Option<u64>,
    /// Changes waiting in its queues.
    queue_depth: u64,
    /// Bytes that they keep in memory.
    queue_bytes: u64,
    /// Linear memory of all its instances, in bytes.
    memory_bytes: u64,
    /// Instances that were opened in place of lost ones.
    restarts: u64,
    /// How long ago the oldest change happened that is known and not in the backend, in seconds; null until the backend has followed
    /// MongoDB for the first time.
    #[schema(required)]
    lag_seconds: Option<f64>,
    /// The host that keeps a shared backend converged, if it isn't the one that answers.
    #[schema(nullable = false)]
    tailed_by: Option<String>,
}

/// The state of one backend.
#[derive(ToSchema)]
#[schema(as = BackendState)]
pub(super) struct BackendStateSchema {
    name: String,
    /// `loading`, `backfilling`, `catching-up`, `live`, `degraded`, `failed` or `closed`.
    state: String,
}

/// Jobs.
#[derive(ToSchema)]
pub(super) struct JobList {
    items: Vec<JobSchema>,
}

/// Work on a whole collection.
#[derive(ToSchema)]
#[schema(as = Job)]
pub(super) struct JobSchema {
    id: String,
    /// `backfill`, `verify`, `repair`, `restore` or `rekey`.
    kind: String,
    /// Which backend it is about.
    backend: String,
    /// The host whose backend it is; absent if any host that shares it works on it.
    #[schema(nullable = false)]
    host: Option<String>,
    /// `running`, `done`, `failed` or `cancelled`.
    state: String,
    /// Why it failed; while it is running, why it does not get on just now, as far as this host knows.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// Whether whole MemCells are compared.
    deep: bool,
    /// MemCells and copies a second that each host looks at, at the most.
    #[schema(nullable = false)]
    rate: Option<u32>,
    /// When it was begun.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended.
    #[schema(nullable = false, format = DateTime)]
    ended_at: Option<String>,
    progress: JobProgressSchema,
    report: JobReportSchema,
}

/// How far a job is.
#[derive(ToSchema)]
#[schema(as = JobProgress)]
struct JobProgressSchema {
    /// MemCells and copies looked at.
    examined: u64,
    /// About how many there are.
    estimate: u64,
    /// Parts that are done.
    parts_done: u64,
    /// All parts.
    parts: u64,
    /// MemCells and copies a second, since it was begun.
    per_second: f64,
    /// About how much longer it takes.
    #[schema(nullable = false)]
    seconds_left: Option<f64>,
}

/// What a job came to so far.
#[derive(ToSchema)]
#[schema(as = JobReport)]
struct JobReportSchema {
    /// All differences: missing, stale, different, corrupt, resurrected and extra.
    differences: u64,
    /// MemCells and copies looked at.
    examined: u64,
    /// Copies written by a backfill.
    copied: u64,
    /// MemCells that the backend, or MongoDB, does not take.
    rejected: u64,
    /// MemCells without a copy.
    missing: u64,
    /// Copies of an older revision.
    stale: u64,
    /// Copies of the same revision, or a newer one, with other contents.
    different: u64,
    /// Copies that are damaged.
    corrupt: u64,
    /// Copies of MemCells that are soft-deleted.
    resurrected: u64,
    /// Copies of MemCells that MongoDB doesn't have.
    extra: u64,
    /// MemCells that kept changing while they were looked at.
    unsettled: u64,
    /// Entries that no host can have written, left alone.
    foreign: u64,
    /// Differences that were mended.
    repaired: u64,
    /// MemCells that were brought back.
    restored: u64,
    /// Copies whose MemCell was there.
    present: u64,
    /// Copies that a rekey rewrote.
    rewritten: u64,
    /// Copies that a rekey had to leave as they were: their MemCell is gone, or the backend does not take them.
    outdated: u64,
    /// Some of the differences of each kind.
    examples: Vec<FindingSchema>,
    /// Of a rekey: how many copies need which key, by its id; `none`: not encrypted, `unreadable`: damaged.
    #[schema(nullable = false)]
    keys: Option<BTreeMap<String, u64>>,
    /// Of a rekey: how many copies need which dictionary, by its id.
    #[schema(nullable = false)]
    dictionaries: Option<BTreeMap<String, u64>>,
}

/// A difference.
#[derive(ToSchema)]
#[schema(as = Finding)]
struct FindingSchema {
    event_id: String,
    /// The figure of the report that it is counted in.
    kind: String,
    /// Where it differs; never what is there.
    paths: Vec<String>,
    /// Of a copy that can't be read: why.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// Whether it was mended.
    repaired: bool,
}

/// Confirmed mismatches.
#[derive(ToSchema)]
pub(super) struct MismatchList {
    items: Vec<MismatchSchema>,
}

/// A copy that was found to differ, and still did when it was looked at again.
#[derive(ToSchema)]
#[schema(as = Mismatch)]
struct MismatchSchema {
    /// The MemCell.
    event_id: String,
    /// The backend whose copy is wrong.
    backend: String,
    /// `missing`, `different` or `corrupt`.
    kind: String,
    /// What differs, field by field; empty for a copy that is missing.
    differences: Vec<DifferenceSchema>,
    /// When it was first seen.
    #[schema(format = DateTime)]
    first_seen: String,
    /// When it was last confirmed.
    #[schema(format = DateTime)]
    confirmed_at: String,
}

/// One difference between a MemCell and its copy.
#[derive(ToSchema)]
#[schema(as = Difference)]
struct DifferenceSchema {
    /// Where: `original_data[0].messages[1].content`.
    path: String,
    /// In what way.
    kind: String,
    /// MongoDB's value, shortened.
    #[schema(required)]
    mongo: Option<String>,
    /// The copy's value, shortened.
    #[schema(required)]
    kv: Option<String>,
}
