//! What was prepared and has not taken place: the intents of transactions, in a table of their own.
//!
//! - `intents`: (transaction, number of the write) → length of the key (4 bytes, big-endian), key, encoded record
//!
//! A file of before there were intents has no such table, which means the same as an empty one.

use memcell_plugin::{Error, Record, Write};
use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, TableError};

use crate::failure::Failure;

pub(crate) const INTENTS: TableDefinition<'static, (&str, u32), &[u8]> = TableDefinition::new("intents");

/// Bytes before the key.
const LENGTH_BYTES: usize = 4;

/// The table within a transaction of the engine.
pub(crate) struct Intents<'t>(Table<'t, (&'static str, u32), &'static [u8]>);

impl<'t> Intents<'t> {
    pub(crate) fn new(transaction: &'t redb::WriteTransaction) -> Result<Self, Failure> {
        Ok(Self(transaction.open_table(INTENTS)?))
    }

    /// Keeps the writes as the intent of a transaction that has none. Answers how many bytes that takes.
    pub(crate) fn keep(&mut self, transaction: &str, writes: &[Write]) -> Result<u64, Failure> {
        let mut bytes = 0;
        for (number, write) in (0_u32..).zip(writes) {
            let row = encode(write);
            bytes += row.len() as u64;
            self.0.insert((transaction, number), row.as_slice())?;
        }
        Ok(bytes)
    }

    /// Removes the intent of a transaction, and answers its writes in their order.
    pub(crate) fn take(&mut self, transaction: &str) -> Result<Vec<Write>, Failure> {
        let mut writes = Vec::new();
        for number in 0_u32.. {
            let Some(row) = self.0.remove((transaction, number))? else { break };
            writes.push(decode(row.value())?);
        }
        Ok(writes)
    }

    /// Removes the intent of a transaction. Answers whether there was one.
    pub(crate) fn drop_of(&mut self, transaction: &str) -> Result<bool, Failure> {
        let mut number = 0_u32;
        while self.0.remove((transaction, number))?.is_some() {
            number += 1;
        }
        Ok(number > 0)
    }
}

/// The transactions that have an intent.
pub(crate) fn all(engine: &redb::Database) -> Result<Vec<String>, Failure> {
    let intents = match engine.begin_read()?.open_table(INTENTS) {
        Ok(intents) => intents,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut transactions = Vec::new();
    for row in intents.iter()? {
        let (place, _) = row?;
        // Each intent has a first write.
        if let (transaction, 0) = place.value() {
            transactions.push(transaction.to_owned());
        }
    }
    Ok(transactions)
}

fn encode(write: &Write) -> Vec<u8> {
    let record = write.record.encode();
    let mut row = Vec::with_capacity(LENGTH_BYTES + write.key.len() + record.len());
    // Keys have been checked to be far shorter than what four bytes can count.
    row.extend_from_slice(&(write.key.len() as u32).to_be_bytes());
    row.extend_from_slice(write.key.as_bytes());
    row.extend_from_slice(&record);
    row
}

fn decode(row: &[u8]) -> Result<Write, Failure> {
    let cut_short = || Failure::from(Error::corrupt(format!("an intent of {} bytes can't be read", row.len())));
    let (length, rest) = row.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut_short)?;
    let (key, record) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(cut_short)?;
    let key = std::str::from_utf8(key).map_err(|_| cut_short())?;
    Ok(Write { key: key.to_owned(), record: Record::decode(record)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_survive_their_encoding() {
        for value in [None, Some(vec![]), Some(b"value".to_vec())] {
            let write = Write { key: "日\0本".to_owned(), record: Record { stamp: 7, expires_at: Some(9), value } };
            assert_eq!(decode(&encode(&write)).unwrap(), write);
        }
        for cut in [&b""[..], b"\0\0\0\x09key", b"\0\0\0\x02\xff\xff"] {
            assert!(matches!(decode(cut), Err(Failure::Told(Error::Corrupt(_)))));
        }
    }
}
