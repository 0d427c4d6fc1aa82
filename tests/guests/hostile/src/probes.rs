//! Trying what a sandbox should refuse, and saying how far that got.
//!
//! A key that begins with `probe ` is an order; the value of its entry is `done`, `done: …` with what was found, or
//! `refused: …` with the error code of WASI. All calls are those of WASI itself: the standard library would refuse some before
//! the host has to.

mod files;
mod network;

use memcell_plugin::guest::bindings::exports::memcell::kv::store::Entry;

/// What was found, or the code of the refusal.
type Outcome = Result<String, &'static str>;

/// The entry that answers an order; `None`: the key is none.
pub(crate) fn answer(key: &str) -> Option<Entry> {
    let order: Vec<&str> = key.strip_prefix("probe ")?.split(' ').collect();
    let text = match carry_out(&order) {
        Ok(found) if found.is_empty() => "done".to_owned(),
        Ok(found) => format!("done: {found}"),
        Err(code) => format!("refused: {code}"),
    };
    Some(Entry { key: key.to_owned(), stamp: 1, expires_at: None, value: text.into_bytes() })
}

fn carry_out(order: &[&str]) -> Outcome {
    match order {
        ["read", path] => files::read(path),
        ["write", path] => files::write(path),
        ["stat", path] => files::stat(path),
        ["list", path] => files::list(path),
        ["mkdir", path] => files::make_directory(path),
        ["remove", path] => files::remove(path),
        ["symlink", target, path] => files::symlink(target, path),
        ["link", old, new] => files::link(old, new),
        ["rename", old, new] => files::rename(old, new),
        ["truncate", path] => files::truncate(path),
        ["open-many", path, count] => files::open_many(path, parsed(count)?),
        ["make-many", count] => files::make_many(parsed(count)?),
        ["directories"] => files::directories(),
        ["connect", address] => network::connect(address),
        ["bind", address] => network::bind(address).map(|_| String::new()),
        ["listen", address] => network::listen(address),
        ["udp", family] => network::udp(family),
        ["lookup", name] => network::look_up(name),
        ["environment"] => {
            let all = wasip2::cli::environment::get_environment();
            Ok(all.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
        }
        ["arguments"] => Ok(wasip2::cli::environment::get_arguments().join(",")),
        ["stdin"] => match wasip2::cli::stdin::get_stdin().blocking_read(1) {
            Ok(bytes) => Ok(format!("{} bytes", bytes.len())),
            Err(_) => Err("closed"),
        },
        _ => Err("no such probe"),
    }
}

fn parsed(number: &str) -> Result<usize, &'static str> {
    number.parse().map_err(|_| "no number")
}
