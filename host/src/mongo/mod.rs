//! MongoDB, the authority. The only folder that names the `mongodb` crate.
//!
//! [`Repository`] is the way in: single documents (`documents`), many of them (`bulk`), several in one transaction
//! (`transaction`), reads (`reads`), and what anybody changes (`changes`). What is sent to the server is built in `filters` and `pipelines`; what comes
//! back wrong passes through `error`. No operation waits longer than the configured time.

mod bulk;
mod changes;
mod connect;
mod documents;
pub mod embedded;
mod error;
mod filters;
mod indexes;
mod key_locks;
mod pipelines;
mod polling;
mod reads;
mod repository;
mod transaction;

pub use bulk::ChangeSink;
pub use changes::{ChangeEvent, Changes, ChangesError, Position};
pub use connect::ConnectOptions;
pub use reads::MemCellStream;
pub use repository::Repository;
pub use transaction::{Committed, Transaction};
