//! That the conformance suite can fail: stores that break one rule each (`tests/guests/mutant`), and the cases that notice.
//!
//! Each mutant has to be caught by exactly the cases listed: by those that are about its rule, and by no case that isn't.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use memcell_host::config::BackendConfig;
use memcell_host::conformance::{CASES, Failure, Suite, Verdict};
use memcell_tests::artifacts;
use memcell_tests::host::PATIENCE;

macro_rules! mutants {
    ($($test:ident = $mode:literal: $($case:ident)+ $(, $more:ident)?;)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                // `among_others`: so many things depend on the rule that only those about it are listed.
                let are_all = [$(stringify!($more),)? ""].len() == 1;
                check_mode($mode, &[$(stringify!($case)),+], are_all)
            }
        )*
    };
}

mutants! {
    aborts_nothing = "aborts-nothing":
        aborting_leaves_nothing;
    adds_to_intents = "adds-to-intents":
        preparing_again_replaces;
    answers_closed = "answers-closed":
        nothing_is_answered_after_close;
    answers_distinct_keys_only = "answers-distinct-keys-only":
        reads_are_answered_by_position
        random_operations_agree_with_a_model;
    calls_stale_applied = "calls-stale-applied":
        writes_are_answered_by_position
        duplicates_are_written_in_order
        repeating_a_write_does_no_harm
        newer_takes_larger_stamps_only
        not_older_takes_equal_stamps_too
        always_never_lowers_the_stamp
        stamps_have_64_bits
        a_stale_write_changes_nothing
        a_tombstone_holds_off_late_puts
        a_tombstone_is_kept_until_it_expires
        what_is_prepared_is_out_of_sight
        committing_obeys_the_stamps
        random_operations_agree_with_a_model;
    claims_to_be_shared = "claims-to-be-shared":
        instances_see_each_other
        judging_is_atomic_between_instances
        a_smaller_token_keeps_out;
    claims_to_persist = "claims-to-persist":
        an_expiry_survives_reopening
        what_was_flushed_survives_a_crash
        a_crash_without_a_flush_breaks_nothing
        what_was_closed_is_all_there
        tombstones_survive_a_crash
        what_is_prepared_survives_a_crash
        random_operations_agree_with_a_model;
    commits_always = "commits-always":
        committing_obeys_the_stamps;
    compares_signed = "compares-signed":
        stamps_have_64_bits;
    counts_characters = "counts-characters":
        keys_up_to_the_limit;
    counts_expired = "counts-expired":
        an_expiry_in_the_past
        an_expiry_soon
        stats_are_exact
        random_operations_agree_with_a_model;
    counts_seconds = "counts-seconds":
        an_expiry_soon
        an_expiry_far_away
        overwriting_replaces_the_expiry
        random_operations_agree_with_a_model;
    counts_tombstones = "counts-tombstones":
        a_tombstone_is_no_entry
        stats_are_exact
        random_operations_agree_with_a_model;
    counts_values_only = "counts-values-only":
        stats_are_exact
        random_operations_agree_with_a_model;
    cuts_keys_at_nul = "cuts-keys-at-nul":
        keys_with_nul_and_punctuation;
    cuts_values = "cuts-values":
        values_are_any_bytes
        values_up_to_the_limit;
    digests_expired = "digests-expired":
        what_is_no_entry_has_no_digest;
    doubts_nothing = "doubts-nothing":
        what_is_prepared_is_out_of_sight
        aborting_leaves_nothing;
    drops_tombstones_early = "drops-tombstones-early":
        a_tombstone_holds_off_late_puts
        a_tombstone_is_kept_until_it_expires
        random_operations_agree_with_a_model;
    ends_scans_early = "ends-scans-early":
        a_scan_pages_through_1025_keys;
    forgets_expiry = "forgets-expiry":
        an_expiry_soon
        an_expiry_far_away
        overwriting_replaces_the_expiry
        random_operations_agree_with_a_model;
    forgets_tombstones = "forgets-tombstones":
        deleting_twice_is_fine
        duplicates_are_written_in_order
        always_never_lowers_the_stamp
        deletes_obey_the_conditions
        a_tombstone_holds_off_late_puts
        a_tombstone_is_kept_until_it_expires
        random_operations_agree_with_a_model;
    hashes_whole_values = "hashes-whole-values":
        digests_are_of_what_is_stored
        what_is_no_entry_has_no_digest;
    holds_for_nobody = "holds-for-nobody":
        nobody_is_kept_out_of_a_private_store;
    ignores_malformed_settings = "ignores-malformed-settings":
        malformed_settings_are_refused;
    ignores_stamps = "ignores-stamps":
        deleting_twice_is_fine
        writes_are_answered_by_position
        duplicates_are_written_in_order
        repeating_a_write_does_no_harm
        newer_takes_larger_stamps_only
        not_older_takes_equal_stamps_too
        always_never_lowers_the_stamp
        deletes_obey_the_conditions
        stamps_have_64_bits
        a_stale_write_changes_nothing
        a_tombstone_holds_off_late_puts
        a_tombstone_is_kept_until_it_expires
        what_is_prepared_is_out_of_sight
        committing_obeys_the_stamps
        random_operations_agree_with_a_model;
    ignores_the_limit = "ignores-the-limit":
        a_scan_pages_through_1025_keys
        a_scan_is_complete_while_entries_change;
    ignores_unknown_settings = "ignores-unknown-settings":
        unknown_settings_are_refused;
    keeps_the_first_expiry = "keeps-the-first-expiry":
        a_put_takes_the_place_of_a_tombstone
        a_tombstone_is_kept_until_it_expires
        an_expiry_soon
        overwriting_replaces_the_expiry
        random_operations_agree_with_a_model;
    knows_all_transactions = "knows-all-transactions":
        aborting_leaves_nothing
        unknown_transactions_are_fine
        what_no_put_may_be_is_not_prepared;
    leaves_no_tombstone_for_absent = "leaves-no-tombstone-for-absent":
        deleting_twice_is_fine
        a_tombstone_holds_off_late_puts
        random_operations_agree_with_a_model;
    leaves_out_absent = "leaves-out-absent":
        an_absent_key_is_none
        reads_are_answered_by_position, among_others;
    lists_tombstones = "lists-tombstones":
        a_tombstone_is_no_entry
        random_operations_agree_with_a_model;
    loses_empty_values = "loses-empty-values":
        an_empty_value_is_an_entry
        overwriting_replaces_everything
        random_operations_agree_with_a_model;
    loses_order = "loses-order":
        reads_are_answered_by_position
        writes_are_answered_by_position
        keys_that_begin_alike
        keys_in_unicode
        keys_with_nul_and_punctuation
        random_operations_agree_with_a_model;
    lowers_stamps = "lowers-stamps":
        always_never_lowers_the_stamp
        random_operations_agree_with_a_model;
    names_no_setting = "names-no-setting":
        unknown_settings_are_refused;
    prepares_nothing = "prepares-nothing":
        intents_are_supported_or_not_at_all;
    refuses_equal = "refuses-equal":
        repeating_a_write_does_no_harm
        not_older_takes_equal_stamps_too
        deletes_obey_the_conditions
        a_put_takes_the_place_of_a_tombstone
        random_operations_agree_with_a_model;
    refuses_the_past = "refuses-the-past":
        an_expiry_in_the_past
        stats_are_exact
        what_is_no_entry_has_no_digest
        random_operations_agree_with_a_model;
    rounds_stamps = "rounds-stamps":
        stamps_have_64_bits, among_others;
    scans_by_position = "scans-by-position":
        a_scan_is_complete_while_entries_change;
    scans_without_stamps = "scans-without-stamps":
        an_empty_value_is_an_entry
        stamps_have_64_bits
        an_expiry_far_away
        a_scan_lists_the_entries
        random_operations_agree_with_a_model;
    shows_expired = "shows-expired":
        an_expiry_in_the_past
        an_expiry_soon
        overwriting_replaces_the_expiry
        committing_obeys_the_stamps
        random_operations_agree_with_a_model;
    shows_prepared = "shows-prepared":
        what_is_prepared_is_out_of_sight
        aborting_leaves_nothing
        preparing_again_replaces
        committing_obeys_the_stamps;
    skips_keys = "skips-keys":
        keys_that_begin_alike
        keys_in_unicode
        keys_with_nul_and_punctuation
        a_scan_pages_through_1025_keys
        a_scan_with_a_limit_of_one
        a_scan_is_complete_while_entries_change
        random_operations_agree_with_a_model;
    takes_any_cursor = "takes-any-cursor":
        foreign_cursors_are_refused;
    takes_any_size = "takes-any-size":
        keys_up_to_the_limit
        values_up_to_the_limit
        batches_up_to_the_limit
        what_no_put_may_be_is_not_prepared;
    takes_empty_keys = "takes-empty-keys":
        empty_keys_are_refused
        what_no_put_may_be_is_not_prepared;
    takes_equal_as_newer = "takes-equal-as-newer":
        deleting_twice_is_fine
        writes_are_answered_by_position
        duplicates_are_written_in_order
        repeating_a_write_does_no_harm
        newer_takes_larger_stamps_only
        deletes_obey_the_conditions
        stamps_have_64_bits
        a_tombstone_holds_off_late_puts
        committing_obeys_the_stamps
        random_operations_agree_with_a_model;
    takes_shorter_keys = "takes-shorter-keys":
        keys_up_to_the_limit;
    writes_in_health = "writes-in-health":
        opens_and_is_healthy
        random_operations_agree_with_a_model;
    writes_in_reverse = "writes-in-reverse":
        duplicates_are_written_in_order
        random_operations_agree_with_a_model;
}

