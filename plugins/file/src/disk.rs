//! The file beneath the storage engine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;

/// A file for the engine to work on, whose length others can see.
///
/// It has no locks: those of WASI hold nobody off. The host locks the whole directory instead.
#[derive(Debug)]
pub(crate) struct Disk {
    file: Box<dyn StorageBackend>,
    length: Length,
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
        Self { file: Box::new(file), length: Length::default() }
    }

    pub(crate) fn length(&self) -> Length {
        self.length.clone()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.file.len()?;
        self.length.set(bytes);
        Ok(bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.length.set(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}
