//! What is killed, when, and what goes on meanwhile: all of it follows from the seed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;

use crate::random::Random;

/// The backends that can be under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is empty after each kill of the host.
    InMemory,
    /// It goes on where it was.
    File,
    /// It does so as well, and its server can be killed by itself.
    Remote,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InMemory, Self::File, Self::Remote];

    fn name(self) -> &'static str {
        match self {
            Self::InMemory => "in-memory",
            Self::File => "file",
            Self::Remote => "remote",
        }
    }

    fn victims(self) -> &'static [Victim] {
        match self {
            Self::InMemory | Self::File => &[Victim::Host, Victim::Host, Victim::MongoDb],
            Self::Remote => &[Victim::Host, Victim::Host, Victim::MongoDb, Victim::Redis],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("there is no backend {name}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Host,
    MongoDb,
    Redis,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host",
            Self::MongoDb => "MongoDB",
            Self::Redis => "Redis",
        })
    }
}

/// When the first kill of a round comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// After so many operations of the workers, and a little later.
    Operations(u64, Duration),
    /// So long after somebody changed all documents at once: while the tail has its hands full.
    Burst(Duration),
    /// When all writers have stopped, so long after the last write: while the tail has the rest in hand, or has just finished.
    Rest(Duration),
}

/// From one check to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) moment: Moment,
    pub(super) victim: Victim,
    /// How long it is gone.
    pub(super) outage: Duration,
    /// Another kill, so long after the first victim was started again.
    pub(super) second: Option<(Duration, Victim)>,
    /// How many operations there still are after that; `None`: the writers stop at the kill, and nothing is written until the
    /// check.
    pub(super) afterwards: Option<u64>,
}

impl Round {
    /// The next round of a run.
    pub(super) fn choose(random: &mut Random, kind: Kind, may_kill_twice: bool) -> Self {
        let mut millis = |bound: u64| Duration::from_micros(random.below(bound * 1000));
        let (little, outage, pause) = (millis(30), millis(400), millis(900));
        let moment = match random.below(6) {
            0 | 1 => Moment::Burst(little * 2),
            2 => Moment::Rest(little * 3),
            _ => Moment::Operations(10 + random.below(300), little),
        };
        let victim = |random: &mut Random| random.pick(kind.victims()).copied().unwrap_or(Victim::Host);
        let first = victim(random);
        let second = victim(random);
        let goes_on = random.one_in(2);
        let operations = random.below(200);
        let twice = random.one_in(4) && may_kill_twice;
        Self {
            moment,
            victim: first,
            outage,
            second: twice.then_some((pause, second)),
            afterwards: (goes_on && !matches!(moment, Moment::Rest(_))).then_some(operations),
        }
    }

    pub(super) fn kills(&self) -> u32 {
        1 + u32::from(self.second.is_some())
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.victim)?;
        match self.moment {
            Moment::Operations(count, later) => write!(f, "{later:.0?} after {count} operations")?,
            Moment::Burst(later) => write!(f, "{later:.0?} after a change of everything")?,
            Moment::Rest(later) => write!(f, "{later:.0?} after the last write")?,
        }
        if let Some((pause, victim)) = self.second {
            write!(f, ", {victim} {pause:.0?} after its return")?;
        }
        match self.afterwards {
            Some(count) => write!(f, ", then {count} operations"),
            None => write!(f, ", then none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        let rounds = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| Round::choose(&mut random, Kind::Remote, true)).collect::<Vec<_>>()
        };
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
        for victim in [Victim::Host, Victim::MongoDb, Victim::Redis] {
            assert!(rounds(1).iter().any(|round| round.victim == victim && round.second.is_some()));
        }
    }

    #[test]
    fn only_a_server_that_is_there_is_killed() {
        let mut random = Random::new(1);
        assert!((0..200).all(|_| Round::choose(&mut random, Kind::File, true).victim != Victim::Redis));
    }

    #[test]
    fn backends_have_the_names_of_the_command_line() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        assert!("redis".parse::<Kind>().unwrap_err().to_string().contains("in-memory, file, remote"));
    }
}