#[test]
fn a_black_hole_is_caught_by_what_is_about_holding_anything() -> Result<()> {
    let caught = caught(BackendConfig::new("mutant", artifacts::guest("black_hole")?))?;
    for case in ["nothing_is_answered_before_open", "nothing_is_answered_after_close", "get_finds_what_was_put"] {
        assert!(caught.contains_key(case), "{caught:#?}");
    }
    for case in ["an_absent_key_is_none", "empty_batches_are_fine", "every_instance_starts_empty"] {
        assert!(!caught.contains_key(case), "{case}: {caught:#?}");
    }
    Ok(())
}

/// The operations of the model, with a seed at which they meet every mutant that they can meet.
const SEED: u64 = 1;

fn check_mode(mode: &str, expected: &[&str], are_all: bool) -> Result<()> {
    let mut config = BackendConfig::new("mutant", artifacts::guest("mutant")?);
    config.settings = vec![("mode".to_owned(), mode.to_owned())];
    let caught = caught(config)?;
    let names: BTreeSet<&str> = caught.keys().copied().collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert!(
        expected.is_subset(&names) && (names == expected || !are_all),
        "{names:?} are not {expected:?}:\n{caught:#?}"
    );
    Ok(())
}

/// The cases that fail, and how.
fn caught(mut config: BackendConfig) -> Result<BTreeMap<&'static str, Failure>> {
    config.limits.call_timeout = PATIENCE;
    config.limits.cpu = config.limits.call_timeout;
    let malformed = vec![("room".to_owned(), "much".to_owned())];
    let suite = Suite::new(artifacts::trials(config)?).malformed(malformed).seed(SEED);
    let reports = CASES.iter().map(|case| suite.run(case));
    Ok(reports
        .filter_map(|report| match report.verdict {
            Verdict::Failed(failure) => Some((report.name, failure)),
            _ => None,
        })
        .collect())
}
