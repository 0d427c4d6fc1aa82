//! What was prepared and has not taken place, by transaction.

use std::collections::BTreeMap;

use memcell_plugin::Write;

use crate::records;

/// The intents of all transactions. Each takes the room that its writes will take.
#[derive(Debug, Default)]
pub(crate) struct Intents {
    writes: BTreeMap<String, Vec<Write>>,
    held_bytes: u64,
}

impl Intents {
    /// Keeps the intent of a transaction, in the place of the one that it may have.
    pub(crate) fn keep(&mut self, transaction: String, writes: Vec<Write>) {
        drop(self.take(&transaction));
        if !writes.is_empty() {
            self.held_bytes += size(&writes);
            self.writes.insert(transaction, writes);
        }
    }

    /// Removes the intent of a transaction, and answers its writes in their order.
    pub(crate) fn take(&mut self, transaction: &str) -> Vec<Write> {
        let writes = self.writes.remove(transaction).unwrap_or_default();
        self.held_bytes -= size(&writes);
        writes
    }

    /// The transactions that have one.
    pub(crate) fn all(&self) -> Vec<String> {
        self.writes.keys().cloned().collect()
    }

    /// What the intent of a transaction takes.
    pub(crate) fn size_of(&self, transaction: &str) -> u64 {
        self.writes.get(transaction).map_or(0, |writes| size(writes))
    }

    /// What all of them take.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }
}

/// What writes take, as intents and as records.
pub(crate) fn size(writes: &[Write]) -> u64 {
    writes.iter().map(|write| records::size(&write.key, &write.record)).sum()
}
