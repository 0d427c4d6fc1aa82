//! The registry that tests of plugins by reference run against.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::workspace;

const NEEDS: &[Need] = &[Need { package: "docker-registry", program: Some("docker-registry") }];

/// Makes sure that the program is on `PATH`, and says where. Nothing is left running: tests start their own.
///
/// # Errors
/// If it is missing and can't be installed.
pub(crate) fn ensure() -> Result<String> {
    setup::packages(
        NEEDS,
        "testing plugins from registries",
        "put docker-registry on PATH (CNCF distribution 2.8 or newer)",
    )?;
    Ok(workspace::find_program("docker-registry").unwrap_or_default().display().to_string())
}
