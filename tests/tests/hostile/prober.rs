//! A guest that tries what it is asked to try and tells how far it got, without the rest of a host around it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use memcell_host::config::GrantsConfig;
use memcell_host::kv::{Backend, Engine, KvError, Plugin, ShardState};
use memcell_host::metrics::Metrics;
use memcell_tests::host::{PATIENCE, hostile};

pub(crate) struct Prober {
    backend: Backend,
    metrics: Arc<Metrics>,
}

impl Prober {
    pub(crate) async fn start(grants: GrantsConfig) -> Result<Self> {
        let mut config = hostile(&[])?;
        config.grants = grants;
        config.limits.call_timeout = PATIENCE;
        config.limits.cpu = PATIENCE;
        let engine = Engine::new(Engine::default_cache_directory())?;
        let metrics = Arc::new(Metrics::new());
        let plugin = Plugin::load(&engine, memcell_tests::artifacts::file_of(&config)?, None)?;
        let backend = Backend::start(&plugin, &Arc::new(config), &metrics.backend("local"))?;
        let mut state = backend.watch().pop().context("there is no shard")?;
        let open = state.wait_for(|state| !matches!(state, ShardState::Opening));
        let state = tokio::time::timeout(PATIENCE, open).await.context("it was not opened")??.clone();
        if !matches!(state, ShardState::Running { .. }) {
            bail!("it could not be opened: {state:?}");
        }
        Ok(Self { backend, metrics })
    }

    /// What came of a probe.
    pub(crate) async fn try_ask(&self, probe: &str) -> Result<String, KvError> {
        let found = self.backend.get_many(&[format!("probe {probe}")]).await?.pop().flatten();
        Ok(found.map_or_else(|| "nothing".to_owned(), |entry| String::from_utf8_lossy(&entry.value).into_owned()))
    }

    /// What came of a probe that doesn't end the instance.
    pub(crate) async fn ask(&self, probe: &str) -> Result<String> {
        Ok(self.try_ask(probe).await?)
    }

    /// How often something of this kind was refused, as the metrics tell.
    pub(crate) fn refusals(&self, kind: &str) -> u64 {
        let prefix = format!("memcell_kv_refusals_total{{backend=\"local\",kind=\"{kind}\"}} ");
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
    }
}
