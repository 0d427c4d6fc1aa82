//! Taking over another configuration while operations go on: backends come, go and are replaced, and validation changes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::backends::{Backends, Launcher};
use super::validator::Validator;
use super::writes::to_the_end;
use super::{MemCellStore, await_required, unusable};
use crate::config::{BackendConfig, ChangeKind, Config, ConfigChange};
use crate::kv::{Engine, Plugin};
use crate::mirror::{Mirror, MirrorState};
use crate::{Error, ErrorKind, Result};

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// Each key that was added, removed, replaced or changed; empty if nothing was.
    pub changes: Vec<ConfigChange>,
}

impl MemCellStore {
    /// Takes over another configuration, or refuses it and leaves everything as it was. Operations go on meanwhile; reloads wait
    /// for each other.
    ///
    /// - A backend that is new is started. It is filled, and counts from when it is live, like any other.
    /// - A backend that is gone, or no longer enabled, is taken out, with its mismatches and figures. It is closed in the background
    ///   when the operations that know it have ended; that and its closing take `http.shutdown_grace` each at the most.
    /// - A backend whose configuration changed is replaced, and so is one that was given up. If the old one has a directory that the
    ///   new one is granted, it is closed first, and awaited; else the new one is started before the old one is closed.
    /// - All others stay as they are.
    /// - Validation works as `[validation]` says from now on.
    ///
    /// `log.level` is reported and left to whoever keeps the log. Of the sections `[host]`, `[mongodb]`, `[http]` and `[schedule]`, and of
    /// `log.format`, nothing may differ.
    ///
    /// Once begun it goes on to its end, also if the future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::RestartRequired`] with the keys that can't change in a running host; [`ErrorKind::Config`] if a `required` backend
    /// that would be started can't be used, or `validation.backend` is none; [`ErrorKind::Unavailable`] when the store is being
    /// closed. A refusal has one trace at the most: a backend whose directory was to be handed over to a required one is
    /// started again.
    pub async fn reload(&self, config: &Config) -> Result<ReloadReport> {
        let (store, config) = (self.clone(), config.clone());
        to_the_end(async move { Box::pin(store.take_over(config)).await }).await
    }

    async fn take_over(&self, new: Config) -> Result<ReloadReport> {
        let mut launcher = self.inner.launcher.lock().await;
        if self.inner.closing.is_cancelled() {
            return Err(closing());
        }
        let old = &self.config();
        let mut changes = old.changes_to(&new);
        refuse_restarts(&changes)?;
        refuse_unknown_validator(&new)?;
        let plan = Plan::new(&self.mirrors(), old, &new);
        changes.extend(plan.retried().map(|name| ConfigChange::of_backend(name, ChangeKind::Replaced)));
        let mirrors = self.start_incoming(&plan, old, &mut launcher).await?;
        self.install(mirrors, old, &new);
        for mirror in &plan.outgoing {
            mirror.retire();
            self.inner.mismatches.forget(&mirror.config().name);
        }
        self.inner.mismatches.keep(new.validation.mismatches);
        for ConfigChange { key, kind } in &changes {
            tracing::info!(key, change = kind.as_str(), "configuration changed");
        }
        *self.inner.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(ReloadReport { changes })
    }

