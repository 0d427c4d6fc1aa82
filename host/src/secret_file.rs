//! Files that hold one secret, as people and systemd, Docker and Kubernetes make them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// What such a file holds, and who else has it.
pub(crate) struct SecretFile {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether it belongs to the user that this process runs as.
    pub(crate) is_ours: bool,
    /// Who may do what with it, the lowest nine bits.
    pub(crate) mode: u32,
}

impl SecretFile {
    /// Reads it, if it has `most` bytes at the most.
    ///
    /// # Errors
    /// What is wrong, to be put behind the name of the file, and without a word of what is in it.
    pub(crate) fn read(path: &Path, most: usize) -> Result<Self, String> {
        let failed = |error: io::Error| format!("can't be read: {error}");
        // Looked at before it is opened: to open a pipe would wait for somebody who writes.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err("is no file".to_owned());
        }
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // All of it at once, so that no part is left behind where it was before it grew.
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > most {
            return Err(format!("has more than {most} bytes"));
        }
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        Ok(Self { bytes, is_ours, mode: metadata.mode() & 0o777 })
    }

    /// As it is.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As text, without the line break at its end.
    ///
    /// # Errors
    /// As [`SecretFile::read`].
    pub(crate) fn text(&self) -> Result<&str, String> {
        str::from_utf8(&self.bytes).map(line).map_err(|_| "is not UTF-8 text".to_owned())
    }
}

/// A secret without the one line break at its end that editors and `echo` leave.
pub(crate) fn line(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_left_out() {
        for (text, expected) in
            [("s e", "s e"), ("s e\n", "s e"), ("s e\r\n", "s e"), (" s\n\n", " s\n"), ("s\r", "s\r"), ("\n", "")]
        {
            assert_eq!(line(text), expected);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let refused = |path: &Path| SecretFile::read(path, 5).err().unwrap();
        assert!(refused(&path).contains("can't be read"));
        assert_eq!(refused(folder.path()), "is no file");
        assert_eq!(refused("/dev/zero".as_ref()), "is no file");
        fs::write(&path, "123456").unwrap();
        assert_eq!(refused(&path), "has more than 5 bytes");
        fs::write(&path, b"s\xff").unwrap();
        assert_eq!(SecretFile::read(&path, 5).unwrap().text(), Err("is not UTF-8 text".to_owned()));
        fs::write(&path, "abc\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let read = SecretFile::read(&path, 5).unwrap();
        assert_eq!((read.text(), read.bytes(), read.mode, read.is_ours), (Ok("abc"), &b"abc\r\n"[..], 0o640, true));
    }
}
