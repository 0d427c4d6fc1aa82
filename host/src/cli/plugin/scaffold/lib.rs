//! A MemCell backend that keeps its records in a sorted map, in its own memory: a start, to be replaced by a store of yours.
//!
//! What is kept for a key is a [`Record`]: an entry or the tombstone of one. The crate `memcell-plugin` derives the rules of the
//! contract from these five functions: stamps, tombstones, expiry, limits, positional answers.

use std::collections::BTreeMap;
use std::ops::Bound;

use memcell_plugin::{Backend, Found, Header, Record, Result, Settings, Step, after_cursor, key_of_cursor};

/// See the module documentation.
pub struct __TYPE__(BTreeMap<String, Vec<u8>>);

impl Backend for __TYPE__ {
    fn open(_shard: u32, _settings: &mut Settings) -> Result<Self> {
        Ok(Self(BTreeMap::new()))
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        self.0.get(key).map(|bytes| Record::decode(bytes)).transpose()
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        self.0.insert(key, record.encode());
        Ok(())
    }

    fn forget(&mut self, key: &str, _seen: &Header) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        let from = cursor.map(key_of_cursor).transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.0.range::<str, _>((from, Bound::Unbounded)).take(limit);
        let found = records.map(|(key, bytes)| Ok(Found { key: key.clone(), header: Header::decode(bytes)? }));
        let found = found.collect::<Result<Vec<_>>>()?;
        let next = found.last().map(|last| after_cursor(&last.key));
        Ok(Step { found, next })
    }
}

memcell_plugin::export!(__TYPE__);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_operations_agree_with_the_model() {
        memcell_plugin::testing::check_backend::<__TYPE__>(&[], 256);
    }
}