    /// Starts what is to be started, and waits until those of it that are required can be used. Answers all mirrors that there
    /// shall be. If a required one can't be used, all is as it was before, but that what had to make way has been started again.
    async fn start_incoming(&self, plan: &Plan<'_>, old: &Config, launcher: &mut Launcher) -> Result<Vec<Arc<Mirror>>> {
        let grace = old.http.shutdown_grace;
        if !plan.in_the_way.is_empty() {
            // Most of what can be wrong with a plugin shows without the directory.
            self.unless_closing(check_plugins(plan, &launcher.engine()?)).await?;
            let undone = join_all(plan.in_the_way.iter().map(|mirror| mirror.close(grace))).await;
            for undone in undone.into_iter().flatten() {
                tracing::warn!(undone, "a backend does not make way in time");
            }
        }
        let mut started = Vec::new();
        let mut required = Vec::new();
        let mut start = |next: &Next<'_>| {
            let (config, is_new) = match next {
                Next::Keep(mirror) => return Ok(Arc::clone(mirror)),
                Next::Start { config, is_new } => (config, *is_new),
            };
            let mirror = launcher.start(config)?;
            started.push(Arc::clone(&mirror));
            if is_new {
                required.push(Arc::clone(&mirror));
            }
            Ok(mirror)
        };
        let mirrors: Result<Vec<_>> = plan.next.iter().map(&mut start).collect();
        let usable = match mirrors {
            Ok(mirrors) => {
                let opened = async { await_required(&required).await.map_err(|error| error.message().to_owned()) };
                self.unless_closing(opened).await.map(|()| mirrors)
            }
            Err(error) => Err(error),
        };
        if usable.is_err() {
            join_all(started.iter().map(|mirror| mirror.close(grace))).await;
            self.start_again(plan, old, launcher);
        }
        usable
    }

    /// Starts those again that were closed to make way.
    fn start_again(&self, plan: &Plan<'_>, old: &Config, launcher: &mut Launcher) {
        if plan.in_the_way.is_empty() || self.inner.closing.is_cancelled() {
            return;
        }
        let restored = self.mirrors().into_iter().map(|mirror| {
            if !plan.in_the_way.iter().any(|closed| Arc::ptr_eq(closed, &mirror)) {
                return mirror;
            }
            // The engine is there, so this can't fail; a closed mirror in the list would say what happened.
            launcher.start(mirror.config()).unwrap_or(mirror)
        });
        let restored = restored.collect();
        self.install(restored, old, old);
    }

    /// Puts these mirrors in the place of the present ones, and sees to it in the background that those that are new learn what is
    /// under way without them, and that those that are gone are closed.
    fn install(&self, mirrors: Vec<Arc<Mirror>>, old: &Config, new: &Config) {
        let inner = &self.inner;
        let former = self.backends_now();
        let (incoming, outgoing) = (missing(&mirrors, &former.mirrors), missing(&former.mirrors, &mirrors));
        let mut backends = Backends::new(mirrors, None);
        let validated = new.validation.backend.as_deref().and_then(|name| backends.mirror(name));
        backends.validator = validated.map(|mirror| match &former.validator {
            Some(validator) if Arc::ptr_eq(validator.mirror(), mirror) && old.validation == new.validation => {
                validator.clone()
            }
            _ => Validator::new(mirror, &inner.repository, &new.validation, &inner.mismatches),
        });
        let tickets: Vec<_> = incoming.into_iter().map(|mirror| (mirror.announce_any(), mirror)).collect();
        drop(former);
        let ended = inner.backends.replace(backends);
        for (ticket, mirror) in tickets {
            let ended = ended.clone();
            inner.successions.spawn(async move {
                tokio::select! {
                    () = async { ended.cancelled().await; mirror.settle().await; } => {}
                    () = mirror.closed() => {}
                }
                drop(ticket);
            });
        }
        let grace = old.http.shutdown_grace;
        for mirror in outgoing {
            inner.successions.spawn(close_after(mirror, ended.clone(), inner.closing.clone(), grace));
        }
    }

    /// Does work whose failure is the new configuration's fault, or gives it up when the store is being closed.
    async fn unless_closing(&self, work: impl Future<Output = Result<(), String>>) -> Result<()> {
        let ended = self.inner.closing.run_until_cancelled(work).await.ok_or_else(closing)?;
        ended.map_err(|message| Error::new(ErrorKind::Config, message))
    }
}

/// What is to become of each backend.
struct Plan<'a> {
    /// All that there shall be, in the order of the new configuration.
    next: Vec<Next<'a>>,
    /// Those of now that there shall not be any more.
    outgoing: Vec<Arc<Mirror>>,
    /// Those among `outgoing` with a directory that a new one is granted: it is locked until they are closed.
    in_the_way: Vec<Arc<Mirror>>,
}

enum Next<'a> {
    Keep(Arc<Mirror>),
    Start {
        config: &'a BackendConfig,
        /// Whether it is another backend than before, rather than another attempt.
        is_new: bool,
    },
}

