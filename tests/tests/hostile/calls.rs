//! Guests that go wrong in a call: they compute, sleep, grow, crash, or answer nonsense.

use std::time::Duration;

use anyhow::{Result, ensure};
use memcell_host::config::{BackendConfig, LimitsConfig};
use memcell_tests::artifacts;
use memcell_tests::host::{eventually, hostile};
use memcell_tests::operations::memcell;

use crate::stage::{Signs, Stage, contained, log_lines};

/// A test for each way: what the guest does (settings), what it may use (limits), and what is to be seen of it.
macro_rules! contained {
    ($($name:ident: [$($key:literal = $value:literal),*], $adjust:expr => $label:literal, $reason:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() -> Result<()> {
                let mut config = hostile(&[$(($key, $value)),*])?;
                let adjust: fn(&mut LimitsConfig) = $adjust;
                adjust(&mut config.limits);
                contained(config, Signs { label: $label, reason: $reason }).await
            }
        )*
    };
}

const LONG: Duration = Duration::from_secs(20);

fn little_cpu(limits: &mut LimitsConfig) {
    limits.cpu = Duration::from_millis(100);
    limits.call_timeout = LONG;
}

fn little_time(limits: &mut LimitsConfig) {
    limits.cpu = LONG;
    limits.call_timeout = Duration::from_millis(300);
}

fn little_time_to_open(limits: &mut LimitsConfig) {
    limits.cpu = LONG;
    limits.open_timeout = Duration::from_millis(300);
}

fn little_memory(limits: &mut LimitsConfig) {
    limits.memory = 32 << 20;
    limits.cpu = LONG;
    limits.call_timeout = LONG;
}

fn as_usual(limits: &mut LimitsConfig) {
    limits.cpu = LONG;
    limits.call_timeout = LONG;
}

