//! The hash slot of a key in a Redis Cluster.

/// How many hash slots a cluster has.
pub(crate) const SLOTS: u16 = 16384;

/// The slot of `prefix` and `key`, one after the other: CRC-16 (XMODEM) of them, or of what is between the first `{` and the
/// next `}` if that is not empty. There are no braces in `prefix`.
pub(crate) fn slot_of(prefix: &[u8], key: &[u8]) -> u16 {
    let crc = match hash_tag(key) {
        Some(tag) => crc16(0, tag),
        None => crc16(crc16(0, prefix), key),
    };
    crc % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|byte| *byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

/// Goes on from `crc`, which is 0 at the beginning.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        let index = (crc >> 8) ^ u16::from(*byte);
        (crc << 8) ^ TABLE.get(usize::from(index)).copied().unwrap_or_default()
    })
}

const TABLE: [u16; 256] = table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(0, b"123456789"), 0x31C3);
        let of = |key: &str| slot_of(b"", key.as_bytes());
        for (key, slot) in [("", 0), ("foo", 12182), ("foo{bar}{zap}", 5061), ("{bar}", 5061), ("foo{}{bar}", 8363)] {
            assert_eq!(of(key), slot, "{key:?}");
        }
        assert_eq!(of("foo{{bar}}zap"), of("{{bar}"));
        assert_eq!(slot_of(b"fo", b"o"), 12182);
        assert_eq!(slot_of(b"memcell:", b"foo{bar}{zap}"), 5061);
    }
}
