//! Room kept for the time when the disk is full.
//!
//! A delete needs room before it frees any. A file of random bytes lies beside the database; when a put finds the disk full,
//! that file is given up, and what it occupied is left to deletes (and to opening the database again). Puts are refused until
//! the file could be made once more, or deletes have made as much room within the database file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memcell_plugin::Error;

use crate::failure::full;

/// Room for thousands of deletes, and negligible on any disk.
pub(crate) const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

const BLOCK_BYTES: usize = 64 * 1024;

/// How soon after a vain attempt to make the reserve there is another: each fills the disk for a moment.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The pages that a put changes besides those of its values, on the way to them and in the bookkeeping. Those of a value may
/// be twice as large as the value.
const PUT_OVERHEAD_BYTES: u64 = 256 * 1024;

/// The reserve of one shard.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    is_there: bool,
    /// Bytes held when the disk was last found full. What is less now is room within the database file.
    full_at_bytes: Option<u64>,
    /// When it was last tried to make the reserve.
    tried_at: Option<Instant>,
}

impl Reserve {
    /// Makes the reserve, unless it is there. Where it can't be made, the first put tries again.
    pub(crate) fn new(path: PathBuf) -> Self {
        let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES);
        let mut reserve = Self { path, is_there, full_at_bytes: None, tried_at: None };
        let _ = reserve.restore();
        reserve
    }

    /// Whether there is room, as far as is known.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Gives the room up, if there still is any. Returns whether there was.
    pub(crate) fn release(&mut self) -> bool {
        let was_there = std::mem::take(&mut self.is_there);
        // What can't be removed doesn't count as a reserve any more, and is tried to be written again.
        let removed = fs::remove_file(&self.path).is_ok();
        was_there && removed
    }

    /// The disk was found full when `held_bytes` were in it.
    pub(crate) fn found_full(&mut self, held_bytes: u64) {
        self.release();
        self.full_at_bytes = Some(held_bytes);
    }

    /// To be called before entries that come to `put_bytes` are put beside what comes to `held_bytes`, the wasted included.
    ///
    /// # Errors
    /// `quota-exceeded` if there is room neither on the disk nor, after deletes, within the database file.
    pub(crate) fn require(&mut self, file: &str, held_bytes: u64, put_bytes: u64) -> Result<(), Error> {
        if self.is_there {
            return Ok(());
        }
        let full_at_bytes = *self.full_at_bytes.get_or_insert(held_bytes);
        let needed = put_bytes.saturating_mul(2).saturating_add(PUT_OVERHEAD_BYTES).saturating_add(RESERVE_BYTES);
        if held_bytes.saturating_add(needed) <= full_at_bytes {
            return Ok(());
        }
        let is_due = self.tried_at.is_none_or(|tried_at| tried_at.elapsed() >= RETRY_AFTER);
        if is_due && self.restore().is_ok() {
            return Ok(());
        }
        Err(full(file))
    }

    fn restore(&mut self) -> io::Result<()> {
        if self.is_there {
            return Ok(());
        }
        self.tried_at = Some(Instant::now());
        let result = self.fill();
        self.is_there = result.is_ok();
        match &result {
            Ok(()) => self.full_at_bytes = None,
            // A part of it would only be in the way of the deletes.
            Err(_) => drop(fs::remove_file(&self.path)),
        }
        result
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        let mut noise = Noise(RESERVE_BYTES);
        let mut block = vec![0; BLOCK_BYTES];
        for _ in 0..RESERVE_BYTES / BLOCK_BYTES as u64 {
            noise.fill(&mut block);
            file.write_all(&block)?;
        }
        file.sync_data()
    }
}

/// Bytes that no file system can store in less room than they take (the generator xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for bytes in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            for (to, from) in bytes.iter_mut().zip(self.0.to_le_bytes()) {
                *to = from;
            }
        }
    }
}
