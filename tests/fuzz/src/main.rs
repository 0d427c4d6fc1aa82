//! libFuzzer with one of the targets: the one that `MEMCELL_FUZZ_TARGET` names.
#![no_main]

use std::process::exit;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use memcell_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

/// The target to be tried.
fn chosen() -> Target {
    *TARGET.get_or_init(|| {
        let name = std::env::var("MEMCELL_FUZZ_TARGET").unwrap_or_default();
        memcell_fuzz::target(&name).unwrap_or_else(|| {
            let names: Vec<&str> = memcell_fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("MEMCELL_FUZZ_TARGET is {name:?}, and must be one of {}", names.join(", "));
            exit(2)
        })
    })
}

fuzz_target!(|data: &[u8]| (chosen().run)(data));
