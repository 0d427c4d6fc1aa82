//! `memcell backfill`, `verify`, `repair`, `restore` and `rekey`: ordering a job, watching it, and saying what it came to.
//!
//! A running host is asked over its HTTP API, for the copies are its own: nobody else can see what is in its memory, and its directories
//! are locked. If no host runs, the job is done in this process.

mod here;
mod running;
mod summary;
mod watch;

use clap::Args;

pub(super) use self::running::Jobs as JobsView;
pub(super) use self::summary::JobView;
use super::running::{HostArgs, RunningHost};
use super::{Exit, Failure, session};
use crate::config::{Config, Role};
use crate::jobs::JobKind;
use crate::shutdown::Shutdown;

const AFTER_BACKFILL: &str = "\
Copies all documents to a backend. Newer copies stay; nothing is removed without --sweep. A mirror does so by itself when its backend is
empty. When MongoDB has lost track of what happened and has much less than the backend, a mirror removes nothing before it is told to, for
MongoDB may have lost its data (see `memcell restore`): --sweep tells it.

The running host does it; if none runs, this process. An interrupt gives it up; what is done stays done. A job whose host was killed goes
on when the host is started again, or when the command is given again.

Exit code 1: it failed, or the backend does not take some of the documents.

Examples:
  memcell backfill
  memcell backfill --backend archive --rate 2000";

const AFTER_VERIFY: &str = "\
Compares all documents with their copies and all copies with their documents, while others write. What is on its way is no difference: only
what stays the same on both sides after the mirror has caught up counts.

Exit code 1: there are differences, or it failed.

Examples:
  memcell verify
  memcell verify --backend archive --deep --json | jq .report";

const AFTER_REPAIR: &str = "\
As verify, and mends each difference: the mirror reads the document once more, in the order of its other work, and replaces the copy. No
concurrent write can be undone by that.

Exit code 1: a difference could not be mended, or it failed.

Examples:
  memcell repair
  memcell repair --backend archive --rate 5000";

const AFTER_RESTORE: &str = "\
Brings documents back to MongoDB that only a backend has, exactly as they were. What MongoDB has is never overwritten, and what is
soft-deleted there stays so.

Stop all hosts first if MongoDB has lost its data: a mirror that runs takes the loss for deletions. If none runs, this process reads the
backend without mirroring to it.

Exit code 1: a copy could not be read, or MongoDB does not take it.

Examples:
  memcell restore --backend archive";

const AFTER_REKEY: &str = "\
Rewrites the copies that are written otherwise than the configuration says by now: under another key or in clear, compressed otherwise, in
another format. What is up to date stays. The mirror reads each document once more, in the order of its other work, so no concurrent write
can be undone.

The running host does it, with the configuration that it runs with. When it is done, it says how many copies need which key: one that is
not among them can be removed from [encryption.keys]. Hosts that share a backend must all write with the new key before.

Exit code 1: copies had to be left as they were, since their document is gone (`memcell repair` removes them), or it failed.

Examples:
  memcell config reload && memcell rekey
  memcell rekey --backend archive --rate 2000";

/// Arguments of all of them.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Which backend; can be left out if there is only one
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Look at so many documents and copies a second at the most
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
    /// Order the job and don't wait for its end
    #[arg(long)]
    detach: bool,
}

/// Arguments of `memcell backfill`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_BACKFILL)]
pub(super) struct BackfillArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Also remove copies of documents that are gone, even if those are most of all copies
    #[arg(long)]
    sweep: bool,
}

/// Arguments of `memcell verify`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_VERIFY)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Compare whole documents, and not only revisions and checksums
    #[arg(long)]
    deep: bool,
}

/// Arguments of `memcell repair`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_REPAIR)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Compare whole documents, and not only revisions and checksums
    #[arg(long)]
    deep: bool,
}

/// Arguments of `memcell restore`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_RESTORE)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// Arguments of `memcell rekey`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_REKEY)]
pub(super) struct RekeyArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// What was asked for.
#[derive(Debug)]
struct Wanted {
    kind: JobKind,
    backend: Option<String>,
    deep: bool,
    sweep: bool,
    rate: Option<u32>,
}

/// How documents and copies are looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    deep: bool,
    sweep: bool,
}

pub(super) fn backfill(args: BackfillArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    run(JobKind::Backfill, args.common, Manner { sweep: args.sweep, ..Manner::default() }, config, json)
}

pub(super) fn verify(args: VerifyArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    run(JobKind::Verify, args.common, Manner { deep: args.deep, ..Manner::default() }, config, json)
}

pub(super) fn repair(args: RepairArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    run(JobKind::Repair, args.common, Manner { deep: args.deep, ..Manner::default() }, config, json)
}

pub(super) fn restore(args: RestoreArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    run(JobKind::Restore, args.common, Manner::default(), config, json)
}

pub(super) fn rekey(args: RekeyArgs, config: &Config, json: bool) -> Result<Exit, Failure> {
    run(JobKind::Rekey, args.common, Manner::default(), config, json)
}

fn run(kind: JobKind, args: CommonArgs, manner: Manner, config: &Config, json: bool) -> Result<Exit, Failure> {
    let CommonArgs { backend, rate, host, detach } = args;
    let Manner { deep, sweep } = manner;
    let wanted = Wanted { kind, backend, deep, sweep, rate };
    let runtime = session::runtime()?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(|error| Failure::io("signals", &error))?;
        let job = match RunningHost::find(host, Role::Admin, config).await? {
            Some(host) => running::work(&host, &wanted, detach, json, &shutdown).await?,
            None if detach => {
                let message = "no host is running that could go on with the job; leave --detach out to do it here";
                return Err(Failure::Usage(message.to_owned()));
            }
            None => Box::pin(here::work(config, &wanted, json, &shutdown)).await?,
        };
        summary::print(&job, json)?;
        Ok(Exit::fine_if(job.is_fine() || (detach && !job.has_ended())))
    });
    runtime.shutdown_background();
    outcome
}
