//! What every key is when the file doesn't say it, and why that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

// [mongodb]: the names that the existing Python application's deployments use, so that pointing at one needs only the
// URI.
pub(super) const DATABASE: &str = "memcell";
pub(super) const COLLECTION: &str = "memcells";
/// Beside the configuration file, so that two configurations never share a data directory by accident.
pub(super) const DATA_DIRECTORY: &str = "./data/mongodb";
/// An election of a replica set takes up to two seconds or so; a caller should not wait much longer than that for
/// nothing.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Ample for an indexed operation, and short enough that a hung server is noticed by clients with the usual 30 s
/// timeout.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

// [http]
/// Loopback: nothing is reachable from outside until somebody says so.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The largest document that MongoDB takes.
pub(super) const MAX_BODY_BYTES: u64 = 16 * MIB;
/// Sixteen of the largest bodies, or ten thousand ordinary ones; decoded, they take some times that.
pub(super) const MAX_BODIES_BYTES: u64 = 256 * MIB;
/// Some times what browsers send with all their cookies.
pub(super) const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// What the HTTP library takes unasked: an honest client sends about ten, with proxies on the way twenty.
pub(super) const MAX_HEADERS: usize = 100;
/// What common proxies let through.
pub(super) const MAX_URI_BYTES: usize = 63 * 1024;
/// More clients than one host serves usefully; idle ones cost some kilobytes each.
pub(super) const MAX_CONNECTIONS: usize = 16_384;
/// Ten times what MongoDB's connection pool works on at once: beyond that, requests only wait for each other.
pub(super) const MAX_REQUESTS: usize = 1024;
/// As long as load balancers keep idle connections, so that they are the first to close.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Three round trips on the worst of networks, and a slow machine's arithmetic.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates are renewed days before they expire.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(MINUTE);
/// What most load balancers and HTTP clients wait.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Shorter than the 30 s after which common supervisors kill, with time left for closing the backends.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

// [validation]
pub(super) const SINGLE_READS: bool = true;
/// Off: a batch read multiplies the work by its size, and background verification covers the same documents.
pub(super) const BATCH_READS: bool = false;
/// The most that a hung backend adds to a read: barely noticeable to a person, 50 times a healthy answer.
pub(super) const READ_BUDGET: Duration = Duration::from_millis(50);
pub(super) const SAMPLE: f64 = 1.0;
/// The mirror is normally milliseconds behind; half a second leaves room for a burst without holding much back.
pub(super) const RECHECK_AFTER: Duration = Duration::from_millis(500);
/// More than an operator reads; at some kilobytes each, a few megabytes.
pub(super) const MISMATCHES: usize = 1000;

// [log]
pub(super) const TRACES_SAMPLE: f64 = 1.0;
pub(super) const LOG_LEVEL: &str = "info";

// [backends.NAME]
/// One: always right, also for plugins that can't be shared; more is a decision about the plugin's data.
pub(super) const SHARDS: u32 = 1;
/// Longer than the longest lag that anything late can have (a host that was down overnight, a paused backfill).
pub(super) const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * HOUR);
/// A thousand times a healthy mirror's delay: whoever waits longer is better told.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(1);

// [backends.NAME.queue], per shard
/// Some seconds of writes at full speed.
pub(super) const QUEUE_CHANGES: usize = 4096;
/// Bounds the queue when documents are large: the changes alone could come to gigabytes.
pub(super) const QUEUE_BYTES: u64 = 64 * MIB;
/// Beyond a hundred or so items, a larger batch gains little.
pub(super) const QUEUE_BATCH: usize = 256;

// [backends.NAME.limits], per instance
/// Roughly 100,000 documents of 2 KiB in an in-memory backend.
pub(super) const MEMORY_BYTES: u64 = 256 * MIB;
/// A thousand times what a batch takes in a healthy local backend, with room for a remote one's hiccup.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Opening may recover a journal or connect to a cluster.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Half of the deadline: a call that computes that long isn't slow for waiting, and the thread is worth freeing for others.
pub(super) const CPU: Duration = Duration::from_secs(1);
/// A full batch of ordinary documents, or four of the largest that MongoDB takes.
pub(super) const RESPONSE_BYTES: u64 = 64 * MIB;
/// A component that a current toolchain links holds a handful of core instances and of tables; this is some times that.
pub(super) const INSTANCES: usize = 16;
pub(super) const TABLES: usize = 16;
/// Function tables of large guests (a language runtime) have some tens of thousands of elements.
pub(super) const TABLE_ELEMENTS: usize = 100_000;
/// A database file or a connection takes three or four; a cluster of fifty nodes fits. Each may be a file descriptor of the
/// host, which usually has 1024: a few shards must not be able to use them up.
pub(super) const HANDLES: usize = 256;
/// Components that bring a language runtime along have 10 to 50 MiB.
pub(super) const COMPONENT_BYTES: u64 = 128 * MIB;
/// The largest such component takes half a minute on a slow machine, once: the result is cached.
pub(super) const COMPILE_TIMEOUT: Duration = Duration::from_secs(2 * MINUTE);

// [registries.NAME]
/// The largest component that is usual comes through a slow line (10 Mbit/s) in that time.
pub(super) const REGISTRY_TIMEOUT: Duration = Duration::from_secs(2 * MINUTE);

// [backends.NAME.supervision], per shard
/// A single hiccup must not open the breaker, a dead store must do so within seconds.
pub(super) const FAILURES_TO_OPEN: u32 = 5;
/// Short at first, because most traps concern one call and a fresh instance works at once; doubled up to half a minute,
/// which is what a restart of a remote store is worth waiting for without hammering it.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// With the back-off above, 20 restarts within 10 minutes mean that no instance lives for any time: a person is needed.
pub(super) const RESTART_LIMIT: u32 = 20;
pub(super) const RESTART_WINDOW: Duration = Duration::from_secs(10 * MINUTE);
