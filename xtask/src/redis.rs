//! The Redis server that tests and benchmarks of the remote plugin run against.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::output;
use crate::setup::{self, Need};
use crate::workspace;

/// The oldest version that the plugin works with.
const MIN_VERSION: u32 = 7;

const NEEDS: &[Need] = &[
    Need { package: "redis-server", program: Some("redis-server") },
    Need { package: "redis-tools", program: Some("redis-cli") },
];

/// Makes sure that the programs are on `PATH`, and says which version they are.
///
/// # Errors
/// If they are missing and can't be installed, or are too old.
pub(crate) fn ensure() -> Result<String> {
    setup::packages(NEEDS, "testing the remote plugin", "put redis-server and redis-cli on PATH")?;
    let said = output(Command::new("redis-server").arg("--version")).unwrap_or_default();
    let Some(version) = version_in(&said) else {
        bail!("redis-server doesn't answer to --version: mend it or take it off PATH");
    };
    if major(version).is_none_or(|major| major < MIN_VERSION) {
        bail!("redis-server is {version}, but the remote plugin needs {MIN_VERSION} or newer: put such a one on PATH");
    }
    let found = workspace::find_program("redis-server").unwrap_or_default();
    Ok(format!("{} ({version})", found.display()))
}

/// `Redis server v=7.0.15 sha=…`
fn version_in(said: &str) -> Option<&str> {
    said.split_whitespace().find_map(|word| word.strip_prefix("v="))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version_in("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64"), Some("7.0.15"));
        assert_eq!(version_in("no such file"), None);
        assert_eq!(major("7.0.15"), Some(7));
        assert_eq!(major("?"), None);
    }
}
