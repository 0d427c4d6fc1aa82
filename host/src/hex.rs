//! Digests as people and programs write them: lowercase hexadecimal digits.

/// Two digits a byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let digits: Vec<u8> = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    // Digits are UTF-8.
    String::from_utf8(digits).unwrap_or_default()
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
