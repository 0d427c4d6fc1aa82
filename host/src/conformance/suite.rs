//! Cases, and what becomes of them.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::CASES;
use super::contract;
use super::failure::{Checked, Failure, Stop};
use super::run::Run;
use crate::kv::{Capabilities, KvError, Trials};

/// One promise of the contract, and how to try it.
#[derive(Debug)]
pub struct Case {
    /// What it says, as an identifier.
    pub name: &'static str,
    /// Whom it is for.
    pub needs: Needs,
    run: fn(&Run<'_>) -> Checked,
}

pub(super) const fn case(name: &'static str, needs: Needs, run: fn(&Run<'_>) -> Checked) -> Case {
    Case { name, needs, run }
}

/// What a backend must have declared, or left undeclared, for a case to be meant for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// For every backend.
    Nothing,
    /// It declares `persistent`.
    Persistent,
    /// It declares neither `persistent` nor `shared`.
    Ephemeral,
    /// It declares `shared`.
    Shared,
    /// It doesn't.
    Private,
    /// It exports `digests`.
    Digests,
    /// It exports `fencing`, and declares `shared`.
    Fencing,
    /// It exports `fencing`, and doesn't declare `shared`.
    IdleFencing,
    /// It exports `two-phase`, and doesn't declare `shared`.
    TwoPhase,
}

/// Which of the optional interfaces a plugin exports.
#[derive(Debug, Clone, Copy)]
struct Optional {
    digests: bool,
    fencing: bool,
    two_phase: bool,
}

impl Needs {
    /// Why a backend with these capabilities is not meant; `None`: it is.
    fn unmet_by(self, capabilities: &Capabilities, optional: Optional) -> Option<&'static str> {
        let Capabilities { persistent, shared, .. } = *capabilities;
        match self {
            Self::Persistent if !persistent => Some("`persistent` is not declared"),
            Self::Ephemeral if persistent => Some("`persistent` is declared"),
            Self::Digests if !optional.digests => Some("`digests` is not exported"),
            Self::Fencing | Self::IdleFencing if !optional.fencing => Some("`fencing` is not exported"),
            Self::TwoPhase if !optional.two_phase => Some("`two-phase` is not exported"),
            Self::Shared | Self::Fencing if !shared => Some("`shared` is not declared"),
            Self::Ephemeral | Self::Private | Self::TwoPhase | Self::IdleFencing if shared => {
                Some("`shared` is declared")
            }
            _ => None,
        }
    }
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps the promise, as far as was tried.
    Passed {
        /// What was not tried to the full, and why.
        notes: Vec<String>,
    },
    /// It doesn't.
    Failed(Failure),
    /// The case is not meant for this backend.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// A case and its end.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// See [`Case::name`].
    pub name: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took, removing its keys included.
    pub elapsed: Duration,
}

/// The cases, applied to one plugin in one configuration.
pub struct Suite {
    trials: Trials,
    seed: u64,
    malformed: Vec<(String, String)>,
    run_id: u32,
    capabilities: OnceLock<Result<Capabilities, KvError>>,
}

