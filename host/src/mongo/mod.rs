//! MongoDB, the authority. The only folder that names the `mongodb` crate.
//!
//! [`Repository`] is the way in: single documents (`documents`), many of them (`bulk`), several in one transaction
//! (`transaction`), reads (`reads`), all of them in parts (`ranges`, `walk`), and what anybody changes (`changes`). What hosts
//! agree on among themselves lies beside the MemCells (`leases`, `jobs`, `anchors`), and what became of transactions that backends have prepared (`markers`). What is sent to the server is built in `filters` and `pipelines`; what comes
//! back wrong passes through `error`. No operation waits longer than the configured time.

mod anchors;
mod bulk;
mod changes;
mod connect;
mod documents;
pub mod embedded;
mod error;
mod filters;
mod indexes;
mod jobs;
mod key_locks;
mod leases;
mod markers;
mod pipelines;
mod polling;
mod ranges;
mod reads;
mod repository;
mod restore;
mod transaction;
mod walk;

pub use bulk::ChangeSink;
pub use changes::{ChangeEvent, Changes, ChangesError, Position};
pub use connect::{ConnectOptions, check_uri};
pub use jobs::{Finding, JobKind, JobRecord, JobState, Needs, PartRecord, PartScope, Place, TakenPart, Tally};
pub use leases::{Claim, Holder, Lease, LeaseNote, Sighting};
pub use markers::Decision;
pub use ranges::IdRange;
pub use reads::MemCellStream;
pub(crate) use reads::check_fields;
pub use repository::Repository;
pub use restore::Returned;
pub use transaction::{Committed, Ending, Participants, Transaction};
pub use walk::{Batch, Route, Walk};
