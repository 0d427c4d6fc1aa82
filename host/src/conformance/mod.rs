//! The conformance suite: whether a plugin keeps the contract of `wit/kv.wit`, case by case.
//!
//! One suite for all backends. `memcell plugin test` runs it, and so do the tests of this repository, over every backend there is.
//! A [`Case`] is one promise of the contract, tried on instances that are called directly (`kv::Trial`). What a backend declares at
//! `open` decides which cases it has to pass: what is declared is tested, and what isn't declared has to be absent.
//!
//! A case works on keys of its own, and removes them in the end: the store may hold other entries, as long as nobody changes them
//! meanwhile. Cases of one store must not run at the same time.

mod basics;
mod contract;
mod digests;
mod durability;
mod expiry;
mod failure;
mod keys;
mod lifecycle;
mod model;
mod random;
mod run;
mod scanning;
mod settings;
mod sharing;
mod sizes;
mod stamps;
mod suite;
mod two_phase;

pub use failure::Failure;
pub use suite::{Case, CaseReport, Needs, Suite, Verdict};

use Needs::{Digests, Ephemeral, Fencing, IdleFencing, Nothing, Persistent, Private, Shared, TwoPhase};
use suite::case;

/// Every case, in the order in which they run: from what everything else depends on to what is peculiar.
pub const CASES: &[Case] = &[
    case("opens_and_is_healthy", Nothing, lifecycle::opens_and_is_healthy),
    case("nothing_is_answered_before_open", Nothing, lifecycle::nothing_is_answered_before_open),
    case("nothing_is_answered_after_close", Nothing, lifecycle::nothing_is_answered_after_close),
    case("unknown_settings_are_refused", Nothing, settings::unknown_settings_are_refused),
    case("malformed_settings_are_refused", Nothing, settings::malformed_settings_are_refused),
    case("get_finds_what_was_put", Nothing, basics::get_finds_what_was_put),
    case("an_absent_key_is_none", Nothing, basics::an_absent_key_is_none),
    case("an_empty_value_is_an_entry", Nothing, basics::an_empty_value_is_an_entry),
    case("values_are_any_bytes", Nothing, basics::values_are_any_bytes),
    case("overwriting_replaces_everything", Nothing, basics::overwriting_replaces_everything),
    case("deleting_removes", Nothing, basics::deleting_removes),
    case("deleting_twice_is_fine", Nothing, basics::deleting_twice_is_fine),
    case("empty_batches_are_fine", Nothing, basics::empty_batches_are_fine),
    case("reads_are_answered_by_position", Nothing, basics::reads_are_answered_by_position),
    case("writes_are_answered_by_position", Nothing, basics::writes_are_answered_by_position),
    case("duplicates_are_written_in_order", Nothing, basics::duplicates_are_written_in_order),
    case("repeating_a_write_does_no_harm", Nothing, basics::repeating_a_write_does_no_harm),
    case("keys_that_begin_alike", Nothing, keys::keys_that_begin_alike),
    case("keys_in_unicode", Nothing, keys::keys_in_unicode),
    case("keys_with_nul_and_punctuation", Nothing, keys::keys_with_nul_and_punctuation),
    case("newer_takes_larger_stamps_only", Nothing, stamps::newer_takes_larger_stamps_only),
    case("not_older_takes_equal_stamps_too", Nothing, stamps::not_older_takes_equal_stamps_too),
    case("always_never_lowers_the_stamp", Nothing, stamps::always_never_lowers_the_stamp),
    case("deletes_obey_the_conditions", Nothing, stamps::deletes_obey_the_conditions),
    case("stamps_have_64_bits", Nothing, stamps::stamps_have_64_bits),
    case("a_stale_write_changes_nothing", Nothing, stamps::a_stale_write_changes_nothing),
    case("a_tombstone_holds_off_late_puts", Nothing, stamps::a_tombstone_holds_off_late_puts),
    case("a_put_takes_the_place_of_a_tombstone", Nothing, stamps::a_put_takes_the_place_of_a_tombstone),
    case("a_tombstone_is_no_entry", Nothing, stamps::a_tombstone_is_no_entry),
    case("a_tombstone_is_kept_until_it_expires", Nothing, stamps::a_tombstone_is_kept_until_it_expires),
    case("an_expiry_in_the_past", Nothing, expiry::an_expiry_in_the_past),
    case("an_expiry_soon", Nothing, expiry::an_expiry_soon),
    case("an_expiry_far_away", Nothing, expiry::an_expiry_far_away),
    case("overwriting_replaces_the_expiry", Nothing, expiry::overwriting_replaces_the_expiry),
    case("an_expiry_survives_reopening", Persistent, expiry::an_expiry_survives_reopening),
    case("a_scan_lists_the_entries", Nothing, scanning::a_scan_lists_the_entries),
    case("a_scan_pages_through_1025_keys", Nothing, scanning::a_scan_pages_through_1025_keys),
    case("a_scan_with_a_limit_of_one", Nothing, scanning::a_scan_with_a_limit_of_one),
    case("a_scan_is_complete_while_entries_change", Nothing, scanning::a_scan_is_complete_while_entries_change),
    case("foreign_cursors_are_refused", Nothing, scanning::foreign_cursors_are_refused),
    case("stats_are_exact", Nothing, scanning::stats_are_exact),
    case("keys_up_to_the_limit", Nothing, sizes::keys_up_to_the_limit),
    case("empty_keys_are_refused", Nothing, sizes::empty_keys_are_refused),
    case("values_up_to_the_limit", Nothing, sizes::values_up_to_the_limit),
    case("batches_up_to_the_limit", Nothing, sizes::batches_up_to_the_limit),
    case("a_batch_of_256_mib", Nothing, sizes::a_batch_of_256_mib),
    case("what_was_flushed_survives_a_crash", Persistent, durability::what_was_flushed_survives_a_crash),
    case("a_crash_without_a_flush_breaks_nothing", Persistent, durability::a_crash_without_a_flush_breaks_nothing),
    case("what_was_closed_is_all_there", Persistent, durability::what_was_closed_is_all_there),
    case("tombstones_survive_a_crash", Persistent, durability::tombstones_survive_a_crash),
    case("every_instance_starts_empty", Ephemeral, durability::every_instance_starts_empty),
    case("shards_are_kept_apart", Private, durability::shards_are_kept_apart),
    case("instances_see_each_other", Shared, sharing::instances_see_each_other),
    case("judging_is_atomic_between_instances", Shared, sharing::judging_is_atomic_between_instances),
    case("a_smaller_token_keeps_out", Fencing, sharing::a_smaller_token_keeps_out),
    case("nobody_is_kept_out_of_a_private_store", IdleFencing, sharing::nobody_is_kept_out_of_a_private_store),
    case("digests_are_of_what_is_stored", Digests, digests::digests_are_of_what_is_stored),
    case("what_is_no_entry_has_no_digest", Digests, digests::what_is_no_entry_has_no_digest),
    case("intents_are_supported_or_not_at_all", TwoPhase, two_phase::intents_are_supported_or_not_at_all),
    case("what_is_prepared_is_out_of_sight", TwoPhase, two_phase::what_is_prepared_is_out_of_sight),
    case("aborting_leaves_nothing", TwoPhase, two_phase::aborting_leaves_nothing),
    case("preparing_again_replaces", TwoPhase, two_phase::preparing_again_replaces),
    case("committing_obeys_the_stamps", TwoPhase, two_phase::committing_obeys_the_stamps),
    case("unknown_transactions_are_fine", TwoPhase, two_phase::unknown_transactions_are_fine),
    case("what_no_put_may_be_is_not_prepared", TwoPhase, two_phase::what_no_put_may_be_is_not_prepared),
    case("what_is_prepared_survives_a_crash", TwoPhase, two_phase::what_is_prepared_survives_a_crash),
    case("random_operations_agree_with_a_model", Nothing, model::random_operations_agree_with_a_model),
];