impl Suite {
    /// For instances like these, with a seed that differs from run to run.
    pub fn new(trials: Trials) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = xxh3_64(format!("{since_epoch:?} {}", std::process::id()).as_bytes());
        // A seed is to be typed again, and the keys are to be short.
        let short = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            trials,
            seed: u64::from(short(moment)),
            malformed: Vec::new(),
            run_id: short(moment >> 32),
            capabilities: OnceLock::new(),
        }
    }

    /// With this seed for everything random: the same operations as in another run with it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Settings whose values `open` has to refuse, one at a time: what is malformed, only the plugin's author can say.
    #[must_use]
    pub fn malformed(mut self, settings: Vec<(String, String)>) -> Self {
        self.malformed = settings;
        self
    }

    /// The seed in use.
    pub fn seed_in_use(&self) -> u64 {
        self.seed
    }

    /// Where instances come from.
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    pub(super) fn malformed_settings(&self) -> &[(String, String)] {
        &self.malformed
    }

    /// What the plugin declares. Opens and closes an instance the first time.
    ///
    /// # Errors
    /// If it can't be opened; every case fails then.
    pub fn capabilities(&self) -> Result<Capabilities, KvError> {
        let ask = || {
            let mut trial = self.trials.open(0)?;
            let capabilities = trial.capabilities()?;
            // How it closes is for a case to say.
            let _ = trial.close();
            Ok(capabilities)
        };
        self.capabilities.get_or_init(ask).clone()
    }

    /// Runs one case, on the thread of the caller: not for use within an async runtime.
    pub fn run(&self, case: &Case) -> CaseReport {
        let started = Instant::now();
        let verdict = match self.capabilities() {
            Err(error) => Verdict::Failed(Failure {
                expected: "the plugin can be opened with the settings given".to_owned(),
                found: error.to_string(),
                contract: contract::broken_by_opening(&error),
            }),
            Ok(capabilities) => match case.needs.unmet_by(&capabilities, self.optional()) {
                Some(reason) => Verdict::Skipped { reason: reason.to_owned() },
                None => self.verdict(case, capabilities),
            },
        };
        CaseReport { name: case.name, verdict, elapsed: started.elapsed() }
    }

    fn optional(&self) -> Optional {
        Optional {
            digests: self.trials.has_digests(),
            fencing: self.trials.has_fencing(),
            two_phase: self.trials.has_two_phase(),
        }
    }

    fn verdict(&self, case: &Case, capabilities: Capabilities) -> Verdict {
        let number = CASES.iter().position(|other| other.name == case.name).unwrap_or(CASES.len());
        let run = Run::new(self, capabilities, format!("mct-{:08x}-{number}/", self.run_id));
        let end = (case.run)(&run);
        let cleared = run.clear();
        match end.and(cleared) {
            Ok(()) => Verdict::Passed { notes: run.into_notes() },
            Err(Stop::Failed(failure)) => Verdict::Failed(*failure),
            Err(Stop::Skip(reason)) => Verdict::Skipped { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_identifiers() {
        let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(
            names.iter().all(|name| name
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit()))
        );
    }

    #[test]
    fn what_is_declared_decides() {
        let declared = |persistent, shared| Capabilities {
            max_key_bytes: 256,
            max_value_bytes: 1,
            max_batch: 1,
            persistent,
            shared,
        };
        let meant = |persistent, shared| {
            let all = [
                Needs::Nothing,
                Needs::Persistent,
                Needs::Ephemeral,
                Needs::Shared,
                Needs::Private,
                Needs::Fencing,
                Needs::IdleFencing,
                Needs::TwoPhase,
            ];
            let every = Optional { digests: true, fencing: true, two_phase: true };
            all.into_iter()
                .filter(|needs| needs.unmet_by(&declared(persistent, shared), every).is_none())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            meant(false, false),
            [Needs::Nothing, Needs::Ephemeral, Needs::Private, Needs::IdleFencing, Needs::TwoPhase]
        );
        assert_eq!(
            meant(true, false),
            [Needs::Nothing, Needs::Persistent, Needs::Private, Needs::IdleFencing, Needs::TwoPhase]
        );
        assert_eq!(meant(false, true), [Needs::Nothing, Needs::Shared, Needs::Fencing]);
        assert_eq!(meant(true, true), [Needs::Nothing, Needs::Persistent, Needs::Shared, Needs::Fencing]);
        let none = Optional { digests: false, fencing: false, two_phase: false };
        assert!(Needs::Digests.unmet_by(&declared(true, true), none).is_some());
        assert!(Needs::Fencing.unmet_by(&declared(true, true), none).is_some());
        assert!(Needs::TwoPhase.unmet_by(&declared(true, false), none).is_some());
    }
}
