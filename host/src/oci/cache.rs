//! What has been fetched, on this machine: files named by the digests of what they hold.
//!
//! ```text
//! DIRECTORY/manifests/sha256/DIGEST
//! DIRECTORY/blobs/sha256/DIGEST
//! ```
//!
//! A file appears whole or not at all, and nobody believes it without computing its digest. So any number of hosts may use
//! the same directory, and any file may be removed at any time.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::digest_of;
use super::error::Problem;
use super::manifest::{self, MANIFEST_BYTES};
use super::pull::Pulled;
use crate::hex;

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

/// What the cache has of a component.
pub(super) enum Found {
    Whole(Vec<u8>),
    Nothing,
    Damaged(String),
}

/// One file of it.
enum Content {
    Whole(Vec<u8>),
    Nothing,
    Damaged(String),
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The component whose manifest has this digest.
    ///
    /// # Errors
    /// If it is no component, or larger than `limit`: so it is in the registry then, too.
    pub(super) fn read(&self, digest: &[u8; 32], limit: u64) -> Result<Found, Problem> {
        let layer = match content(&self.manifest(digest), digest, MANIFEST_BYTES) {
            Content::Whole(manifest) => manifest::component(&manifest)?,
            Content::Nothing => return Ok(Found::Nothing),
            Content::Damaged(reason) => return Ok(Found::Damaged(reason)),
        };
        layer.check_size(limit)?;
        Ok(match content(&self.blob(&layer.digest), &layer.digest, layer.size) {
            Content::Whole(bytes) => Found::Whole(bytes),
            Content::Nothing => Found::Nothing,
            Content::Damaged(reason) => Found::Damaged(reason),
        })
    }

    /// Keeps a component. The manifest comes last, so that what it names is there.
    pub(super) fn write(&self, pulled: &Pulled) -> io::Result<()> {
        place(&self.blob(&digest_of(&pulled.component)), &pulled.component)?;
        place(&self.manifest(&pulled.digest), &pulled.manifest)
    }

    fn manifest(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join("manifests/sha256").join(hex::encode(digest))
    }

    fn blob(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join("blobs/sha256").join(hex::encode(digest))
    }
}

/// What a file holds, if it has this digest, and no more than `limit` bytes.
fn content(path: &Path, digest: &[u8; 32], limit: u64) -> Content {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Nothing,
        Err(error) => Content::Damaged(format!("{}: {error}", path.display())),
        Ok(_) if digest_of(&bytes) == *digest => Content::Whole(bytes),
        Ok(_) => Content::Damaged(format!("{} doesn't hold what its name says", path.display())),
    }
}

/// Writes a file under another name first, so that nobody finds half of it, also after a crash.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let said = |what: &str, path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| said("making", folder, error))?;
    }
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{number}.partial", std::process::id()));
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // What can't be removed either is left: it is in nobody's way.
        let _ = fs::remove_file(&partial);
        said("writing", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(component: &[u8]) -> Pulled {
        let manifest = manifest::build(&[0; 32], 2, &digest_of(component), component.len() as u64);
        Pulled { digest: digest_of(&manifest), manifest, component: component.to_vec() }
    }

    fn read(cache: &Cache, pulled: &Pulled) -> Found {
        cache.read(&pulled.digest, 1000).unwrap()
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_damaged_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("oci"));
        let one = pulled(b"component");
        assert!(matches!(read(&cache, &one), Found::Nothing));
        cache.write(&one).unwrap();
        assert!(matches!(read(&cache, &one), Found::Whole(bytes) if bytes == b"component"));
        let error = cache.read(&one.digest, 8).err().unwrap().to_string();
        assert!(error.contains("9 bytes, more than 8"), "{error}");
        let blob = cache.blob(&digest_of(b"component"));
        for damage in [&b"komponent"[..], b"componen", b"component and more", b""] {
            fs::write(&blob, damage).unwrap();
            assert!(matches!(read(&cache, &one), Found::Damaged(reason) if reason.contains("blobs/sha256")));
        }
        fs::remove_file(&blob).unwrap();
        assert!(matches!(read(&cache, &one), Found::Nothing));
        cache.write(&one).unwrap();
        fs::write(cache.manifest(&one.digest), "{}").unwrap();
        assert!(matches!(read(&cache, &one), Found::Damaged(reason) if reason.contains("manifests/sha256")));
        cache.write(&one).unwrap();
        assert!(matches!(read(&cache, &one), Found::Whole(_)));
    }

    #[test]
    fn many_write_the_same_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let one = pulled(&[7; 900]);
        cache.write(&one).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| cache.write(&one).unwrap()));
                scope.spawn(|| (0..200).for_each(|_| assert!(matches!(read(&cache, &one), Found::Whole(_)))));
            }
        });
        assert_eq!(fs::read_dir(folder.path().join("blobs/sha256")).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_place_that_cannot_be_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("oci"), "a file").unwrap();
        let error = Cache::new(folder.path().join("oci")).write(&pulled(b"x")).unwrap_err();
        assert!(error.to_string().contains("oci/blobs/sha256"), "{error}");
    }
}
