//! Lines and arrays to be imported. The first byte is the size of the reader's buffer.

use memcell_host::codec::{Codec, Format};
use memcell_host::fuzzing::{self, Imported};
use memcell_host::memcell::{MemCell, NewMemCell};

pub(crate) fn run(data: &[u8]) {
    let Some((&buffer, text)) = data.split_first() else { return };
    let records = fuzzing::import(text, usize::from(buffer) + 1);
    let at_once = fuzzing::import(text, text.len() + 1);
    assert_eq!(shown(&records), shown(&at_once), "the buffer makes a difference");
    let lines = text.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    for record in records {
        assert!((1..=lines).contains(&record.line), "line {} of {lines}", record.line);
        match record.result {
            Ok(new) => keeps_all_of_it(&stored(new)),
            Err(reason) => assert!(!reason.is_empty()),
        }
    }
}

fn shown(records: &[Imported]) -> Vec<String> {
    let shown = |record: &Imported| match &record.result {
        // Documents without an id get a new one each time.
        Ok(new) => format!("{} {:?}", record.line, new.given_event_id()),
        Err(reason) => format!("{} {reason}", record.line),
    };
    records.iter().map(shown).collect()
}

/// The document as it is stored.
pub(crate) fn stored(new: NewMemCell) -> MemCell {
    new.into_memcell(7, 1_700_000_000_000).expect("what was accepted can be stored")
}

/// A document is exported, imported again, and written for the API and for backends: nothing may fail or be lost.
fn keeps_all_of_it(cell: &MemCell) {
    let mut line = Vec::new();
    cell.write_canonical_json(&mut line).expect("what is stored can be exported");
    let line = String::from_utf8(line).expect("an export is UTF-8 text");
    let again = stored(NewMemCell::from_import_line(&line).expect("what was exported can be imported"));
    assert_eq!(again.as_raw(), cell.as_raw(), "{line}");
    cell.api_json().expect("what is stored can be shown");
    let key = cell.key().expect("what is stored has a key");
    for format in [Format::Json, Format::Bson] {
        let codec = Codec::plain(format);
        let value = codec.encode(key.as_str(), cell).expect("what is stored can be mirrored");
        let copy = codec.open(key.as_str(), &value).and_then(|envelope| envelope.document());
        assert_eq!(copy.expect("the copy can be read").as_raw(), cell.as_raw(), "{format:?}");
    }
}
