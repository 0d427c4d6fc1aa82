//! What documents become when they are encoded, remembered by digest: encoding is nearly all that comparing costs.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Stripes, each with a lock of its own, so that readers seldom meet. A power of two.
const STRIPES: usize = 64;
/// Digests in a stripe: 65,536 documents in all, in 2 MiB. A power of two.
const SLOTS: usize = 1024;

/// The digest of a document's BSON and the digest of its faithful copy.
type Slot = (u128, u128);

/// A table of a fixed size from the digest of a document to the digest of its copy; where two documents meet in a slot, the
/// later one stays.
///
/// The digests are of 128 bits, under a seed that is drawn anew for each table and never leaves the process: a plugin can't
/// look for another payload with the same digest, and by chance two agree less often than memory fails.
pub(super) struct PayloadMemo {
    seed: u64,
    stripes: Vec<Mutex<Box<[Slot]>>>,
}

impl PayloadMemo {
    pub(super) fn new() -> Self {
        let stripe = || Mutex::new(vec![Slot::default(); SLOTS].into_boxed_slice());
        // The standard library's way to randomness: each state is keyed anew.
        let seed = RandomState::new().build_hasher().finish();
        Self { seed, stripes: std::iter::repeat_with(stripe).take(STRIPES).collect() }
    }

    pub(super) fn digest(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_seed(bytes, self.seed)
    }

    /// The digest of the copy that the document with this digest becomes, if it is remembered.
    pub(super) fn copy_of(&self, document: u128) -> Option<u128> {
        let (known, copy) = self.with_slot(document, |slot| *slot)?;
        (known == document).then_some(copy)
    }

    pub(super) fn remember(&self, document: u128, copy: u128) {
        self.with_slot(document, |slot| *slot = (document, copy));
    }

    fn with_slot<T>(&self, document: u128, with: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let place = document as usize;
        let stripe = self.stripes.get(place % STRIPES)?;
        let mut slots = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get_mut(place / STRIPES % SLOTS).map(with)
    }
}

impl fmt::Debug for PayloadMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadMemo").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_stays() {
        let memo = PayloadMemo::new();
        let (first, second) = (5, 5 + ((STRIPES * SLOTS) as u128));
        assert_eq!(memo.copy_of(first), None);
        memo.remember(first, 1);
        assert_eq!((memo.copy_of(first), memo.copy_of(second)), (Some(1), None));
        memo.remember(second, 2);
        assert_eq!((memo.copy_of(first), memo.copy_of(second)), (None, Some(2)));
    }

    #[test]
    fn every_table_has_its_own_digests() {
        assert_ne!(PayloadMemo::new().digest(b"a"), PayloadMemo::new().digest(b"a"));
    }
}
