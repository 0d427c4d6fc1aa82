//! `memcell get`: documents by their ids.

use std::collections::HashMap;

use clap::Args;

use super::{Exit, Failure, output, session};
use crate::config::Config;
use crate::memcell::{EventId, MemCell};
use crate::store::Validate;

const AFTER_HELP: &str = "\
Prints each document as the HTTP API shows it, in the order asked for. Soft-deleted documents count as missing.

MongoDB alone is asked, and nothing is compared: the copies belong to the host that serves, whose API validates what is read through it.

Exit code 1: a document is missing.

Examples:
  memcell get 685c8c52a1b2c3d4e5f60718
  memcell get --json 685c8c52a1b2c3d4e5f60718 685c8c52a1b2c3d4e5f60719 | jq .summary";

/// Arguments of `memcell get`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct GetArgs {
    /// Which documents: ids of 24 hexadecimal digits
    #[arg(required = true, value_name = "EVENT_ID", value_parser = EventId::parse)]
    event_ids: Vec<EventId>,
}

/// Carries it out.
pub(super) fn run(args: &GetArgs, config: Config, json: bool) -> Result<Exit, Failure> {
    let config = session::without_backends(config);
    session::with_store(&config, async |store, _| {
        let found = store.get_many(&args.event_ids, None, Validate::No).await?.value;
        let found: HashMap<EventId, MemCell> =
            found.into_iter().filter_map(|cell| Some((cell.event_id()?, cell))).collect();
        let mut ids = args.event_ids.iter();
        output::though_unread(ids.try_for_each(|id| print_one(*id, found.get(id), json)))?;
        Ok(Exit::fine_if(args.event_ids.iter().all(|id| found.contains_key(id))))
    })
}

fn print_one(id: EventId, cell: Option<&MemCell>, json: bool) -> Result<(), Failure> {
    let Some(cell) = cell else {
        output::note(format_args!("there is no MemCell {id}"));
        return Ok(());
    };
    let mut text = Vec::new();
    if json {
        cell.write_api_json(&mut text)?;
    } else {
        serde_json::to_writer_pretty(&mut text, &cell.api_json()?)
            .map_err(|error| Failure::Work(format!("{id} as json: {error}")))?;
    }
    text.push(b'\n');
    output::write(&text)
}
