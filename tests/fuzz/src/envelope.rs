//! Values as backends keep them. The first byte chooses how the rest is taken: as a stored value, as one whose checksum is made
//! good before, or as a document that is stored, changed, and read.

use std::sync::LazyLock;

use memcell_host::codec::{Codec, Corrupt, Encoding, EncryptionKey, Envelope, Format, HEAD_BYTES};
use memcell_host::fuzzing;
use memcell_host::memcell::NewMemCell;

use crate::import::stored;

const KEY: &str = "685c8c52a1b2c3d4e5f60718";

/// One of each kind.
static CODECS: LazyLock<Vec<Codec>> = LazyLock::new(|| {
    let key = |letter: char| {
        let text: String = std::iter::repeat_n(letter, 64).collect();
        EncryptionKey::parse("fuzzed", text.as_bytes()).expect("64 digits are a key")
    };
    vec![
        Codec::plain(Format::Json),
        Codec::plain(Format::Bson),
        Codec::plain(Format::Bson).compressing(3, None),
        Codec::plain(Format::Json).encrypting(key('a')),
        Codec::plain(Format::Bson).compressing(1, None).encrypting(key('b')).reading(&[key('a')], &[]),
    ]
});

pub(crate) fn run(data: &[u8]) {
    match data {
        [0, value @ ..] => read(value),
        [1, value @ ..] => {
            let mut value = value.to_vec();
            fuzzing::seal(&mut value);
            read(&value);
        }
        [_, place, bit, line @ ..] => store(*place, *bit, line),
        _ => {}
    }
}

/// Whatever can be read of a value is a document, or the reason why it is none.
fn read(value: &[u8]) {
    let head = value.get(..HEAD_BYTES).unwrap_or(value);
    let peeked = Encoding::peek(head);
    for codec in CODECS.iter() {
        codec.judge(head);
        match codec.open(KEY, value) {
            Ok(envelope) => {
                assert!(peeked.as_ref().is_ok_and(|encoding| encoding.key.is_none()), "nobody encrypted anything");
                check(&envelope);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn check(envelope: &Envelope<'_>) {
    let Ok(cell) = envelope.document() else { return };
    assert_eq!(cell.revision(), envelope.revision());
    let codec = Codec::plain(envelope.format());
    // A document that was never accepted may be one that can't be written again.
    let Ok(value) = codec.encode(KEY, &cell) else { return };
    let again = codec.open(KEY, &value).and_then(|envelope| envelope.document()).expect("it was just written");
    assert_eq!(again.as_raw(), cell.as_raw());
}

/// What was stored is read, and what was changed since is not.
fn store(place: u8, bit: u8, line: &[u8]) {
    let Ok(line) = str::from_utf8(line) else { return };
    let Ok(new) = NewMemCell::from_import_line(line) else { return };
    let cell = stored(new);
    for codec in CODECS.iter() {
        let value = codec.encode(KEY, &cell).expect("what was accepted can be stored");
        let copy = codec.open(KEY, &value).and_then(|envelope| envelope.document()).expect("it was just stored");
        assert_eq!(copy.as_raw(), cell.as_raw());
        let is_encrypted = Encoding::peek(&value).expect("it was just stored").key.is_some();
        let elsewhere = codec.open("another", &value);
        assert_eq!(elsewhere.is_err(), is_encrypted, "what is encrypted belongs to its key");

        let mut changed = value.clone();
        let index = usize::from(place) % changed.len();
        if let Some(byte) = changed.get_mut(index) {
            *byte ^= 1 << (bit % 8);
        }
        assert!(codec.open(KEY, &changed).is_err(), "byte {index} was changed, and nobody noticed");
        if is_encrypted {
            fuzzing::seal(&mut changed);
            // Even by somebody who makes the checksum good, which stands in the bytes from 24 to 31.
            if !(24..32).contains(&index) {
                let error = codec.open(KEY, &changed).expect_err("a forgery was taken for the real thing");
                assert!(!matches!(error, Corrupt::Checksum), "it was made good");
            }
        }
        let shorter = value.get(..index).unwrap_or_default();
        assert!(codec.open(KEY, shorter).is_err(), "a part of it was taken for all of it");
    }
}
