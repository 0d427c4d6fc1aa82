//! What the mirror asks about every document: found in one pass over its fields.

use bson::raw::RawElement;
use bson::spec::ElementType;
use bson::{DateTime, RawBsonRef, RawDocument};

/// Answers about a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Facts {
    pub(super) revision: Option<u64>,
    pub(super) is_deleted: bool,
    pub(super) expires_at: Option<DateTime>,
}

impl Facts {
    /// Of fields that occur twice, the first counts; of a damaged document, what is in front of the damage.
    pub(super) fn of(document: &RawDocument) -> Self {
        Self::at_a_glance(document.as_bytes()).unwrap_or_else(|| Self::with_care(document))
    }

    /// For documents like most: no field that matters has a type that is unusual for it, and no other a rare one. `None`: it isn't like
    /// that, or damaged.
    ///
    /// Every document that is mirrored comes by here, and only three of its fields are wanted: to step over the others, without making
    /// an element of each, is less to do.
    fn at_a_glance(document: &[u8]) -> Option<Self> {
        let (mut revision, mut deleted_at, mut expires_at) = (None, None, None);
        let mut rest = document.get(4..)?;
        loop {
            let (&kind, named) = rest.split_first()?;
            if kind == 0 {
                break;
            }
            let kind = ElementType::from(kind)?;
            let (name, value) = named.split_at_checked(named.iter().position(|byte| *byte == 0)?)?;
            let (value, next) = value.get(1..).and_then(|value| value.split_at_checked(length(kind, value)?))?;
            match name {
                b"revision" => _ = revision.get_or_insert((kind, value)),
                b"deleted_at" => _ = deleted_at.get_or_insert(kind),
                b"expires_at" => _ = expires_at.get_or_insert((kind, value)),
                name if !name.is_ascii() => return None,
                _ => {}
            }
            rest = next;
        }
        Some(Self {
            revision: match revision {
                None | Some((ElementType::Null, _)) => None,
                Some((ElementType::Int32, value)) => {
                    whole_number(RawBsonRef::Int32(i32::from_le_bytes(value.try_into().ok()?)))
                }
                Some((ElementType::Int64, value)) => {
                    whole_number(RawBsonRef::Int64(i64::from_le_bytes(value.try_into().ok()?)))
                }
                Some(_) => return None,
            },
            is_deleted: match deleted_at {
                None | Some(ElementType::Null) => false,
                Some(ElementType::DateTime) => true,
                Some(_) => return None,
            },
            expires_at: match expires_at {
                None | Some((ElementType::Null, _)) => None,
                Some((ElementType::DateTime, value)) => {
                    Some(DateTime::from_millis(i64::from_le_bytes(value.try_into().ok()?)))
                }
                Some(_) => return None,
            },
        })
    }

    fn with_care(document: &RawDocument) -> Self {
        let (mut revision, mut deleted_at, mut expires_at) = (None, None, None);
        for element in document.iter_elements().map_while(Result::ok) {
            let fact = match element.key().as_str() {
                "revision" => &mut revision,
                "deleted_at" => &mut deleted_at,
                "expires_at" => &mut expires_at,
                _ => continue,
            };
            fact.get_or_insert(element);
        }
        Self {
            revision: revision.and_then(value).and_then(whole_number),
            is_deleted: deleted_at.and_then(value).is_some_and(|moment| moment != RawBsonRef::Null),
            expires_at: expires_at.and_then(value).and_then(earliest),
        }
    }
}

fn value(element: RawElement<'_>) -> Option<RawBsonRef<'_>> {
    element.value().ok()
}

fn whole_number(value: RawBsonRef<'_>) -> Option<u64> {
    match value {
        RawBsonRef::Int32(number) => u64::try_from(number).ok(),
        RawBsonRef::Int64(number) => u64::try_from(number).ok(),
        // 2⁶³, so that every revision fits the int64 that the host writes.
        RawBsonRef::Double(number) if number.fract() == 0.0 && (0.0..9_223_372_036_854_775_808.0).contains(&number) => {
            Some(number as u64)
        }
        _ => None,
    }
}

fn earliest(value: RawBsonRef<'_>) -> Option<DateTime> {
    match value {
        RawBsonRef::DateTime(at) => Some(at),
        RawBsonRef::Array(several) => {
            several.into_iter().filter_map(|one| one.ok().and_then(|one| one.as_datetime())).min()
        }
        _ => None,
    }
}

/// Bytes of a value of this type, at the beginning of `bytes`. `None` for types that are rare in MemCells, and for what can't be right.
fn length(kind: ElementType, bytes: &[u8]) -> Option<usize> {
    let counted = |before: usize, least: usize| {
        let count = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let length = before.checked_add(count)?;
        let ends_well = bytes.get(length.checked_sub(1)?) == Some(&0);
        (count >= least && ends_well).then_some(length)
    };
    match kind {
        ElementType::String => counted(4, 1),
        ElementType::EmbeddedDocument | ElementType::Array => counted(0, 5),
        ElementType::Double | ElementType::DateTime | ElementType::Int64 => Some(8),
        ElementType::Int32 => Some(4),
        ElementType::Boolean => Some(1),
        ElementType::ObjectId => Some(12),
        ElementType::Null => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, RawDocumentBuf, doc};
    use proptest::prelude::*;

    use super::*;
    use crate::memcell::arbitrary;

    #[test]
    fn most_documents_take_a_glance() {
        let moment = DateTime::from_millis(1_700_000_000_000);
        for (document, expected) in [
            (doc! {}, (None, false, None)),
            (doc! { "revision": 7, "deleted_at": null, "expires_at": null }, (Some(7), false, None)),
            (
                doc! { "a": { "b": [1.5, "c"] }, "revision": 7_i64, "d": true, "deleted_at": moment },
                (Some(7), true, None),
            ),
            (doc! { "revision": -1, "expires_at": moment }, (None, false, Some(moment))),
        ] {
            let raw = RawDocumentBuf::try_from(&document).unwrap();
            let facts = Facts::at_a_glance(raw.as_bytes());
            let facts = facts.map(|Facts { revision, is_deleted, expires_at }| (revision, is_deleted, expires_at));
            assert_eq!(facts, Some(expected), "{document}");
        }
    }

    proptest! {
        /// Also of documents with a damage, wherever it is.
        #[test]
        fn a_glance_never_misleads(
            document in arbitrary::document(),
            deleted_at in arbitrary::value(),
            expires_at in arbitrary::value(),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let document: Document =
                document.into_iter().chain(doc! { "deleted_at": deleted_at, "expires_at": expires_at }).collect();
            let mut bytes = RawDocumentBuf::try_from(&document).unwrap().into_bytes();
            if let Some((place, byte)) = damage {
                let places = 4..bytes.len() - 1;
                bytes[places.start + place.index(places.len())] = byte;
            }
            let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
            if let Some(facts) = Facts::at_a_glance(raw.as_bytes()) {
                prop_assert_eq!(facts, Facts::with_care(&raw));
            }
        }
    }
}
