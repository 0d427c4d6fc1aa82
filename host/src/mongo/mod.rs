//! MongoDB, the authority. The only folder that names the `mongodb` crate.
//!
//! [`Repository`] is the way in: single documents (`documents`), many of them (`bulk`), several in one transaction
//! (`transaction`), and reads (`reads`). What is sent to the server is built in `filters` and `pipelines`; what comes
//! back wrong passes through `error`. No operation waits longer than the configured time.

mod bulk;
mod connect;
mod documents;
pub mod embedded;
mod error;
mod filters;
mod indexes;
mod pipelines;
mod reads;
mod repository;
mod transaction;

pub use bulk::ChangeSink;
pub use connect::ConnectOptions;
pub use reads::MemCellStream;
pub use repository::Repository;
pub use transaction::{Committed, Transaction};
