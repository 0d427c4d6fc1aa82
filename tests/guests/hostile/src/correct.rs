//! The store behind the mask: as small and as correct as can be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use memcell_plugin::guest::Hosted;
use memcell_plugin::{
    Backend, Found, Header, Record, Result, Rule, Session, Settings, Step, Write, after_cursor, key_of_cursor,
    unix_millis,
};

/// Records sorted by key, and what is prepared by transaction.
#[derive(Debug)]
pub(crate) struct Sorted(BTreeMap<String, Record>, BTreeMap<String, Vec<Write>>);

impl Backend for Sorted {
    fn open(_shard: u32, _settings: &mut Settings) -> Result<Self> {
        Ok(Self(BTreeMap::new(), BTreeMap::new()))
    }

    fn read(&mut self, key: &str) -> Result<Option<Record>> {
        Ok(self.0.get(key).cloned())
    }

    fn write(&mut self, key: String, record: Record) -> Result<()> {
        self.0.insert(key, record);
        Ok(())
    }

    fn forget(&mut self, key: &str, _seen: &Header) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> Result<Step> {
        let from = cursor.map(key_of_cursor).transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.0.range::<str, _>((from, Bound::Unbounded)).take(limit);
        let found: Vec<Found> =
            records.map(|(key, record)| Found { key: key.clone(), header: record.header() }).collect();
        let next = found.last().map(|last| after_cursor(&last.key));
        Ok(Step { found, next })
    }

    fn prepare(&mut self, transaction: String, writes: Vec<Write>) -> Result<()> {
        self.1.insert(transaction, writes);
        Ok(())
    }

    fn commit(&mut self, transaction: &str, rule: &Rule) -> Result<()> {
        let writes = self.1.remove(transaction).unwrap_or_default();
        self.apply(writes, rule).map(drop)
    }

    fn abort(&mut self, transaction: &str) -> Result<()> {
        self.1.remove(transaction);
        Ok(())
    }

    fn in_doubt(&mut self) -> Result<Vec<String>> {
        Ok(self.1.keys().cloned().collect())
    }
}

thread_local! {
    static SESSION: RefCell<Session<Sorted>> = const { RefCell::new(Session::new(unix_millis)) };
}

/// Answers the contract's calls from a [`Sorted`].
pub(crate) struct Correct;

impl Hosted for Correct {
    type Backend = Sorted;

    fn with<R>(call: impl FnOnce(&mut Session<Sorted>) -> R) -> R {
        SESSION.with_borrow_mut(call)
    }
}
