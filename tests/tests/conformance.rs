//! The conformance suite over every backend of this repository: one test a case and implementation.
//!
//! A new implementation is one line below, and a function that says how it is configured. A new case is one name in `each_case!`.

use std::any::Any;

use anyhow::{Context, Result, bail};
use memcell_host::config::BackendConfig;
use memcell_host::conformance::{CASES, Suite, Verdict};
use memcell_tests::redis::{RedisCluster, RedisServer};
use memcell_tests::{artifacts, host};

/// How one implementation is put to the test.
struct Subject {
    config: BackendConfig,
    /// Settings that it has to refuse.
    malformed: Vec<(String, String)>,
    /// The cases that are not meant for it: exactly those that a test may, and has to, find skipped.
    skipped: &'static [&'static str],
    /// What has to live as long as the test: a directory, a server.
    _held: Option<Box<dyn Any>>,
}

/// What a backend skips that keeps nothing and shares nothing.
const EPHEMERAL: &[&str] = &[
    "an_expiry_survives_reopening",
    "what_was_flushed_survives_a_crash",
    "a_crash_without_a_flush_breaks_nothing",
    "what_was_closed_is_all_there",
    "tombstones_survive_a_crash",
    "instances_see_each_other",
    "judging_is_atomic_between_instances",
    "a_smaller_token_keeps_out",
    "what_is_prepared_survives_a_crash",
];

/// The same, of a component that exports only what it has to.
const PLAIN: &[&str] = &[
    "an_expiry_survives_reopening",
    "what_was_flushed_survives_a_crash",
    "a_crash_without_a_flush_breaks_nothing",
    "what_was_closed_is_all_there",
    "tombstones_survive_a_crash",
    "instances_see_each_other",
    "judging_is_atomic_between_instances",
    "a_smaller_token_keeps_out",
    "nobody_is_kept_out_of_a_private_store",
    "digests_are_of_what_is_stored",
    "what_is_no_entry_has_no_digest",
    "intents_are_supported_or_not_at_all",
    "what_is_prepared_is_out_of_sight",
    "aborting_leaves_nothing",
    "preparing_again_replaces",
    "committing_obeys_the_stamps",
    "unknown_transactions_are_fine",
    "what_no_put_may_be_is_not_prepared",
    "what_is_prepared_survives_a_crash",
];

fn in_memory() -> Result<Subject> {
    let malformed = vec![("max_bytes".to_owned(), "lots".to_owned())];
    Ok(Subject { config: host::in_memory()?, malformed, skipped: EPHEMERAL, _held: None })
}

/// The store that the suite's own tests break on purpose, as it is unbroken, with limits that are small and odd.
fn small() -> Result<Subject> {
    let config = BackendConfig::new("small", artifacts::guest("mutant")?);
    let malformed = vec![("room".to_owned(), "much".to_owned())];
    Ok(Subject { config, malformed, skipped: EPHEMERAL, _held: None })
}

/// What a backend skips that keeps its entries and is the only one to see them.
const DURABLE: &[&str] = &[
    "every_instance_starts_empty",
    "instances_see_each_other",
    "judging_is_atomic_between_instances",
    "a_smaller_token_keeps_out",
];

/// What a backend skips whose instances all see the same entries.
const SHARED: &[&str] = &[
    "every_instance_starts_empty",
    "shards_are_kept_apart",
    "nobody_is_kept_out_of_a_private_store",
    "intents_are_supported_or_not_at_all",
    "what_is_prepared_is_out_of_sight",
    "aborting_leaves_nothing",
    "preparing_again_replaces",
    "committing_obeys_the_stamps",
    "unknown_transactions_are_fine",
    "what_no_put_may_be_is_not_prepared",
    "what_is_prepared_survives_a_crash",
];

fn file() -> Result<Subject> {
    let directory = tempfile::tempdir()?;
    let malformed = vec![("durability".to_owned(), "some".to_owned())];
    let config = host::file(directory.path())?;
    Ok(Subject { config, malformed, skipped: DURABLE, _held: Some(Box::new(directory)) })
}

/// As patient as the host's own deadline is in [`check`].
const PATIENT: &[(&str, &str)] = &[("timeout", "20s"), ("connect_timeout", "10s")];

fn remote() -> Result<Subject> {
    let server = RedisServer::start(&["--appendonly", "yes"])?;
    let malformed = vec![("database".to_owned(), "first".to_owned())];
    let config = host::remote(&[server.address()], PATIENT)?;
    Ok(Subject { config, malformed, skipped: SHARED, _held: Some(Box::new(server)) })
}

fn remote_cluster() -> Result<Subject> {
    let cluster = RedisCluster::start(&[])?;
    let malformed = vec![("cluster".to_owned(), "perhaps".to_owned())];
    let config = host::remote(&cluster.addresses(), PATIENT)?;
    Ok(Subject { config, malformed, skipped: SHARED, _held: Some(Box::new(cluster)) })
}

