//! The keys and dictionaries that the values of a store may have been written with: what is needed to read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Codec, Dictionary, EncryptionKey};

/// By id, as it is shown. A store bears it in its checkpoint, so that whoever opens it can tell whether he can read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// The names of the keys when they were last written with, by their ids.
    keys: BTreeMap<String, String>,
    /// The ids of the dictionaries.
    dictionaries: Vec<String>,
}

impl Inventory {
    pub(super) fn of(key: Option<&EncryptionKey>, dictionary: Option<&Dictionary>) -> Self {
        Self {
            keys: key.into_iter().map(|key| (key.id().to_string(), key.name().to_owned())).collect(),
            dictionaries: dictionary.into_iter().map(|dictionary| dictionary.id().to_string()).collect(),
        }
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.dictionaries.is_empty()
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.keys.extend(other.keys.clone());
        let new = other.dictionaries.iter().filter(|id| !self.dictionaries.contains(id));
        self.dictionaries.extend(new.cloned().collect::<Vec<String>>());
        self.dictionaries.sort();
        self
    }

    /// What of it is among these ids.
    #[must_use]
    pub fn only(mut self, keys: impl Fn(&str) -> bool, dictionaries: impl Fn(&str) -> bool) -> Self {
        self.keys.retain(|id, _| keys(id));
        self.dictionaries.retain(|id| dictionaries(id));
        self
    }

    /// What `codec` lacks of it, and how to mend that; `None`: nothing.
    pub fn missing_from(&self, codec: &Codec) -> Option<String> {
        let known = |id: &str| codec.keys.iter().any(|key| key.id().to_string() == id);
        if let Some((id, name)) = self.keys.iter().find(|(id, _)| !known(id)) {
            let now = match codec.keys.iter().find(|key| key.name() == name) {
                Some(other) => format!("the key that is named {name} now is another one, {}", other.id()),
                None => format!("there is no [encryption.keys.{name}] any more"),
            };
            return Some(format!(
                "it holds values that are encrypted with the key {id}, which was named {name}; {now}. Put that key back (under \
                 whatever name); `memcell rekey` rewrites the values, after which it can be removed. If it is lost, start with an \
                 empty store, which is filled from MongoDB"
            ));
        }
        let known = |id: &str| codec.dictionaries.iter().any(|dictionary| dictionary.id().to_string() == id);
        let missing = self.dictionaries.iter().find(|id| !known(id))?;
        Some(format!(
            "it holds values that are compressed with the dictionary {missing}, which is neither `dictionary` nor among \
             `old_dictionaries`. Add its file to `old_dictionaries`; `memcell rekey` rewrites the values, after which it can be removed. \
             If it is lost, start with an empty store, which is filled from MongoDB"
        ))
    }
}
