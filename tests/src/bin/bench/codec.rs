//! What it costs to compress and to encrypt copies, beside writing and reading them as they are.

use anyhow::Result;
use memcell_host::codec::{Codec, DEFAULT_LEVEL, Dictionary, EncryptionKey, Format, training, write_payload};
use memcell_host::memcell::{MemCell, NewMemCell};
use memcell_tests::bench::{Plan, Suite, Summary};
use memcell_tests::sample::Samples;

const DOCUMENTS: usize = 100;
const DICTIONARY_BYTES: usize = 64 << 10;

const PLAN: Plan = Plan { pairs: 24, iterations: 10, warm_up: 3 };

pub(crate) fn run() -> Result<Summary> {
    let cells = documents(5, DOCUMENTS)?;
    let mut payloads = Vec::new();
    for cell in documents(6, 2000)? {
        let mut payload = Vec::new();
        write_payload(Format::Bson, &cell, &mut payload)?;
        payloads.push(payload);
    }
    let dictionary = training::train(&payloads, DICTIONARY_BYTES)?;
    let dictionary = Dictionary::new(&dictionary, DEFAULT_LEVEL).map_err(anyhow::Error::msg)?;
    let key = EncryptionKey::parse("bench", "7".repeat(64).as_bytes()).map_err(anyhow::Error::msg)?;
    let plain = || Codec::plain(Format::Bson);
    let mut suite = Suite::new("codec");
    for (what, codec) in [
        ("zstd", plain().compressing(DEFAULT_LEVEL, None)),
        ("zstd and dictionary", plain().compressing(DEFAULT_LEVEL, Some(dictionary.clone()))),
        ("encryption", plain().encrypting(key.clone())),
        ("all of it", plain().compressing(DEFAULT_LEVEL, Some(dictionary)).encrypting(key)),
    ] {
        let (with, without) = (values(&codec, &cells)?, values(&plain(), &cells)?);
        let bytes = |values: &[Vec<u8>]| values.iter().map(Vec::len).sum::<usize>() / values.len();
        eprintln!("{what}: {} bytes a copy, {} without", bytes(&with), bytes(&without));
        suite
            .row(&format!("write a copy: {what} / as it is"))
            .plan(PLAN)
            .items(DOCUMENTS)
            .compare(|| values(&codec, &cells), || values(&plain(), &cells))?;
        suite
            .row(&format!("read a copy: {what} / as it is"))
            .plan(PLAN)
            .items(DOCUMENTS)
            .compare(|| read(&codec, &with), || read(&plain(), &without))?;
    }
    suite.finish()
}

fn documents(seed: u64, count: usize) -> Result<Vec<MemCell>> {
    let documents = Samples::new(seed).take(count);
    documents
        .map(|sample| {
            let fields = sample.as_object().cloned().unwrap_or_default();
            Ok(NewMemCell::from_api(fields)?.into_memcell(1, 0)?)
        })
        .collect()
}

fn values(codec: &Codec, cells: &[MemCell]) -> Result<Vec<Vec<u8>>> {
    cells.iter().map(|cell| Ok(codec.encode("bench", cell)?)).collect()
}

fn read(codec: &Codec, values: &[Vec<u8>]) -> Result<Vec<MemCell>> {
    values.iter().map(|value| Ok(codec.open("bench", value)?.document()?)).collect()
}
