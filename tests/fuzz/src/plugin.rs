//! What plugins answer: the script of `guest-scripted`, or, if the first byte is odd, of `guest-scripted-keyvalue`. What the host
//! believes of it keeps the contract, and whatever it holds is no danger.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use memcell_host::codec::{Codec, Format};
use memcell_host::config::BackendConfig;
use memcell_host::kv::{Condition, Engine, Entry, KvError, Mark, Plugin, Trial, Trials};
use memcell_host::memcell::DocumentKey;
use memcell_plugin::{Header, Record};
use memcell_tests::artifacts;

const HEAD_BYTES: u32 = 40;

static CONTRACT: LazyLock<Trials> = LazyLock::new(|| load("scripted"));
static KEYVALUE: LazyLock<Trials> = LazyLock::new(|| load("scripted_keyvalue"));

fn load(guest: &str) -> Trials {
    let load = || -> anyhow::Result<Trials> {
        let file: PathBuf = artifacts::guest(guest)?;
        let plugin = Plugin::load(&Engine::new(Engine::default_cache_directory())?, &file, None)?;
        let config = BackendConfig::new("scripted".to_owned(), file);
        Ok(Trials::new(plugin, config)?)
    };
    load().unwrap_or_else(|error| panic!("the guest {guest}: {error:#}"))
}

pub(crate) fn run(data: &[u8]) {
    let Some((kind, script)) = data.split_first() else { return };
    let digits: String = script.iter().map(|byte| format!("{byte:02x}")).collect();
    let (trials, setting) = if kind % 2 == 0 { (&CONTRACT, "script") } else { (&KEYVALUE, "bucket") };
    let mut settings = vec![(setting.to_owned(), digits)];
    if kind % 4 == 3 {
        settings.push(("persistent".to_owned(), "true".to_owned()));
    }
    match trials.with_settings(settings).open(0) {
        Ok(mut trial) => {
            // Each call that costs the instance ends it, as it would in a shard.
            let _ = ask(&mut trial);
        }
        Err(error) => noted(&error),
    }
}

fn noted(error: &KvError) {
    let text = error.to_string();
    // It goes to the log, of which a plugin must not make what it likes.
    assert!(!text.is_empty() && text.len() < 4096 && !text.contains(['\n', '\r', '\u{1b}']), "{text:?}");
}

fn noting<T>(trial: &Trial, answer: Result<T, KvError>) -> Result<Option<T>, KvError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            noted(&error);
            if trial.is_lost() { Err(error) } else { Ok(None) }
        }
    }
}

fn ask(trial: &mut Trial) -> Result<(), KvError> {
    let capabilities = trial.capabilities()?;
    assert!(capabilities.max_batch > 0 && capabilities.max_value_bytes > 0 && capabilities.max_key_bytes >= 256);
    let keys = ["685c8c52a1b2c3d4e5f60718", "second", "third"].map(str::to_owned);
    let answer = trial.get_many(&keys);
    if let Some(entries) = noting(trial, answer)? {
        assert_eq!(entries.len(), keys.len());
        for (key, entry) in keys.iter().zip(entries) {
            let Some(entry) = entry else { continue };
            assert_eq!(entry.key, *key, "an entry that nobody asked for");
            assert!(entry.value.len() as u64 <= u64::from(capabilities.max_value_bytes));
            let _ = Codec::plain(Format::Json).open(key, &entry.value).and_then(|envelope| envelope.document());
            let _ = (Record::decode(&entry.value), Header::decode(&entry.value));
        }
    }
    let answer = trial.digest_many(&keys, HEAD_BYTES);
    if let Some(digests) = noting(trial, answer)? {
        assert_eq!(digests.len(), keys.len());
        for digest in digests.into_iter().flatten() {
            assert_eq!(digest.head.len() as u64, u64::from(digest.value_bytes.min(HEAD_BYTES)));
        }
    }
    let value = Arc::new([7; 40]);
    let entries: Vec<Entry> = (1..)
        .zip(&keys)
        .map(|(stamp, key)| Entry { key: key.clone(), stamp, expires_at: None, value: value.to_vec() })
        .collect();
    let answer = trial.put_many(&entries, Condition::Newer);
    if let Some(outcomes) = noting(trial, answer)? {
        assert_eq!(outcomes.len(), entries.len());
    }
    let marks: Vec<Mark> =
        keys.iter().map(|key| Mark { key: key.clone(), stamp: 9, expires_at: Some(u64::MAX) }).collect();
    let answer = trial.delete_many(&marks, Condition::Always);
    if let Some(outcomes) = noting(trial, answer)? {
        assert_eq!(outcomes.len(), marks.len());
    }
    let mut cursor: Option<String> = None;
    for _ in 0..4 {
        let answer = trial.scan(cursor.as_deref(), 10);
        let Some(page) = noting(trial, answer)? else { break };
        for mark in page.marks {
            let key = DocumentKey::from_backend(mark.key);
            let _ = key.to_bson();
        }
        assert!(page.next.is_none() || page.next != cursor, "a scan that stands still");
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let answer = trial.in_doubt();
    if let Some(names) = noting(trial, answer)? {
        assert!(names.iter().all(|name| !name.is_empty()));
    }
    for answer in [trial.stats().map(drop), trial.flush(), trial.health(), trial.hold(3), trial.close()] {
        noting(trial, answer)?;
    }
    Ok(())
}