contained! {
    loop_in_a_call_uses_up_its_processor_time: ["mode" = "loop", "on" = "put"], little_cpu
        => "cpu", "computed for more than 100ms in put-many";
    loop_in_a_call_misses_its_deadline: ["mode" = "loop", "on" = "put"], little_time
        => "deadline", "didn't answer put-many within 300ms";
    loop_in_a_read: ["mode" = "loop", "on" = "get"], little_cpu => "cpu", "computed for more than 100ms in get-many";
    loop_in_open: ["mode" = "loop", "on" = "open"], little_time_to_open => "deadline", "didn't answer open within 300ms";
    loop_in_realloc: ["mode" = "loop-in-realloc"], little_cpu => "cpu", "computed for more than 100ms in ";
    realloc_outside_of_memory: ["mode" = "wild-realloc"], as_usual => "trap", "realloc return";
    sleep_in_a_call: ["mode" = "sleep", "on" = "put"], little_time => "deadline", "didn't answer put-many within 300ms";
    sleep_in_open: ["mode" = "sleep", "on" = "open"], little_time_to_open
        => "deadline", "didn't answer open within 300ms";
    memory_bomb: ["mode" = "memory", "on" = "put"], little_memory
        => "memory", "reached its memory limit of 33554432 bytes in put-many";
    memory_bomb_in_open: ["mode" = "memory", "on" = "open"], little_memory
        => "memory", "reached its memory limit of 33554432 bytes in open";
    deep_recursion: ["mode" = "descend", "on" = "put"], as_usual => "trap", "call stack exhausted";
    deep_recursion_in_its_own_memory: ["mode" = "recurse", "on" = "put"], as_usual
        => "trap", "out of bounds memory access";
    exit_of_the_process: ["mode" = "exit", "on" = "put"], as_usual => "trap", "crashed in put-many: Exited with i32 exit status";
    handle_flood: ["mode" = "handles", "on" = "put"], as_usual => "handles", "reached `limits.handles` in put-many";
    handle_flood_in_open: ["mode" = "handles", "on" = "open"], as_usual => "handles", "reached `limits.handles` in open";
    random_bytes_without_end: ["mode" = "random", "on" = "put", "size" = "2MiB"], as_usual
        => "trap", "exceeds limit 1048576";
    write_wider_than_the_stream: ["mode" = "wide-write", "on" = "put", "size" = "128KiB"], as_usual
        => "trap", "wrote 131072 bytes at once";
    trap_on_every_call: ["mode" = "trap", "on" = "any"], as_usual => "trap", "the plugin crashed in ";
    trap_on_the_third_call: ["mode" = "trap", "on" = "put", "after" = "2", "times" = "1"], as_usual
        => "trap", "the plugin crashed in put-many";
    trap_in_open: ["mode" = "trap", "on" = "open"], as_usual => "trap", "the plugin crashed in open";
    giant_answer: ["mode" = "giant-answer", "on" = "get"], as_usual
        => "response_too_large", "answer to get-many is larger than 16777216 bytes";
    giant_answer_out_of_little_memory: ["mode" = "aliased-answer", "on" = "get"], as_usual
        => "response_too_large", "answer to get-many is larger than 16777216 bytes";
    giant_error: ["mode" = "giant-error", "on" = "put"], as_usual
        => "response_too_large", "answer to put-many is larger than 16777216 bytes";
    too_few_answers: ["mode" = "short-answer", "on" = "get"], as_usual
        => "contract", "broke the contract in get-many: 2 answers were due, it gave 1";
    too_many_answers: ["mode" = "long-answer", "on" = "get"], as_usual
        => "contract", "broke the contract in get-many: 2 answers were due, it gave 3";
    too_few_outcomes: ["mode" = "short-answer", "on" = "put"], as_usual => "contract", "broke the contract in put-many";
    foreign_keys: ["mode" = "wrong-key", "on" = "get"], as_usual => "contract", "broke the contract in get-many: asked for";
    duplicated_keys: ["mode" = "duplicate-key", "on" = "get"], as_usual
        => "contract", "broke the contract in get-many: asked for";
    swapped_keys: ["mode" = "swapped", "on" = "get"], as_usual => "contract", "broke the contract in get-many: asked for";
    keys_that_are_no_text: ["mode" = "invalid-utf8", "on" = "get"], as_usual => "trap", "utf-8";
    absurd_capabilities: ["mode" = "absurd-limits"], as_usual => "contract", "broke the contract in open: `max-batch`";
    refusal_in_open: ["mode" = "refuse"], as_usual
        => "refused_settings", "the plugin refuses its settings: refused on purpose";
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_in_start() -> Result<()> {
    let mut config = BackendConfig::new("hostile", artifacts::guest("loop_in_start")?);
    config.limits.open_timeout = Duration::from_millis(300);
    config.supervision.backoff_min = Duration::from_millis(20);
    config.supervision.backoff_max = Duration::from_millis(200);
    contained(config, Signs { label: "deadline", reason: "didn't answer start within 300ms" }).await
}

/// What a guest that waits costs: time, and no processor time. The control of the tests of `limits.cpu`.
#[tokio::test(flavor = "multi_thread")]
async fn sleeping_uses_no_processor_time() -> Result<()> {
    let mut config = hostile(&[("mode", "nap"), ("on", "put")])?;
    config.limits.cpu = Duration::from_millis(100);
    config.limits.call_timeout = LONG;
    let stage = Stage::set(config).await?;
    stage.others_are_well().await?;
    stage.host.append(&memcell("x")).await?;
    stage.host.settled().await?;
    let status = stage.status("hostile").await?;
    ensure!(status["state"] == "live" && status["restarts"] == 0, "{status}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_measured() -> Result<()> {
    let mut config = hostile(&[("mode", "loop"), ("on", "put"), ("times", "1")])?;
    little_cpu(&mut config.limits);
    config.limits.cpu = Duration::from_millis(300);
    let stage = Stage::set(config).await?;
    stage.host.append(&memcell("x")).await?;
    let used = "memcell_kv_cpu_seconds_total{backend=\"hostile\"}";
    eventually("the call is cut off", async || Ok(stage.figure(used).await? >= 0.3)).await?;
    ensure!(stage.figure("memcell_kv_cpu_seconds_total{backend=\"healthy\"}").await? < stage.figure(used).await?);
    stage.strike().await
}

/// A guest may print what it likes: without the grant nothing of it is logged, with it some, and how much is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_flood_is_dammed() -> Result<()> {
    let config = hostile(&[("mode", "print"), ("on", "put"), ("size", "64KiB")])?;
    let stage = Stage::set(config).await?;
    stage.host.append(&memcell("x")).await?;
    stage.host.settled().await?;
    ensure!(log_lines(&["flood flood"]).is_empty());
    stage.strike().await?;
    let mut config = hostile(&[("mode", "print"), ("on", "put"), ("size", "4MiB"), ("times", "2")])?;
    as_usual(&mut config.limits);
    config.grants.log = true;
    let stage = Stage::set(config).await?;
    stage.host.append(&memcell("one")).await?;
    stage.host.settled().await?;
    stage.host.append(&memcell("two")).await?;
    stage.host.settled().await?;
    let printed = log_lines(&["the plugin printed", "flood flood"]).len();
    // 80,000 lines were printed; the bucket of each stream holds 100, and gains 20 a second.
    ensure!((1..5000).contains(&printed), "{printed} lines");
    ensure!(!log_lines(&["the plugin printed too much"]).is_empty());
    let status = stage.status("hostile").await?;
    ensure!(status["state"] == "live" && status["restarts"] == 0, "{status}");
    stage.strike().await
}
