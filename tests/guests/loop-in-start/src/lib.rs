//! A backend that is fine, were it not for an initialisation that never returns: instantiation alone takes for ever.
#![cfg(target_family = "wasm")]

use std::hint::black_box;

use memcell_plugin::{Backend, Error, Header, Record, Result, Settings, Step};

/// What instantiation runs before anything can be called, if a component has it.
#[allow(unsafe_code, reason = "it is found by its name")]
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}

struct NeverReached;

impl Backend for NeverReached {
    fn open(_shard: u32, _settings: &mut Settings) -> Result<Self> {
        Ok(Self)
    }

    fn read(&mut self, _key: &str) -> Result<Option<Record>> {
        Ok(None)
    }

    fn write(&mut self, _key: String, _record: Record) -> Result<()> {
        Err(Error::unsupported("nothing is stored here"))
    }

    fn forget(&mut self, _key: &str, _seen: &Header) -> Result<()> {
        Ok(())
    }

    fn scan(&mut self, _cursor: Option<&str>, _limit: usize) -> Result<Step> {
        Ok(Step::default())
    }
}

memcell_plugin::export!(NeverReached);
