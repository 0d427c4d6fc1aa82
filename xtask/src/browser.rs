//! The browser that tests of the dashboard run in.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::output;
use crate::setup::{self, Need};

const NEEDS: &[Need] = &[
    Need { package: "chromium", program: Some("chromium") },
    Need { package: "chromium-driver", program: Some("chromedriver") },
];

/// Makes sure that the browser and its driver are on `PATH`, and says which version they are.
///
/// # Errors
/// If they are missing and can't be installed, or don't start.
pub(crate) fn ensure() -> Result<String> {
    setup::packages(NEEDS, "testing the dashboard", "put chromium and chromedriver, of the same version, on PATH")?;
    let Some(version) = output(Command::new("chromedriver").arg("--version")) else {
        bail!("chromedriver doesn't answer to --version: mend it or take it off PATH");
    };
    Ok(shortened(&version))
}

/// `ChromeDriver 131.0.6778.85 (3d81e41b6f3ac8bcae63b32e8145c9eb0cd60a2d-…)`, without what is in brackets.
fn shortened(said: &str) -> String {
    said.split_once(" (").map_or(said, |(version, _)| version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_shortened() {
        assert_eq!(shortened("ChromeDriver 131.0.6778.85 (3d81e41b-refs)"), "ChromeDriver 131.0.6778.85");
        assert_eq!(shortened("?"), "?");
    }
}
