//! The operator's settings.

use memcell_plugin::{Result, Settings};

/// What the settings come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// `durability`
    pub(crate) durability: Durability,
    /// `cache_size`, in bytes.
    pub(crate) cache_bytes: usize,
    /// `check_on_open`
    pub(crate) check_on_open: bool,
    /// `compact_limit`, in bytes.
    pub(crate) compact_limit: u64,
    /// From which length of the file on its commits spare it being verified after a crash. No setting; tests use small files.
    pub(crate) quick_recovery_from_bytes: u64,
}

/// When a batch of writes is on the disk for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Durability {
    /// When it is answered.
    Immediate,
    /// When `flush` is, which the host calls before it counts on the batch.
    #[default]
    Flush,
}

/// A quarter of the memory that an instance has unless the operator says otherwise: the rest is for the batches on their way
/// in and out.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// What compaction moves within a fraction of a second, so that closing stays within the deadline of a call.
const COMPACT_LIMIT: u64 = 64 * 1024 * 1024;

/// From this length of the file on, each durable commit also records which pages are in use. It costs a second `fsync`, and
/// saves reading the whole file when it is opened after a crash: that would take longer than an opening may.
const QUICK_RECOVERY_FROM_BYTES: u64 = 256 * 1024 * 1024;

impl Options {
    /// # Errors
    /// `invalid-argument` for a value that can't be honoured.
    pub(crate) fn read(settings: &mut Settings) -> Result<Self> {
        let durability = settings
            .choice("durability", &[("immediate", Durability::Immediate), ("flush", Durability::Flush)])?
            .unwrap_or_default();
        let cache_bytes = settings.bytes("cache_size")?.unwrap_or(CACHE_BYTES);
        Ok(Self {
            durability,
            // Beyond what a component can address, the cache is as large as its memory in any case.
            cache_bytes: usize::try_from(cache_bytes).unwrap_or(usize::MAX),
            check_on_open: settings.boolean("check_on_open")?.unwrap_or(false),
            compact_limit: settings.bytes("compact_limit")?.unwrap_or(COMPACT_LIMIT),
            quick_recovery_from_bytes: QUICK_RECOVERY_FROM_BYTES,
        })
    }
}
