//! Digests as people and programs write them: lowercase hexadecimal digits.

use std::fmt::Write as _;

/// Two digits a byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes of a SHA-256 digest, from 64 digits of either case.
pub(crate) fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let mut nibbles = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    let mut next = || nibbles.next().flatten();
    let complete = digest.iter_mut().all(|byte| match (next(), next()) {
        (Some(high), Some(low)) => {
            *byte = high << 4 | low;
            true
        }
        _ => false,
    });
    (complete && nibbles.next().is_none()).then_some(digest)
}
