//! Where a shard's files are, and what is said when they can't be had.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use memcell_plugin::{Error, Result};

/// Where the sandbox shows the granted directory.
pub(crate) const GRANTED: &str = "/data";

/// The files of one shard, in the granted directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    shard: u32,
}

impl Place {
    /// # Errors
    /// `invalid-argument` if there is no such directory, which means that none was granted.
    pub(crate) fn new(directory: &Path, shard: u32) -> Result<Self> {
        if !fs::metadata(directory).is_ok_and(|found| found.is_dir()) {
            return Err(Error::invalid_argument(
                "no directory is granted: set `directory` in `[backends.NAME.grants]` to where the database files go",
            ));
        }
        Ok(Self { directory: directory.to_owned(), shard })
    }

    /// Which shard it is.
    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    /// The database file's name, as the operator finds it in the granted directory.
    pub(crate) fn database_name(&self) -> String {
        format!("shard-{}.redb", self.shard)
    }

    /// The file that keeps room for deletes.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.directory.join(format!("shard-{}.reserve", self.shard))
    }

    /// The file that remembers crashes.
    pub(crate) fn incidents(&self) -> PathBuf {
        self.directory.join(self.incidents_name())
    }

    /// Its name.
    pub(crate) fn incidents_name(&self) -> String {
        format!("shard-{}.incidents", self.shard)
    }

    /// Whether there is a database file already.
    pub(crate) fn is_new(&self) -> bool {
        !fs::metadata(self.directory.join(self.database_name())).is_ok_and(|found| found.len() > 0)
    }

    /// The database file, which is created if it isn't there.
    ///
    /// # Errors
    /// `invalid-argument` for a directory that can't be written to, `quota-exceeded` for a full disk, `unavailable` otherwise.
    pub(crate) fn open_database(&self) -> Result<File> {
        let name = self.database_name();
        let path = self.directory.join(&name);
        let is_new = self.is_new();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| refused(&name, &error))?;
        if is_new {
            // The name of a new file is on the disk when the directory is.
            File::open(&self.directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| refused(&name, &error))?;
        }
        Ok(file)
    }
}

fn refused(name: &str, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::invalid_argument(format!(
            "{name} can't be written to in the granted directory ({error}): grant it with `read_only = false`, on a file \
             system that is mounted for writing, with the host's user as its owner, and not immutable (lsattr); a symbolic link out of \
             it is not followed"
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::quota_exceeded(format!("there is no room to create {name} in the granted directory"))
        }
        _ => Error::unavailable(format!(
            "{name} can't be opened for writing in the granted directory ({error}): see whether its file system is mounted \
             for writing and whole"
        )),
    }
}
