//! What the cases hold backends to: sentences of `wit/kv.wit`, word by word.

use crate::kv::KvError;

macro_rules! sentences {
    ($($name:ident = $sentence:literal;)*) => {
        $(pub(super) const $name: &str = $sentence;)*

        #[cfg(test)]
        const ALL: &[&str] = &[$($sentence),*];
    };
}

sentences! {
    // Answers.
    POSITIONAL = "Answers are positional: one per input, in the order of the inputs.";
    IN_ORDER = "The same key may occur more than once in a call; writes to it then take place in the order given.";
    EACH_ATOMIC = "A call is not atomic, each of its items is.";
    BROKEN_INSTANCE = "A call that traps, or outlives the deadline that the operator configured, costs the backend its instance";
    REPEATABLE = "the host may repeat it, and repeating it does no harm.";

    // Reading.
    GET = "The entry of each key, `none` for a key that has none.";
    EMPTY_VALUE = "An empty value is an entry.";
    ANY_CHARACTER = "Any character may occur, NUL included; an empty key doesn't.";
    OPAQUE_VALUE = "Opaque, often encrypted, possibly empty.";

    // Writing.
    PUT = "Stores each entry if `condition` allows it.";
    DELETE = "Removes the entry of each key if `condition` allows it, and leaves the mark behind as a tombstone, also where there was no entry.";
    PUT_OVER_TOMBSTONE = "A put over a tombstone takes the tombstone's place.";
    TOMBSTONE_KEPT = "A tombstone is kept until its `expires-at`, at the least.";
    VACANT = "A key without either accepts every write.";
    NEWER = "If its stamp is larger than the stored one.";
    NOT_OLDER = "If its stamp is larger than the stored one or equal to it.";
    ALWAYS = "Whatever the stored stamp is. Afterwards the stored stamp is the larger of the two: it never goes down.";
    STALE = "The stored stamp forbade it; nothing changed.";
    ATOMIC = "Judging and writing are one atomic step.";
    STAMP = "The version of this copy; larger is newer.";

    // Expiry.
    EXPIRY = "When the entry ceases to exist, in Unix milliseconds; `none`: never.";
    PAST = "A moment that has passed is allowed.";
    EXPIRED = "An entry whose `expires-at` has passed is absent everywhere: in answers, scans and statistics.";

    // Listing and counting.
    SCAN = "An entry that is there during the whole scan occurs in it at least once; tombstones don't occur.";
    PAGE = "Lists the entries, at most about `limit` a page";
    NEXT = "Where to go on; `none`: the scan is complete. It stays usable while entries come and go.";
    FOREIGN_CURSOR = "A cursor that this backend did not make is `invalid-argument`.";
    USAGE_ENTRIES = "Live entries; tombstones and expired entries don't count.";
    USAGE_BYTES = "Bytes of the keys and values of those entries.";

    // Sizes.
    TOO_LARGE = "A key, a value, a batch or an answer is larger than this backend takes.";
    MAX_KEY = "Longest key, in bytes. At least 256.";
    MAX_VALUE = "Largest value, in bytes. At least 1.";
    MAX_BATCH = "Most items in one call. At least 1.";
    INVALID = "The call or a setting can't be honoured as given, now or later.";

    // From opening to closing.
    OPEN = "Called once, before anything else.";
    SETTINGS = "An unknown name or a value that can't be honoured is `invalid-argument`, with a text that names it: it is never ignored.";
    HEALTH = "Whether calls can be expected to work; cheap, and without lasting effect.";
    FLUSH = "Returns when every write that was answered before is as durable as it will get.";
    CLOSE = "Called at most once, at an orderly end, after which nothing is called any more. Implies `flush`.";
    PERSISTENT = "What `flush` acknowledged is still there when the next instance is opened with the same shard number and settings, even after a crash of the host.";
    EPHEMERAL = "If false, every instance starts empty.";
    APART = "one that keeps its own state keeps it apart by this number.";
    DIGEST = "The digest of each key's entry, `none` for a key that has none.";
    HEAD = "`head-bytes` is at most 256.";
    HOLD = "A record (an entry or a tombstone) remembers the largest token that it was written under so, and such a write is `stale` if its own token is smaller than that; before the first `hold`, it is 0.";
    TOKENLESS = "`newer` writes have no token, and leave the one of the record as it is.";
    HOLD_OF_NOBODY = "`unsupported` of a backend that is not shared, which has nobody to keep out.";
    NO_INTENTS = "`unsupported` of a backend that has no place for intents; so with all functions here.";
    UNSEEN = "nothing of it is to be seen in answers, scans and statistics, and it has no influence on other writes.";
    PREPARE = "Keeps the intent of a transaction, in the place of the one that it may have already. Refused as a put or a delete of the same items would be, and then nothing is kept.";
    COMMIT = "Carries out the intent of a transaction, with the condition `newer` for each of its writes, and removes it";
    COMMIT_DURABLE = "If the backend is `persistent`, that is durable when this returns.";
    ABORT = "Removes the intent of a transaction.";
    UNKNOWN = "A transaction without an intent is no error.";
    IN_DOUBT = "The transactions that have an intent with at least one write, each once, in no particular order.";
    SHARED = "Several instances, also on different hosts, see the same entries.";
}

/// What an instance breaks that doesn't open.
pub(super) fn broken_by_opening(error: &KvError) -> &'static str {
    match error {
        KvError::Declared { limit: "max-key-bytes", .. } => MAX_KEY,
        KvError::Declared { limit: "max-value-bytes", .. } => MAX_VALUE,
        KvError::Declared { .. } => MAX_BATCH,
        KvError::Trap { .. } | KvError::Deadline { .. } => BROKEN_INSTANCE,
        _ => OPEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_is_in_the_contract() {
        let contract = include_str!("../../../wit/kv.wit");
        let words: Vec<&str> = contract.split_whitespace().filter(|word| *word != "///").collect();
        let text = words.join(" ");
        let missing: Vec<&&str> = ALL.iter().filter(|sentence| !text.contains(**sentence)).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
