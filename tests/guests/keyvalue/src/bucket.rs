//! Buckets: values by key, in memory or as files in the granted directory, and what is peculiar about some of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::PathBuf;

use crate::bindings::exports::wasi::keyvalue::store::Error;

/// Keys in a page.
const PAGE: usize = 100;

/// Where the granted directory is.
const DIRECTORY: &str = "/data";

/// What a cursor begins with; the last key of the page before follows.
const AFTER: &str = "after ";

/// What is peculiar about the answers of a bucket.
#[derive(Clone, Copy)]
pub(crate) enum Whim {
    None,
    ShortAnswer,
    Swapped,
    EndlessListing,
}

/// An open bucket.
pub(crate) struct Held {
    place: Place,
    whim: Whim,
}

enum Place {
    Memory(RefCell<BTreeMap<String, Vec<u8>>>),
    Files(PathBuf),
}

impl Held {
    /// The bucket of that name; see `tests/guests/README.md`.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let memory = || Place::Memory(RefCell::default());
        let (place, whim) = match name {
            "nowhere" => return Err(Error::NoSuchStore),
            "locked" => return Err(Error::AccessDenied),
            "broken" => return Err(Error::Other("broken on purpose".to_owned())),
            "short-answer" => (memory(), Whim::ShortAnswer),
            "swapped" => (memory(), Whim::Swapped),
            "endless-listing" => (memory(), Whim::EndlessListing),
            "leftover" => {
                let leftover = BTreeMap::from([("somebody's".to_owned(), b"value".to_vec())]);
                (Place::Memory(RefCell::new(leftover)), Whim::None)
            }
            name if name.starts_with("files-") => {
                let folder = PathBuf::from(DIRECTORY).join(name);
                fs::create_dir_all(&folder).map_err(other)?;
                (Place::Files(folder), Whim::None)
            }
            _ => (memory(), Whim::None),
        };
        Ok(Self { place, whim })
    }

    pub(crate) fn whim(&self) -> Whim {
        self.whim
    }

    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        match &self.place {
            Place::Memory(values) => values.borrow().get(key).cloned(),
            Place::Files(folder) => fs::read(folder.join(file_name(key))).ok(),
        }
    }

    pub(crate) fn write(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        match &self.place {
            Place::Memory(values) => {
                values.borrow_mut().insert(key, value);
                Ok(())
            }
            Place::Files(folder) => fs::write(folder.join(file_name(&key)), value).map_err(other),
        }
    }

    pub(crate) fn forget(&self, key: &str) -> Result<(), Error> {
        match &self.place {
            Place::Memory(values) => {
                values.borrow_mut().remove(key);
                Ok(())
            }
            Place::Files(folder) => match fs::remove_file(folder.join(file_name(key))) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(other(error)),
                _ => Ok(()),
            },
        }
    }

    /// A page of keys, and the cursor of the next.
    pub(crate) fn page(&self, cursor: Option<String>) -> Result<(Vec<String>, Option<String>), Error> {
        if matches!(self.whim, Whim::EndlessListing) {
            return Ok((Vec::new(), Some("and on".to_owned())));
        }
        let after = match &cursor {
            None => Bound::Unbounded,
            Some(cursor) => {
                let after = cursor.strip_prefix(AFTER);
                Bound::Excluded(after.ok_or_else(|| Error::Other("no cursor of this bucket".to_owned()))?)
            }
        };
        let keys: Vec<String> = match &self.place {
            Place::Memory(values) => values
                .borrow()
                .range::<str, _>((after, Bound::Unbounded))
                .take(PAGE)
                .map(|(key, _)| key.clone())
                .collect(),
            Place::Files(folder) => {
                let mut keys = BTreeMap::new();
                for file in fs::read_dir(folder).map_err(other)? {
                    keys.insert(key_of(&file.map_err(other)?.file_name().to_string_lossy())?, ());
                }
                keys.range::<str, _>((after, Bound::Unbounded)).take(PAGE).map(|(key, ())| key.clone()).collect()
            }
        };
        let next = keys.last().filter(|_| keys.len() == PAGE).map(|last| format!("{AFTER}{last}"));
        Ok((keys, next))
    }
}

fn other(error: std::io::Error) -> Error {
    Error::Other(error.to_string())
}

/// A key as two digits a byte: fit for a file's name whatever the key is.
fn file_name(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(file_name: &str) -> Result<String, Error> {
    let digits: Vec<char> = file_name.chars().collect();
    let bytes: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| Error::Other(format!("{file_name} is no file of this bucket")))
}
