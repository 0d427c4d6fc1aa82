//! How many files and connections this process may have open: as many as the operating system lets it, and not only as many
//! as programs get unasked, which is 1024 almost everywhere.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What isn't for clients: MongoDB, plugins with their files and connections, the log.
const RESERVED: u64 = 512;

/// Raises the limit as far as it goes, and says so in the log.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(before) = current else { return };
    if maximum == Some(before) {
        tracing::info!(limit = before, "open files");
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(before, limit = maximum, "open files: the limit is raised"),
        Err(error) => tracing::warn!(%error, limit = before, "open files: the limit can't be raised"),
    }
}

/// How many connections of clients there can be; `None` if nothing limits them. Half of all files at least, where there are few.
pub(crate) fn connections() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(share)
}

fn share(files: u64) -> usize {
    let left = files.saturating_sub(RESERVED).max(files / 2);
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_files_are_for_clients() {
        for (files, clients) in [(1024, 512), (10_240, 9728), (64, 32), (0, 1)] {
            assert_eq!(share(files), clients, "{files}");
        }
        raise();
        assert!(connections().is_none_or(|connections| connections > 0));
    }
}
