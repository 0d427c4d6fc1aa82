//! A backend that imports an interface which no host provides.
#![cfg(target_family = "wasm")]

#[allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package acme:radio@1.0.0;
            interface antenna { transmit: func(text: string); }
            world needy { import antenna; }
        ",
    });
}

use bindings::acme::radio::antenna;
use memcell_plugin::{Backend, Header, Record, Result, Settings, Step};

struct Radio;

impl Backend for Radio {
    fn open(shard: u32, _settings: &mut Settings) -> Result<Self> {
        antenna::transmit(&format!("shard {shard} is on the air"));
        Ok(Self)
    }

    fn read(&mut self, _key: &str) -> Result<Option<Record>> {
        Ok(None)
    }

    fn write(&mut self, key: String, _record: Record) -> Result<()> {
        antenna::transmit(&key);
        Ok(())
    }

    fn forget(&mut self, _key: &str, _seen: &Header) -> Result<()> {
        Ok(())
    }

    fn scan(&mut self, _cursor: Option<&str>, _limit: usize) -> Result<Step> {
        Ok(Step::default())
    }
}

memcell_plugin::export!(Radio);
