//! Thousands of connections at a time, most of them idle, and more requests than there is room for: memory stays bounded, and
//! what can't be done is refused fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream;
use memcell_tests::program::Host;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::Client;
use super::{Program, address};

const IDLE: usize = 10_000;
const BUSY: usize = 500;

/// What an idle connection may cost the host: the buffer of its last request, and the state of its tasks. An unoptimised build
/// has larger tasks than an optimised one.
const BYTES_PER_CONNECTION: u64 = 48 * 1024;

/// What working for all the busy ones may cost besides.
const BYTES_FOR_WORK: u64 = 256 << 20;

const BUSY_FOR: Duration = Duration::from_secs(10);

/// The memory that a process has in use.
fn resident(host: &Host) -> Result<u64> {
    let pid = host.pid().context("the host is gone")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Connections that have asked once and then do nothing.
async fn idle(address: &str, count: usize) -> Result<Vec<Client>> {
    let open = async || {
        let mut client = Client::connect(address).await?;
        let answer = client.ask("GET", "/healthz", "", "").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(client)
    };
    let opened: Vec<Result<Client>> = stream::iter(0..count).map(|_| open()).buffer_unordered(200).collect().await;
    opened.into_iter().collect()
}

/// What busy connections came to.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    refused: AtomicU64,
    slowest_refusal_millis: AtomicU64,
}

/// Reads and writes until the time is over. A refusal is no failure; anything else but success is.
async fn busy(address: &str, number: usize, until: Instant, tally: &Tally) -> Result<()> {
    let mut client = Client::connect(address).await?;
    while Instant::now() < until {
        let begun = Instant::now();
        let body =
            format!("{{\"timestamp\":\"2025-06-26T00:00:00Z\",\"user_id\":\"user_{number}\",\"summary\":\"x\"}}");
        let answer = match number % 5 {
            0 => client.ask("POST", "/v1/memcells", "", &body).await,
            _ => client.ask("GET", &format!("/v1/memcells?user_id=user_{number}&limit=5"), "", "").await,
        };
        let answer = answer?;
        match answer.status {
            200 | 201 => tally.done.fetch_add(1, Ordering::Relaxed),
            503 => {
                let millis = u64::try_from(begun.elapsed().as_millis())?;
                tally.slowest_refusal_millis.fetch_max(millis, Ordering::Relaxed);
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
                // What a client should do, and less than it is told to.
                tokio::time::sleep(Duration::from_millis(100)).await;
                tally.refused.fetch_add(1, Ordering::Relaxed)
            }
            _ => anyhow::bail!("{answer:?}"),
        };
    }
    Ok(())
}

async fn all_busy(address: &str, tally: &Tally) -> Result<()> {
    let until = Instant::now() + BUSY_FOR;
    try_join_all((0..BUSY).map(|number| busy(address, number, until, tally))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_and_five_hundred_busy_connections_are_held() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Root may raise the hard limit too.
    let wanted = Some(20_000);
    let raised = maximum.is_some_and(|most| most < 20_000)
        && setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_ok();
    let maximum = if raised { wanted } else { maximum };
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    ensure!(
        maximum.is_none_or(|most| most > 11_500),
        "this test needs 11,500 open files: raise the hard limit (ulimit -Hn), which is {maximum:?}"
    );
    let program = Program::new("idle_timeout = \"10m\"\n[log]\nlevel = \"warn\"\n").await?;
    let host = program.serve().await?;
    let address = address(host.url())?;
    // What everybody needs is there before anything is measured.
    let tally = Tally::default();
    busy(address, 0, Instant::now() + Duration::from_secs(1), &tally).await?;
    let before = resident(&host)?;

    let begun = Instant::now();
    let mut held = idle(address, IDLE).await?;
    let opened = begun.elapsed();
    let with_idle = resident(&host)?;
    let each = with_idle.saturating_sub(before) / u64::try_from(IDLE)?;
    eprintln!(
        "{} MiB before, {} MiB with {IDLE} idle connections ({each} bytes each, opened in {opened:?})",
        before >> 20,
        with_idle >> 20
    );
    ensure!(each < BYTES_PER_CONNECTION, "an idle connection costs {each} bytes");

    let tally = Tally::default();
    all_busy(address, &tally).await?;
    let with_busy = resident(&host)?;
    eprintln!("{} MiB after {BUSY} busy ones did this beside them: {tally:?}", with_busy >> 20);
    ensure!(with_busy < with_idle + BYTES_FOR_WORK, "{} MiB", with_busy >> 20);
    ensure!(tally.done.load(Ordering::Relaxed) > 500, "{tally:?}");

    // The idle ones are still there, each of them.
    let check = async |client: &mut Client| {
        let answer = client.ask("GET", "/healthz", "", "").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    };
    let checked: Vec<Result<()>> = stream::iter(&mut held).map(check).buffer_unordered(200).collect().await;
    checked.into_iter().collect::<Result<Vec<()>>>()?;
    // And keep nobody from ending in time.
    let begun = Instant::now();
    host.stop().await?;
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_refused_fast_and_the_rest_goes_on() -> Result<()> {
    let program = Program::new("max_requests = 16\n[log]\nlevel = \"error\"\n").await?;
    let host = program.serve().await?;
    let address = address(host.url())?;
    let tally = Tally::default();
    let probe = async {
        let mut client = Client::connect(address).await?;
        let mut slowest = Duration::ZERO;
        let until = Instant::now() + BUSY_FOR;
        while Instant::now() < until {
            let begun = Instant::now();
            let answer = client.ask("GET", "/healthz", "", "").await?;
            ensure!(answer.status == 200, "{answer:?}");
            slowest = slowest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(slowest)
    };
    let ((), slowest_probe) = futures::future::try_join(all_busy(address, &tally), probe).await?;
    eprintln!("{tally:?}, the slowest probe took {slowest_probe:?}");
    ensure!(tally.refused.load(Ordering::Relaxed) > 100, "there was no overload: {tally:?}");
    ensure!(tally.done.load(Ordering::Relaxed) > 50, "nothing was done: {tally:?}");
    // Without a bound, requests would wait for each other for the whole time.
    ensure!(Duration::from_millis(tally.slowest_refusal_millis.load(Ordering::Relaxed)) < BUSY_FOR / 2, "{tally:?}");
    ensure!(slowest_probe < BUSY_FOR / 2, "{slowest_probe:?}");
    host.stop().await
}
