//! What the configuration names rather than holds: secrets in files, as systemd, Docker and Kubernetes hand them over, keys in files and
//! in the environment, dictionaries in files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::values::path;
use crate::codec::{Dictionary, EncryptionKey, MAX_DICTIONARY_BYTES};
use crate::secret_file::SecretFile;

/// Longer than any password or connection string.
const MOST_BYTES: usize = 64 << 10;
/// More than any key takes as text.
const MAX_KEY_BYTES: usize = 4096;

/// The text of a file, which is named relative to `folder` unless it is absolute. One line break at its end is no part of it.
/// A refusal never quotes it.
pub(super) fn text_of_file(folder: &Path) -> impl Fn(&DeValue<'_>) -> Result<String, String> {
    move |value| {
        let file = path(folder)(value)?;
        read_text(&file).map_err(|reason| format!("names a file that can't be used: {} {reason}", file.display()))
    }
}

fn read_text(file: &Path) -> Result<String, String> {
    let read = SecretFile::read(file, MOST_BYTES)?;
    match read.text()? {
        "" => Err("is empty".to_owned()),
        line if line.contains('\0') => Err("holds a zero byte".to_owned()),
        line => Ok(line.to_owned()),
    }
}

/// Reads a key from a file that nobody else can read.
///
/// # Errors
/// What is wrong with the file, to be put behind its key in the configuration.
pub(super) fn key_from_file(name: &str, path: &Path) -> Result<EncryptionKey, String> {
    let shown = path.display();
    let file = SecretFile::read(path, MAX_KEY_BYTES).map_err(|reason| format!("{shown} {reason}"))?;
    // What belongs to somebody else, such as to root, can be meant for this process's group.
    let forbidden = if file.is_ours { 0o077 } else { 0o037 };
    if file.mode & forbidden != 0 {
        return Err(format!(
            "{shown} can be read or changed by others (its mode is {:03o}): whoever has it can read what is encrypted; chmod 600 it, \
             and think about whether the key is still a secret",
            file.mode
        ));
    }
    EncryptionKey::parse(name, file.bytes()).map_err(|reason| format!("{shown} {reason}"))
}

/// Reads a key from an environment variable.
///
/// # Errors
/// As [`key_from_file`].
pub(super) fn key_from_environment(name: &str, variable: &str) -> Result<EncryptionKey, String> {
    let Some(value) = std::env::var_os(variable) else {
        return Err(format!("the environment variable {variable} is not set"));
    };
    let text = Zeroizing::new(value.into_encoded_bytes());
    EncryptionKey::parse(name, &text).map_err(|reason| format!("the environment variable {variable} {reason}"))
}

/// Reads a dictionary, to be used at this level.
///
/// # Errors
/// As [`key_from_file`].
pub(super) fn dictionary(path: &Path, level: i32) -> Result<Dictionary, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_DICTIONARY_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{shown} can't be read: {error}"))?;
    if bytes.len() > MAX_DICTIONARY_BYTES {
        return Err(format!("{shown} has more than {MAX_DICTIONARY_BYTES} bytes"));
    }
    Dictionary::new(&bytes, level).map_err(|reason| format!("{shown} {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_of_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let read_back = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            read_text(&file)
        };
        for content in ["s e", "s e\n", "s e\r\n"] {
            assert_eq!(read_back(content.as_bytes()).unwrap(), "s e");
        }
        assert_eq!(read_back(b" s\n\n").unwrap(), " s\n");
        for (content, reason) in [(&b""[..], "empty"), (b"\n", "empty"), (b"a\0b", "zero byte"), (b"s\xff", "UTF-8")] {
            let refusal = read_back(content).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        let refusal = read_back(&vec![b'x'; 70_000]).unwrap_err();
        assert!(refusal.contains("more than 65536 bytes"), "{refusal}");
        assert!(read_text(folder.path()).unwrap_err().contains("is no file"));
    }
}
