//! Random operations against a real server and a model that can't be wrong.

use std::cell::RefCell;

use anyhow::Result;
use memcell_plugin::{
    Backend, Error, Found, Header, Limits, Moment, Outcome, Record, Rule, Settings, Stats, Step, Write, testing,
};
use memcell_remote::Remote;
use memcell_tests::redis::{RedisCluster, RedisServer};

/// What lies between the clock of the model, which stands still near zero, and the times that the server is told. They are in
/// its far future, so that it expires nothing by itself while the model looks.
const SHIFT: u64 = 4_000_000_000_000;

thread_local! {
    /// The servers to be emptied for each sequence of operations.
    static SERVERS: RefCell<Vec<redis::Connection>> = const { RefCell::new(Vec::new()) };
}

/// The plugin, with all times shifted.
struct Shifted(Remote);

fn shifted_clock() -> u64 {
    testing::clock() + SHIFT
}

fn shift_back(header: Header) -> Header {
    Header { expires_at: header.expires_at.map(|at| at - SHIFT), ..header }
}

impl Backend for Shifted {
    fn open(shard: u32, settings: &mut Settings) -> memcell_plugin::Result<Self> {
        SERVERS
            .with_borrow_mut(|servers| servers.iter_mut().try_for_each(|server| redis::cmd("FLUSHALL").exec(server)))
            .map_err(|error| Error::other(error.to_string()))?;
        Ok(Self(Remote::open(shard, settings)?))
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn read(&mut self, key: &str) -> memcell_plugin::Result<Option<Record>> {
        let record = self.0.read(key)?;
        Ok(record.map(|record| Record { expires_at: record.expires_at.map(|at| at - SHIFT), ..record }))
    }

    fn write(&mut self, key: String, record: Record) -> memcell_plugin::Result<()> {
        self.0.write(key, Record { expires_at: record.expires_at.map(|at| at + SHIFT), ..record })
    }

    fn forget(&mut self, key: &str, seen: &Header) -> memcell_plugin::Result<()> {
        self.0.forget(key, seen)
    }

    fn scan(&mut self, cursor: Option<&str>, limit: usize) -> memcell_plugin::Result<Step> {
        let Step { found, next } = self.0.scan(cursor, limit)?;
        let found = found.into_iter().map(|found| Found { header: shift_back(found.header), ..found }).collect();
        Ok(Step { found, next })
    }

    fn read_many(&mut self, keys: &[String]) -> memcell_plugin::Result<Vec<Option<Record>>> {
        let records = self.0.read_many(keys)?.into_iter();
        let shift_back = |record: Record| Record { expires_at: record.expires_at.map(|at| at - SHIFT), ..record };
        Ok(records.map(|record| record.map(shift_back)).collect())
    }

    fn apply(&mut self, mut writes: Vec<Write>, rule: &Rule) -> memcell_plugin::Result<Vec<Outcome>> {
        for write in &mut writes {
            write.record.expires_at = write.record.expires_at.map(|at| at + SHIFT);
        }
        self.0.apply(writes, &Rule::new(rule.condition(), Moment::new(shifted_clock)))
    }

    fn stats(&mut self, _moment: &Moment) -> memcell_plugin::Result<Stats> {
        self.0.stats(&Moment::new(shifted_clock))
    }
}

#[test]
fn random_operations_on_one_server_agree_with_the_model() -> Result<()> {
    let server = RedisServer::start(&[])?;
    SERVERS.set(vec![server.connect()?]);
    testing::check_backend::<Shifted>(&[("address", &server.address())], 256);
    Ok(())
}

#[test]
fn random_operations_on_a_cluster_agree_with_the_model() -> Result<()> {
    let cluster = RedisCluster::start(&[])?;
    SERVERS.set(cluster.nodes[..3].iter().map(RedisServer::connect).collect::<Result<_>>()?);
    testing::check_backend::<Shifted>(&[("address", &cluster.addresses().join(","))], 64);
    Ok(())
}
