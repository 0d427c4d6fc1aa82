//! Values that come back, and everything else that is noticed.

use bson::{Document, doc};
use proptest::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::*;
use crate::memcell::arbitrary;

fn cell(document: &Document) -> MemCell {
    MemCell::from_raw(RawDocumentBuf::try_from(document).unwrap())
}

/// An envelope with a good checksum around anything.
fn forged(format: Format, payload: &[u8]) -> Vec<u8> {
    let mut stored = encode(format, &cell(&Document::new())).unwrap();
    stored.truncate(HEADER_BYTES);
    stored.extend_from_slice(payload);
    seal(&mut stored);
    stored
}

fn nested_bson(levels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for inner in (1..=levels).rev() {
        bytes.extend_from_slice(&i32::try_from(5 + 8 * inner).unwrap().to_le_bytes());
        bytes.extend_from_slice(b"\x03a\0");
    }
    bytes.extend_from_slice(b"\x05\0\0\0\0");
    bytes.resize(bytes.len() + levels, 0);
    bytes
}

#[test]
fn the_header_is_as_documented() {
    let stored = encode(Format::Json, &cell(&doc! { "_id": "x", "revision": 0x0102_i64 })).unwrap();
    assert_eq!(stored[..8], *b"MCEL\x01\x01\x01\0");
    assert_eq!(stored[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(stored[24..32], xxh3_64_with_seed(&stored[..24], xxh3_64(&stored[32..])).to_le_bytes());
    assert_eq!(stored[32..], *br#"{"_id":"x","revision":{"$numberLong":"258"}}"#);
}

#[test]
fn no_revision_and_revision_zero_are_told_apart() {
    for (document, expected) in [(doc! { "_id": 1 }, None), (doc! { "_id": 1, "revision": 0 }, Some(0))] {
        let stored = encode(Format::Bson, &cell(&document)).unwrap();
        assert_eq!(Envelope::parse(&stored).unwrap().revision(), expected);
    }
}

#[test]
fn what_a_newer_host_may_write_is_named() {
    let good = encode(Format::Json, &cell(&doc! { "_id": 1 })).unwrap();
    for (at, value, expected) in [(4, 2, "version 2"), (5, 9, "format 9"), (6, 4, "flags 4"), (6, 8, "flags 8")] {
        let mut stored = good.clone();
        stored[at] = value;
        seal(&mut stored);
        let error = Envelope::parse(&stored).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_forged_payload_is_corrupt() {
    let deep_json = [b"{\"a\":".repeat(5_000_000), b"1".to_vec()].concat();
    let deep_list = [b"{\"a\":".to_vec(), b"[".repeat(5_000_000)].concat();
    for payload in [&b""[..], b"{", b"[]", b"{} x", b"{\"a\\u0000\":1}", b"{\"revision\":7}", &deep_json, &deep_list] {
        let stored = forged(Format::Json, payload);
        assert!(matches!(Envelope::parse(&stored).unwrap().document(), Err(Corrupt::Payload(_))));
    }
    let invalid_utf8 = b"\x0e\0\0\0\x02a\0\x02\0\0\0\xff\0\0";
    for payload in [&b""[..], b"\x06\0\0\0\0", b"\x08\0\0\0\x77a\0\0", invalid_utf8, &nested_bson(100_000)] {
        let stored = forged(Format::Bson, payload);
        assert!(matches!(Envelope::parse(&stored).unwrap().document(), Err(Corrupt::Payload(_))));
    }
}

#[test]
fn the_deepest_document_that_mongodb_takes_comes_back() {
    let deep = MemCell::from_raw(RawDocumentBuf::from_bytes(nested_bson(190)).unwrap());
    for format in [Format::Json, Format::Bson] {
        let stored = encode(format, &deep).unwrap();
        assert_eq!(Envelope::parse(&stored).unwrap().document().unwrap(), deep);
    }
}

static CODECS: std::sync::LazyLock<Vec<Codec>> = std::sync::LazyLock::new(codecs);

/// A key that tests use.
fn key(name: &str, digit: u8) -> EncryptionKey {
    EncryptionKey::parse(name, &[digit; 64]).unwrap()
}

fn trained() -> Dictionary {
    let payloads: Vec<Vec<u8>> = (0..2000).map(|number| payload(&sample(number))).collect();
    Dictionary::new(&training::train(&payloads, 16 * 1024).unwrap(), DEFAULT_LEVEL).unwrap()
}

fn sample(number: i64) -> MemCell {
    cell(&doc! {
        "_id": bson::oid::ObjectId::from_bytes([number as u8; 12]),
        "user_id": format!("user-{}", number % 17),
        "summary": format!("on day {number} the user asked about the weather, and the user was told that the weather would be as on the day before"),
        "participants": [format!("user-{}", number % 17), "assistant"],
        "episode": "the user asked about the weather, and was told that the weather would be as on the day before",
        "type": "Conversation",
        "revision": number,
    })
}

fn payload(cell: &MemCell) -> Vec<u8> {
    let mut payload = Vec::new();
    write_payload(Format::Json, cell, &mut payload).unwrap();
    payload
}

/// Every way to write a value.
fn codecs() -> Vec<Codec> {
    let dictionary = trained();
    let mut codecs = Vec::new();
    for format in [Format::Json, Format::Bson] {
        let packings = [
            Codec::plain(format),
            Codec::plain(format).compressing(3, None),
            Codec::plain(format).compressing(3, Some(dictionary.clone())),
        ];
        codecs.extend(packings.iter().cloned());
        codecs.extend(packings.into_iter().map(|codec| codec.encrypting(key("a", b'1'))));
    }
    codecs
}

/// What the real codec can't be made to write: a value with a good checksum around anything.
fn resealed(codec: &Codec, cell: &MemCell, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut stored = codec.encode("k", cell).unwrap();
    change(&mut stored);
    seal(&mut stored);
    stored
}

#[test]
fn values_of_the_first_version_are_still_read() {
    // As it was written before there was compression or encryption.
    let stored = b"MCEL\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0";
    let payload = br#"{"_id":"x","revision":{"$numberLong":"258"}}"#;
    let sum = xxh3_64_with_seed(stored, xxh3_64(payload)).to_le_bytes();
    let stored = [&stored[..], &sum, payload].concat();
    for codec in codecs() {
        let document = codec.open("\"x\"", &stored).unwrap().document().unwrap();
        assert_eq!(document, cell(&doc! { "_id": "x", "revision": 258_i64 }));
    }
}

#[test]
fn the_header_says_how_a_value_is_written() {
    let (cell, dictionary) = (sample(5), trained());
    let codec = Codec::plain(Format::Json).compressing(3, Some(dictionary.clone())).encrypting(key("a", b'1'));
    let stored = codec.encode("k", &cell).unwrap();
    assert_eq!(stored[..8], *b"MCEL\x01\x01\x07\0");
    assert_eq!(stored[8..16], key("a", b'1').id().to_bytes());
    assert_eq!(stored[32..40], dictionary.id().to_bytes());
    let encoding = Encoding::peek(&stored[..HEAD_BYTES]).unwrap();
    assert_eq!(encoding.packing, Packing::ZstdWith(dictionary.id()));
    assert_eq!(encoding.key, Some(key("b", b'1').id()), "the id is the key's, whatever its name");
    // The checksum needs no key.
    assert_eq!(Header::verify(&stored[..32], xxh3_64(&stored[32..])).unwrap().revision, Some(5));
    assert_eq!(
        key("a", b'1').id().to_string(),
        format!("{:016x}", u64::from_be_bytes(stored[8..16].try_into().unwrap()))
    );
}

#[test]
fn a_value_is_good_only_where_it_was_put_and_with_its_revision() {
    for codec in codecs().into_iter().filter(|codec| codec.key.is_some()) {
        let (one, other) = (sample(1), sample(2));
        let (first, second) = (codec.encode("one", &one).unwrap(), codec.encode("other", &other).unwrap());
        assert_eq!(codec.open("one", &first).unwrap().document().unwrap(), one);
        // Swapped by somebody who has the store.
        assert_eq!(codec.open("one", &second).unwrap_err(), Corrupt::Forged);
        assert_eq!(codec.open("other", &first).unwrap_err(), Corrupt::Forged);
        // Given another revision, or none, with a good checksum.
        for (at, value) in [(16, 9), (6, first[6] & !1), (5, 3 - first[5])] {
            let mut forged = first.clone();
            forged[at] = value;
            seal(&mut forged);
            assert_eq!(codec.open("one", &forged).unwrap_err(), Corrupt::Forged, "byte {at}");
        }
        // Passed off as plain.
        let mut plain = first.clone();
        plain[8..16].fill(0);
        seal(&mut plain);
        let opened = codec.open("one", &plain).and_then(|envelope| envelope.document());
        assert!(matches!(opened, Err(Corrupt::Payload(_) | Corrupt::Compression(_))), "{opened:?}");
        // With the rest of another value under its own header.
        let spliced = [&first[..HEADER_BYTES], &second[HEADER_BYTES..]].concat();
        let mut spliced = spliced;
        seal(&mut spliced);
        assert_eq!(codec.open("one", &spliced).unwrap_err(), Corrupt::Forged);
    }
}

#[test]
fn where_everything_is_encrypted_nothing_else_is_read() {
    let cell = sample(5);
    for codec in codecs() {
        let stored = codec.encode("k", &cell).unwrap();
        let is_encrypted = codec.key.is_some();
        let strict = codec.encrypted_only();
        let opened = strict.open("k", &stored).map(|envelope| envelope.document().unwrap());
        let (header, rest) = stored.split_at(HEADER_BYTES);
        let verified = strict.verify(header, xxh3_64(rest)).map(|header| header.revision);
        if is_encrypted {
            assert_eq!((opened, verified), (Ok(cell.clone()), Ok(Some(5))));
        } else {
            assert_eq!((opened, verified), (Err(Corrupt::NotEncrypted), Err(Corrupt::NotEncrypted)));
        }
    }
}

#[test]
fn every_changed_bit_of_an_encrypted_value_is_noticed_even_with_a_good_checksum() {
    let codec = Codec::plain(Format::Json).compressing(3, Some(trained())).encrypting(key("a", b'1'));
    let good = codec.encode("k", &sample(1)).unwrap();
    for bit in 0..good.len() * 8 {
        let mut stored = good.clone();
        stored[bit / 8] ^= 1 << (bit % 8);
        assert!(codec.open("k", &stored).is_err(), "bit {bit}");
        seal(&mut stored);
        // The checksum itself is made anew.
        let is_same = stored == good;
        assert_eq!(codec.open("k", &stored).is_ok(), is_same, "bit {bit}");
    }
}

#[test]
fn the_same_document_is_never_encrypted_to_the_same_bytes() {
    let codec = Codec::plain(Format::Bson).encrypting(key("a", b'1'));
    let (first, second) = (codec.encode("k", &sample(1)).unwrap(), codec.encode("k", &sample(1)).unwrap());
    assert_ne!(first[HEADER_BYTES..], second[HEADER_BYTES..]);
    assert_ne!(first[24..32], second[24..32], "the checksum is one of what is stored, not of the document");
    let text = b"weather";
    assert!(!first.windows(text.len()).any(|bytes| bytes == text));
}

#[test]
fn what_is_lacking_is_named() {
    let (old, new) = (key("old", b'1'), key("new", b'2'));
    let stored = Codec::plain(Format::Json).encrypting(old.clone()).encode("k", &sample(1)).unwrap();
    let codec = Codec::plain(Format::Json).encrypting(new);
    let error = codec.open("k", &stored).unwrap_err();
    assert_eq!(error, Corrupt::UnknownKey { id: old.id() });
    assert!(error.to_string().contains(&old.id().to_string()), "{error}");
    assert!(codec.clone().reading(&[old], &[]).open("k", &stored).is_ok(), "old keys are still read with");

    let dictionary = trained();
    let stored = Codec::plain(Format::Json).compressing(3, Some(dictionary.clone())).encode("k", &sample(1)).unwrap();
    let error = codec.open("k", &stored).unwrap_err();
    assert_eq!(error, Corrupt::UnknownDictionary { id: dictionary.id() });
    assert!(codec.reading(&[], &[dictionary]).open("k", &stored).is_ok());
}

/// Documents of other programs that look like what stands for a value in Extended JSON.
#[test]
fn what_json_can_not_tell_apart_is_written_as_bson() {
    let id = bson::oid::ObjectId::new().to_hex();
    for lookalike in [
        doc! { "$oid": id },
        doc! { "$numberLong": "5" },
        doc! { "$date": "2025-01-01T00:00:00Z" },
        doc! { "$scope": {}, "$code": "x" },
        doc! { "$binary": { "base64": "AA==", "subType": "00" } },
        doc! { "$minKey": 1 },
    ] {
        for document in [doc! { "_id": 1, "x": &lookalike }, doc! { "_id": 1, "x": [{ "y": [&lookalike] }] }] {
            let cell = cell(&document);
            for codec in codecs() {
                let stored = codec.encode("k", &cell).unwrap();
                assert_ne!(codec.judge(&stored), Currency::Outdated, "{document}");
                let envelope = codec.open("k", &stored).unwrap();
                assert_eq!(envelope.format(), Format::Bson, "{document}");
                assert_eq!(envelope.document().unwrap(), cell, "{document}");
            }
        }
    }
    // What is one in no position, or names none, is text as ever.
    for document in [
        doc! { "_id": 1, "$oid": "x" },
        doc! { "_id": 1, "x": { "$where": 1 } },
        doc! { "_id": 1, "x": { "a": 1, "$oid": "x" } },
    ] {
        let stored = encode(Format::Json, &cell(&document)).unwrap();
        assert_eq!(Envelope::parse(&stored).unwrap().format(), Format::Json, "{document}");
        assert_eq!(Envelope::parse(&stored).unwrap().document().unwrap(), cell(&document));
    }
}

#[test]
fn what_does_not_pay_is_left_as_it_is() {
    let codec = Codec::plain(Format::Json).compressing(3, None);
    let tiny = cell(&doc! { "_id": 1 });
    let stored = codec.encode("k", &tiny).unwrap();
    assert_eq!(stored, encode(Format::Json, &tiny).unwrap());
    assert_eq!(codec.judge(&stored), Currency::Unclear);
    let large = cell(&doc! { "_id": 1, "text": "again and ".repeat(1000) });
    let stored = codec.encode("k", &large).unwrap();
    assert!(stored.len() < 200, "{}", stored.len());
    assert_eq!(codec.judge(&stored), Currency::Current);
}

#[test]
fn only_what_would_be_written_the_same_way_is_current() {
    let codecs = codecs();
    for (index, codec) in codecs.iter().enumerate() {
        let stored = codec.encode("k", &sample(1)).unwrap();
        for (other_index, other) in codecs.iter().enumerate() {
            let judged = other.judge(&stored[..HEAD_BYTES]);
            assert_eq!(judged == Currency::Current, index == other_index, "{index} {other_index} {judged:?}");
        }
        assert_eq!(codec.judge(&stored[..20]), Currency::Outdated);
    }
    let one = Codec::plain(Format::Json).encrypting(key("a", b'1'));
    let two = Codec::plain(Format::Json).encrypting(key("a", b'2'));
    assert_eq!(two.judge(&one.encode("k", &sample(1)).unwrap()), Currency::Outdated);
}

#[test]
fn nothing_is_unpacked_beyond_the_bound() {
    let codec = Codec::plain(Format::Json).compressing(3, None);
    // Small, and says truly that it becomes more than any document.
    let bomb = zstd::bulk::compress(&vec![b' '; MAX_UNPACKED_BYTES + 1], 3).unwrap();
    assert!(bomb.len() < 100_000);
    let large = cell(&doc! { "_id": 1, "text": "again and ".repeat(1000) });
    let stored = resealed(&codec, &large, |stored| {
        stored.truncate(HEADER_BYTES);
        stored.extend_from_slice(&bomb);
    });
    let error = codec.open("k", &stored).unwrap_err();
    assert!(error.to_string().contains("larger than any document"), "{error}");
    // Two frames, of which the first says its size only.
    let frame = zstd::bulk::compress(&[b' '; 1000], 3).unwrap();
    let stored = resealed(&codec, &large, |stored| {
        stored.truncate(HEADER_BYTES);
        stored.extend_from_slice(&[&frame[..], &frame].concat());
    });
    assert!(matches!(codec.open("k", &stored), Err(Corrupt::Compression(_))));
    // A stream that doesn't say its size.
    let stream = zstd::stream::encode_all(&[b' '; 1000][..], 3).unwrap();
    let stored = resealed(&codec, &large, |stored| {
        stored.truncate(HEADER_BYTES);
        stored.extend_from_slice(&stream);
    });
    assert_eq!(codec.open("k", &stored).unwrap_err(), Corrupt::Compression("it doesn't say its size"));
}

#[test]
fn too_large_a_document_is_stored_without_compression() {
    let codec = Codec::plain(Format::Json).compressing(1, None);
    // Each of these characters takes six bytes of JSON.
    let cell = cell(&doc! { "_id": 1, "text": "\u{1}".repeat(MAX_UNPACKED_BYTES / 6 + 1) });
    let stored = codec.encode("k", &cell).unwrap();
    assert!(stored.len() > MAX_UNPACKED_BYTES);
    assert_eq!(codec.open("k", &stored).unwrap().document().unwrap(), cell);
}

#[test]
fn keys_are_read_from_digits_and_base64_and_never_shown() {
    let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let one = EncryptionKey::parse("one", digits.as_bytes()).unwrap();
    let spaced = format!(" {base64}\n");
    let unpadded = base64.trim_end_matches('=');
    for text in [&spaced, base64, unpadded] {
        assert_eq!(EncryptionKey::parse("one", text.as_bytes()), Ok(one.clone()), "{text}");
    }
    assert_eq!(format!("{one:?}"), format!("EncryptionKey(one {})", one.id()));
    let long = "A".repeat(1000);
    for wrong in
        ["", "s3cret", &digits[1..], &base64[4..], &format!("{digits}00"), &long, &digits.replace(['f', 'F'], "g")]
    {
        let error = EncryptionKey::parse("one", wrong.as_bytes()).unwrap_err();
        assert!(error.starts_with("must be 32 random bytes") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_is_no_dictionary_is_refused() {
    assert!(Dictionary::new(b"", 3).unwrap_err().contains("codec train"));
    assert!(Dictionary::new(b"text", 3).unwrap_err().contains("codec train"));
    assert!(Dictionary::new(b"\x37\xa4\x30\xec\0\0\0\0garbage", 3).unwrap_err().contains("damaged"));
    assert!(training::train(&[b"too few".to_vec()], 1024).is_err());
}

#[test]
fn a_dictionary_pays_for_small_documents() {
    let fresh: Vec<Vec<u8>> = (5000..5200).map(|number| payload(&sample(number))).collect();
    let sizes = training::measure(&fresh, 3, &trained()).unwrap();
    assert!(sizes.dictionary * 2 < sizes.zstd && sizes.zstd < sizes.raw, "{sizes:?}");
}

#[test]
fn an_inventory_says_what_is_lacking() {
    let dictionary = trained();
    let codec = Codec::plain(Format::Json).compressing(3, Some(dictionary.clone())).encrypting(key("a", b'1'));
    let inventory = codec.writes();
    assert_eq!(inventory.missing_from(&codec), None);
    assert!(Codec::plain(Format::Json).writes().is_empty());
    let without = Codec::plain(Format::Json).reading(&[], std::slice::from_ref(&dictionary));
    let reason = inventory.missing_from(&without).unwrap();
    assert!(reason.contains("no [encryption.keys.a]") && reason.contains(&key("a", b'1').id().to_string()), "{reason}");
    let another = without.encrypting(key("a", b'2'));
    let reason = inventory.missing_from(&another).unwrap();
    assert!(reason.contains("named a now is another one"), "{reason}");
    let reason = inventory.missing_from(&Codec::plain(Format::Json).encrypting(key("b", b'1'))).unwrap();
    assert!(reason.contains(&format!("dictionary {}", dictionary.id())), "{reason}");
    let both = inventory.clone().with(&another.writes()).with(&inventory);
    assert!(
        both.missing_from(&another).is_some() && both.missing_from(&another.reading(&[key("a", b'1')], &[])).is_none()
    );
    let text = serde_json::to_string(&both).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), both);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_encoded_comes_back(document in arbitrary::document()) {
        let cell = cell(&document);
        for format in [Format::Json, Format::Bson] {
            let stored = encode(format, &cell).unwrap();
            let envelope = Envelope::parse(&stored).unwrap();
            prop_assert_eq!(envelope.format(), format);
            prop_assert_eq!(envelope.revision(), cell.revision());
            let back = envelope.document().unwrap();
            prop_assert_eq!(back.as_raw().as_bytes(), cell.as_raw().as_bytes());
        }
    }

    #[test]
    fn any_damage_is_noticed(
        document in arbitrary::document(), at: prop::sample::Index, flip in 1_u8.., cut: prop::sample::Index,
    ) {
        for format in [Format::Json, Format::Bson] {
            let good = encode(format, &cell(&document)).unwrap();
            let mut flipped = good.clone();
            flipped[at.index(good.len())] ^= flip;
            prop_assert!(Envelope::parse(&flipped).is_err());
            prop_assert!(Envelope::parse(&good[..cut.index(good.len())]).is_err());
            prop_assert!(Envelope::parse(&[&good[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn whatever_is_encoded_comes_back_however(document in arbitrary::document(), key in ".{0,40}") {
        let cell = cell(&document);
        for codec in CODECS.iter() {
            let stored = codec.encode(&key, &cell).unwrap();
            prop_assert_ne!(codec.judge(&stored), Currency::Outdated);
            let envelope = codec.open(&key, &stored).unwrap();
            prop_assert_eq!(envelope.revision(), cell.revision());
            let back = envelope.document().unwrap();
            prop_assert_eq!(back.as_raw().as_bytes(), cell.as_raw().as_bytes());
        }
    }

    #[test]
    fn damage_is_noticed_however_it_was_encoded(
        document in arbitrary::document(), at: prop::sample::Index, flip in 1_u8.., cut: prop::sample::Index,
    ) {
        for codec in CODECS.iter() {
            let good = codec.encode("k", &cell(&document)).unwrap();
            let mut stored = good.clone();
            stored[at.index(good.len())] ^= flip;
            prop_assert!(codec.open("k", &stored).is_err());
            prop_assert!(codec.open("k", &good[..cut.index(good.len())]).is_err());
            // Whoever makes the checksum anew may change a plain value, but nothing panics.
            seal(&mut stored);
            let forged = codec.open("k", &stored).and_then(|envelope| envelope.document());
            prop_assert!(forged.is_err() || codec.key.is_none() || stored == good);
        }
    }

    #[test]
    fn no_bytes_panic_in_any_envelope(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in CODECS.iter() {
            let stored = resealed(codec, &sample(1), |stored| {
                stored.truncate(HEADER_BYTES);
                stored.extend_from_slice(&bytes);
            });
            let _ = codec.open("k", &stored).and_then(|envelope| envelope.document());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::parse(&bytes);
        for format in [Format::Json, Format::Bson] {
            let stored = forged(format, &bytes);
            let _ = Envelope::parse(&stored).unwrap().document();
        }
    }

    #[test]
    fn no_damaged_payload_panics(
        document in arbitrary::document(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for format in [Format::Json, Format::Bson] {
            let mut payload = Vec::new();
            write_payload(format, &cell(&document), &mut payload).unwrap();
            for (at, byte) in &damage {
                let at = at.index(payload.len());
                payload[at] = *byte;
            }
            let stored = forged(format, &payload);
            if let Ok(back) = Envelope::parse(&stored).unwrap().document() {
                // What was accepted can be used: that is the promise of `document`.
                back.write_canonical_json(&mut Vec::new()).unwrap();
                back.api_json().unwrap();
            }
        }
    }
}