/// A plain `wasi:keyvalue` component with `batch`, and the host's rules around it.
fn keyvalue() -> Result<Subject> {
    let config = BackendConfig::new("keyvalue", artifacts::guest("keyvalue")?);
    let malformed = vec![("persistent".to_owned(), "perhaps".to_owned())];
    Ok(Subject { config, malformed, skipped: PLAIN, _held: None })
}

/// The same of the older draft, without `batch`.
fn keyvalue_plain() -> Result<Subject> {
    let config = BackendConfig::new("keyvalue", artifacts::guest("keyvalue_plain")?);
    let malformed = vec![("persistent".to_owned(), "perhaps".to_owned())];
    Ok(Subject { config, malformed, skipped: PLAIN, _held: None })
}

fn example(language: &str) -> Result<Subject> {
    let config = BackendConfig::new(language, artifacts::example(language)?);
    let malformed = vec![("max_bytes".to_owned(), "lots".to_owned())];
    Ok(Subject { config, malformed, skipped: PLAIN, _held: None })
}

fn python() -> Result<Subject> {
    example("python")
}

fn javascript() -> Result<Subject> {
    example("javascript")
}

macro_rules! each_case {
    ($stamp:ident $($rest:tt)*) => {
        $stamp! { $($rest)*
            opens_and_is_healthy
            nothing_is_answered_before_open
            nothing_is_answered_after_close
            unknown_settings_are_refused
            malformed_settings_are_refused
            get_finds_what_was_put
            an_absent_key_is_none
            an_empty_value_is_an_entry
            values_are_any_bytes
            overwriting_replaces_everything
            deleting_removes
            deleting_twice_is_fine
            empty_batches_are_fine
            reads_are_answered_by_position
            writes_are_answered_by_position
            duplicates_are_written_in_order
            repeating_a_write_does_no_harm
            keys_that_begin_alike
            keys_in_unicode
            keys_with_nul_and_punctuation
            newer_takes_larger_stamps_only
            not_older_takes_equal_stamps_too
            always_never_lowers_the_stamp
            deletes_obey_the_conditions
            stamps_have_64_bits
            a_stale_write_changes_nothing
            a_tombstone_holds_off_late_puts
            a_put_takes_the_place_of_a_tombstone
            a_tombstone_is_no_entry
            a_tombstone_is_kept_until_it_expires
            an_expiry_in_the_past
            an_expiry_soon
            an_expiry_far_away
            overwriting_replaces_the_expiry
            an_expiry_survives_reopening
            a_scan_lists_the_entries
            a_scan_pages_through_1025_keys
            a_scan_with_a_limit_of_one
            a_scan_is_complete_while_entries_change
            foreign_cursors_are_refused
            stats_are_exact
            keys_up_to_the_limit
            empty_keys_are_refused
            values_up_to_the_limit
            batches_up_to_the_limit
            a_batch_of_256_mib
            what_was_flushed_survives_a_crash
            a_crash_without_a_flush_breaks_nothing
            what_was_closed_is_all_there
            tombstones_survive_a_crash
            every_instance_starts_empty
            shards_are_kept_apart
            instances_see_each_other
            judging_is_atomic_between_instances
            a_smaller_token_keeps_out
            nobody_is_kept_out_of_a_private_store
            digests_are_of_what_is_stored
            what_is_no_entry_has_no_digest
            intents_are_supported_or_not_at_all
            what_is_prepared_is_out_of_sight
            aborting_leaves_nothing
            preparing_again_replaces
            committing_obeys_the_stamps
            unknown_transactions_are_fine
            what_no_put_may_be_is_not_prepared
            what_is_prepared_survives_a_crash
            random_operations_agree_with_a_model
        }
    };
}

macro_rules! stamp {
    ($implementation:ident: $($case:ident)*) => {
        mod $implementation {
            use anyhow::Result;

            $(
                #[test]
                fn $case() -> Result<()> {
                    super::check(stringify!($case), super::$implementation()?)
                }
            )*
        }
    };
}

macro_rules! names {
    ($($case:ident)*) => {
        const STAMPED: &[&str] = &[$(stringify!($case)),*];
    };
}

each_case!(names);
each_case!(stamp in_memory:);
each_case!(stamp small:);
each_case!(stamp file:);
each_case!(stamp remote:);
each_case!(stamp remote_cluster:);
each_case!(stamp keyvalue:);
each_case!(stamp keyvalue_plain:);
each_case!(stamp python:);
each_case!(stamp javascript:);

#[test]
fn every_case_is_stamped() {
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(STAMPED, names);
}

fn check(name: &str, subject: Subject) -> Result<()> {
    let Subject { mut config, malformed, skipped, _held } = subject;
    // What is tested is whether it is right, also on a busy machine.
    config.limits.call_timeout = host::PATIENCE;
    config.limits.cpu = config.limits.call_timeout;
    let case = CASES.iter().find(|case| case.name == name).context("there is no such case")?;
    let suite = Suite::new(artifacts::trials(config)?).malformed(malformed);
    match suite.run(case).verdict {
        Verdict::Passed { .. } if !skipped.contains(&name) => Ok(()),
        Verdict::Skipped { .. } if skipped.contains(&name) => Ok(()),
        other => bail!("{name} (seed {}): {other:#?}", suite.seed_in_use()),
    }
}
