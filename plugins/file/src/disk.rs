//! The file beneath the storage engine.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// How much is read at a time while one page after the other is asked for. Each read is a call out of the sandbox.
const AHEAD_BYTES: usize = 64 * 1024;

/// A file for the engine to work on, whose length others can see.
///
/// Who goes through the records in the order of their keys (a scan, a verify) mostly asks for pages in the order that they have in the
/// file: such are read several at a time.
///
/// It has no locks: those of WASI hold nobody off. The host locks the whole directory instead.
#[derive(Debug)]
pub(crate) struct Disk {
    file: Box<dyn StorageBackend>,
    length: Length,
    ahead: Mutex<Ahead>,
}

/// What was read of the file without having been asked for yet.
#[derive(Debug, Default)]
struct Ahead {
    start: u64,
    bytes: Vec<u8>,
    /// Where the last read ended.
    last_end: u64,
}

impl Ahead {
    /// Copies what is there at `offset`, if all of it is.
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let found = from.and_then(|from| self.bytes.get(from..)?.get(..out.len()));
        found.inspect(|found| out.copy_from_slice(found)).is_some()
    }

    /// The file is about to change between the two.
    fn forget(&mut self, start: u64, end: u64) {
        if start < self.start + self.bytes.len() as u64 && end > self.start {
            self.bytes.clear();
        }
    }
}

/// How long the file is, as far as the engine has made it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Length(Arc<AtomicU64>);

impl Length {
    /// In bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl Disk {
    pub(crate) fn new(file: impl StorageBackend) -> Self {
        Self { file: Box::new(file), length: Length::default(), ahead: Mutex::default() }
    }

    pub(crate) fn length(&self) -> Length {
        self.length.clone()
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from `offset` on what there is, [`AHEAD_BYTES`] at the most. Nothing is there if that fails: whoever asks for less
    /// may be luckier.
    fn read_ahead(&self, ahead: &mut Ahead, offset: u64) {
        let rest = self.length.bytes().saturating_sub(offset);
        ahead.start = offset;
        ahead.bytes.resize(usize::try_from(rest).unwrap_or(usize::MAX).min(AHEAD_BYTES), 0);
        if self.file.read(offset, &mut ahead.bytes).is_err() {
            ahead.bytes.clear();
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.file.len()?;
        self.length.set(bytes);
        Ok(bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut ahead = self.ahead();
        let goes_on = ahead.last_end == offset;
        ahead.last_end = offset.saturating_add(out.len() as u64);
        if ahead.copy(offset, out) {
            return Ok(());
        }
        if goes_on && out.len() < AHEAD_BYTES {
            self.read_ahead(&mut ahead, offset);
            if ahead.copy(offset, out) {
                return Ok(());
            }
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.ahead().forget(0, u64::MAX);
        self.file.set_len(bytes)?;
        self.length.set(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ahead().forget(offset, offset.saturating_add(data.len() as u64));
        self.file.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    const PAGE: usize = 4096;

    /// Counts the reads, and fails those that reach beyond some place.
    #[derive(Debug)]
    struct Watched {
        file: InMemoryBackend,
        reads: Arc<AtomicU64>,
        readable: u64,
    }

    impl StorageBackend for Watched {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            match offset + out.len() as u64 <= self.readable {
                true => self.file.read(offset, out),
                false => Err(io::Error::other("a bad place")),
            }
        }

        fn set_len(&self, bytes: u64) -> io::Result<()> {
            self.file.set_len(bytes)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.file.write(offset, data)
        }
    }

    /// A disk with so many pages, each full of its number, and the count of reads.
    fn disk(pages: u8, readable: u64) -> (Disk, Arc<AtomicU64>) {
        let reads = Arc::new(AtomicU64::new(0));
        let disk = Disk::new(Watched { file: InMemoryBackend::new(), reads: Arc::clone(&reads), readable });
        disk.set_len(u64::from(pages) * PAGE as u64).unwrap();
        for page in 0..pages {
            disk.write(u64::from(page) * PAGE as u64, &[page; PAGE]).unwrap();
        }
        (disk, reads)
    }

    fn page(disk: &Disk, number: u8) -> io::Result<u8> {
        let mut out = [0xff; PAGE];
        disk.read(u64::from(number) * PAGE as u64, &mut out)?;
        assert!(out.iter().all(|byte| *byte == out[0]));
        Ok(out[0])
    }

    #[test]
    fn one_page_after_the_other_takes_few_reads() {
        let (disk, reads) = disk(200, u64::MAX);
        for number in 0..200 {
            assert_eq!(page(&disk, number).unwrap(), number);
        }
        // Ahead from the very beginning, which is where a last read that was none ended.
        assert_eq!(reads.load(Ordering::Relaxed), 200_u64.div_ceil((AHEAD_BYTES / PAGE) as u64));
        for number in [7, 3, 180, 40] {
            assert_eq!(page(&disk, number).unwrap(), number);
        }
        assert_eq!(reads.load(Ordering::Relaxed), 13 + 4);
    }

    #[test]
    fn what_was_written_since_is_read() {
        let (disk, _) = disk(40, u64::MAX);
        assert_eq!((page(&disk, 0).unwrap(), page(&disk, 1).unwrap()), (0, 1));
        // Across the end of one page and the beginning of the next.
        disk.write(2 * PAGE as u64, &[70; 2 * PAGE]).unwrap();
        assert_eq!((page(&disk, 2).unwrap(), page(&disk, 3).unwrap(), page(&disk, 4).unwrap()), (70, 70, 4));
        disk.set_len(5 * PAGE as u64).unwrap();
        disk.set_len(40 * PAGE as u64).unwrap();
        assert_eq!((page(&disk, 4).unwrap(), page(&disk, 5).unwrap()), (4, 0));
    }

    #[test]
    fn a_bad_place_further_on_is_no_trouble() {
        let (disk, _) = disk(40, 10 * PAGE as u64);
        for number in 0..10 {
            assert_eq!(page(&disk, number).unwrap(), number);
        }
        page(&disk, 10).unwrap_err();
    }
}
