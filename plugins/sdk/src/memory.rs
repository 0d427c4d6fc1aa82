//! Comparing bytes a word at a time. The C library that components are linked with does it byte by byte, and stores compare keys
//! at every step of every search.

/// Takes the place of the C library's function, for all code of a component.
///
/// # Safety
/// As in C: `length` bytes can be read from either address.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "it is found by its name, and is given addresses")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: so the caller says.
    let (left, right) =
        unsafe { (std::slice::from_raw_parts(left, length), std::slice::from_raw_parts(right, length)) };
    compare(left, right)
}

/// Less than, equal to, or more than 0, as `left` is to `right`, which is as long.
fn compare(left: &[u8], right: &[u8]) -> i32 {
    let ((left_words, left_rest), (right_words, right_rest)) = (left.as_chunks(), right.as_chunks());
    for (left, right) in left_words.iter().zip(right_words) {
        if u64::from_ne_bytes(*left) != u64::from_ne_bytes(*right) {
            // Of two numbers with the most significant byte first, the first byte that differs decides.
            return if u64::from_be_bytes(*left) < u64::from_be_bytes(*right) { -1 } else { 1 };
        }
    }
    for (left, right) in left_rest.iter().zip(right_rest) {
        if left != right {
            return i32::from(*left) - i32::from(*right);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn check(left: &[u8], right: &[u8]) {
        assert_eq!(compare(left, right).cmp(&0), left.cmp(right), "{left:?} {right:?}");
    }

    #[test]
    fn every_place_counts() {
        for length in 0..=25 {
            let same = vec![0x80; length];
            check(&same, &same);
            for place in 0..length {
                for byte in [0, 0x7f, 0x81, 0xff] {
                    let mut other = same.clone();
                    other[place] = byte;
                    // What comes behind says the opposite.
                    if let Some(last) = other.get_mut(place + 1..).and_then(<[u8]>::last_mut) {
                        *last = !byte;
                    }
                    check(&same, &other);
                    check(&other, &same);
                }
            }
        }
        assert_eq!(compare(b"", b"").cmp(&0), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_slices(pair in prop::collection::vec((0..3_u8, 0..3_u8), 0..40)) {
            let (left, right): (Vec<u8>, Vec<u8>) = pair.into_iter().unzip();
            check(&left, &right);
        }
    }
}
