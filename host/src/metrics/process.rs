//! What the system says of this process. Reading it takes some tens of microseconds.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::families::ProcessFamilies;

/// The unit that `/proc` tells the start of a process in: a hundredth of a second, to programs on every architecture that Rust has a
/// standard library for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The figures of the process.
pub(super) struct Process {
    families: ProcessFamilies,
    /// How much of the processor time is in the figures.
    cpu: std::sync::Mutex<f64>,
}

impl Process {
    pub(super) fn new(families: ProcessFamilies) -> Self {
        if let Some(started) = start_time() {
            families.start_time.get_or_create(&[]).set(started);
        }
        Self { families, cpu: std::sync::Mutex::new(0.0) }
    }

    /// Brings the figures up to date.
    pub(super) fn refresh(&self) {
        let Self { families, cpu } = self;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let levels = [
            (&families.resident_memory, number(&status, "VmRSS:").map(|kib| kib * 1024)),
            (&families.virtual_memory, number(&status, "VmSize:").map(|kib| kib * 1024)),
            (&families.threads, number(&status, "Threads:")),
            // Less the one that is open to count them.
            (
                &families.open_fds,
                fs::read_dir("/proc/self/fd").ok().and_then(|open| (open.count() as u64).checked_sub(1)),
            ),
            (&families.max_fds, getrlimit(Resource::Nofile).current),
        ];
        for (family, value) in levels {
            if let Some(value) = value {
                family.get_or_create(&[]).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        let mut counted = cpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        families.cpu.get_or_create(&[]).inc_by((used - *counted).max(0.0));
        *counted = counted.max(used);
    }
}

/// A number of `/proc/self/status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the process started, in seconds since the Unix epoch.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may have spaces in it. The 22nd word is the time since the system started.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: f64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - (uptime - ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_started_a_while_ago() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_time().unwrap();
        assert!((-1.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn numbers_are_found_by_name() {
        let status = "Name:\tmemcell\nVmRSS:\t   12345 kB\nThreads:\t7\n";
        assert_eq!(
            (number(status, "VmRSS:"), number(status, "Threads:"), number(status, "VmSize:")),
            (Some(12345), Some(7), None)
        );
    }
}