impl<'a> Plan<'a> {
    fn new(now: &[Arc<Mirror>], old: &Config, new: &'a Config) -> Self {
        let next = |config: &'a BackendConfig| {
            let before = old.backends.iter().find(|before| before.name == config.name && before.runs_as(config));
            let running = now.iter().find(|mirror| mirror.config().name == config.name).filter(|_| before.is_some());
            match running {
                Some(mirror) if !matches!(mirror.state(), MirrorState::Failed { .. }) => Next::Keep(Arc::clone(mirror)),
                // Given up: a reload is how an operator says that it is worth another attempt. One that has just become
                // required has to succeed at it.
                Some(_) => Next::Start { config, is_new: before != Some(config) },
                None => Next::Start { config, is_new: true },
            }
        };
        let next: Vec<Next<'_>> = new.backends.iter().filter(|backend| backend.enabled).map(next).collect();
        let stays = |mirror: &Arc<Mirror>| {
            next.iter().any(|next| matches!(next, Next::Keep(kept) if Arc::ptr_eq(kept, mirror)))
        };
        let outgoing: Vec<_> = now.iter().filter(|mirror| !stays(mirror)).cloned().collect();
        let wanted = |mirror: &&Arc<Mirror>| {
            let directory = mirror.config().grants.directory.as_ref();
            let wants = |next: &Next<'_>| matches!(next, Next::Start { config, .. } if config.grants.directory.as_ref() == directory);
            directory.is_some() && next.iter().any(wants)
        };
        let in_the_way = outgoing.iter().filter(wanted).cloned().collect();
        Self { next, outgoing, in_the_way }
    }

    /// The names of those that are started anew though nothing about them changed.
    fn retried(&self) -> impl Iterator<Item = &str> {
        self.next.iter().filter_map(|next| match next {
            Next::Start { config, is_new: false } => Some(config.name.as_str()),
            _ => None,
        })
    }
}

fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the host is being shut down")
}

fn refuse_restarts(changes: &[ConfigChange]) -> Result<()> {
    let keys: Vec<&str> =
        changes.iter().filter(|change| change.needs_restart()).map(|change| change.key.as_str()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let message = format!("nothing was changed: the host has to be restarted for {}", keys.join(", "));
    Err(Error::new(ErrorKind::RestartRequired, message))
}

/// The file's own check says this too; a configuration that was put together by a program has had none.
fn refuse_unknown_validator(new: &Config) -> Result<()> {
    match &new.validation.backend {
        Some(name) if !new.backends.iter().any(|backend| backend.enabled && backend.name == *name) => {
            let message = format!("validation.backend names no backend that is enabled: {name}");
            Err(Error::new(ErrorKind::Config, message))
        }
        _ => Ok(()),
    }
}

/// Whether the plugins of new required backends can be loaded at all.
async fn check_plugins(plan: &Plan<'_>, engine: &Engine) -> Result<(), String> {
    for next in &plan.next {
        let Next::Start { config, is_new: true } = next else { continue };
        if !config.required {
            continue;
        }
        let loaded = Box::pin(Plugin::obtain(engine, config)).await;
        loaded.map_err(|error| unusable(&config.name, &error.to_string()))?;
    }
    Ok(())
}

/// Those of `these` that are not among `others`.
fn missing(these: &[Arc<Mirror>], others: &[Arc<Mirror>]) -> Vec<Arc<Mirror>> {
    these.iter().filter(|mirror| !others.iter().any(|other| Arc::ptr_eq(mirror, other))).cloned().collect()
}

/// Closes a mirror that was taken out, once no operation knows it any more, or has had its time.
async fn close_after(mirror: Arc<Mirror>, ended: CancellationToken, closing: CancellationToken, grace: Duration) {
    tokio::select! {
        () = ended.cancelled() => {}
        () = closing.cancelled() => {}
        () = tokio::time::sleep(grace) => {}
    }
    let backend = mirror.config().name.as_str();
    match mirror.close(grace).await {
        None => tracing::info!(backend, "backend taken out"),
        Some(undone) => tracing::warn!(backend, undone, "a backend that was taken out did not end in time"),
    }
}
