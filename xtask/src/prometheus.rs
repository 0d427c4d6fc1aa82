//! The Prometheus that tests scrape a host with, and the `promtool` that checks rules and metrics.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{output, run, say};
use crate::setup::{self, Need};
use crate::workspace;

const NEEDS: &[Need] = &[
    Need { package: "prometheus", program: Some("prometheus") },
    Need { package: "prometheus", program: Some("promtool") },
];

/// What Debian asks before it starts a service that it has installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// 101: not allowed.
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// Where systemd is what services are started by.
const SYSTEMD: &str = "/run/systemd/system";

/// Makes sure that the programs are on `PATH`, and says which version they are. The service that Debian's package brings is not
/// started, neither now nor by the next start of the machine: a server of the tests' own is.
///
/// # Errors
/// If they are missing and can't be installed.
pub(crate) fn ensure() -> Result<String> {
    if NEEDS.iter().any(|need| need.program.is_some_and(|program| workspace::find_program(program).is_none())) {
        install()?;
    }
    let said = output(Command::new("promtool").arg("--version")).unwrap_or_default();
    let Some(version) = version_in(&said) else {
        bail!("promtool doesn't answer to --version: mend it or take it off PATH");
    };
    let found = workspace::find_program("prometheus").unwrap_or_default();
    Ok(format!("{} ({version})", found.display()))
}

fn install() -> Result<()> {
    let forbidden = forbid_services()?;
    let installed = setup::packages(NEEDS, "testing metrics and alert rules", "put prometheus and promtool on PATH");
    if forbidden {
        fs::remove_file(POLICY)
            .with_context(|| format!("can't remove {POLICY}: remove it, or no service will start"))?;
    }
    installed?;
    if Path::new(SYSTEMD).is_dir() && run(Command::new("systemctl").args(["disable", "--now", "prometheus"])).is_err() {
        say("the service prometheus may be running on port 9090: stop it with `systemctl disable --now prometheus`");
    }
    Ok(())
}

/// Forbids the start of services, if nobody else has a say in it and this is root. Answers whether it did.
fn forbid_services() -> Result<bool> {
    if !setup::is_root() || Path::new(POLICY).exists() || workspace::find_program("apt-get").is_none() {
        return Ok(false);
    }
    let mut policy = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
    let written = policy.as_mut().map(|policy| policy.write_all(NO_SERVICES.as_bytes()));
    match written {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => Err(error).with_context(|| format!("can't write {POLICY}")),
        Err(error) => bail!("can't make {POLICY}, which keeps services from being started: {error}"),
    }
}

/// `promtool, version 2.42.0+ds (branch: …)`
fn version_in(said: &str) -> Option<&str> {
    said.strip_prefix("promtool, version ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(version_in("promtool, version 2.42.0+ds (branch: debian/sid)\n  build user: x"), Some("2.42.0+ds"));
        assert_eq!(version_in("no such file"), None);
    }
}
