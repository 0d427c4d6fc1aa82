//! What to do wrong, in which function, and when: read from the settings.

use std::cell::RefCell;

use memcell_plugin::guest::bindings::exports::memcell::kv::store::Entry;
use memcell_plugin::{Error, Result, Settings, required};

/// A function of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Open,
    Get,
    Digest,
    Hold,
    Prepare,
    Commit,
    Abort,
    InDoubt,
    Put,
    Delete,
    Scan,
    Stats,
    Flush,
    Health,
    Close,
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Trap,
    Loop,
    Sleep,
    Memory,
    Recurse,
    Descend,
    Exit,
    Nap,
    Pipe,
    Handles,
    Random,
    WideWrite,
    Print,
    LoopInRealloc,
    WildRealloc,
    AbsurdLimits,
    Error,
    Timeout,
    Full,
    Refuse,
    GiantError,
    ShortAnswer,
    LongAnswer,
    Swapped,
    WrongKey,
    DuplicateKey,
    GarbageValue,
    StaleValue,
    GiantAnswer,
    AliasedAnswer,
    InvalidUtf8,
    LostWrite,
    EndlessScan,
}

const FUNCTIONS: [(&str, Option<Function>); 16] = [
    ("any", None),
    ("open", Some(Function::Open)),
    ("get", Some(Function::Get)),
    ("digest", Some(Function::Digest)),
    ("hold", Some(Function::Hold)),
    ("prepare", Some(Function::Prepare)),
    ("commit", Some(Function::Commit)),
    ("abort", Some(Function::Abort)),
    ("in-doubt", Some(Function::InDoubt)),
    ("put", Some(Function::Put)),
    ("delete", Some(Function::Delete)),
    ("scan", Some(Function::Scan)),
    ("stats", Some(Function::Stats)),
    ("flush", Some(Function::Flush)),
    ("health", Some(Function::Health)),
    ("close", Some(Function::Close)),
];

const MODES: [(&str, Mode); 33] = [
    ("trap", Mode::Trap),
    ("loop", Mode::Loop),
    ("sleep", Mode::Sleep),
    ("memory", Mode::Memory),
    ("recurse", Mode::Recurse),
    ("descend", Mode::Descend),
    ("exit", Mode::Exit),
    ("nap", Mode::Nap),
    ("pipe", Mode::Pipe),
    ("handles", Mode::Handles),
    ("random", Mode::Random),
    ("wide-write", Mode::WideWrite),
    ("print", Mode::Print),
    ("loop-in-realloc", Mode::LoopInRealloc),
    ("wild-realloc", Mode::WildRealloc),
    ("absurd-limits", Mode::AbsurdLimits),
    ("error", Mode::Error),
    ("timeout", Mode::Timeout),
    ("full", Mode::Full),
    ("refuse", Mode::Refuse),
    ("giant-error", Mode::GiantError),
    ("short-answer", Mode::ShortAnswer),
    ("long-answer", Mode::LongAnswer),
    ("swapped", Mode::Swapped),
    ("wrong-key", Mode::WrongKey),
    ("duplicate-key", Mode::DuplicateKey),
    ("garbage-value", Mode::GarbageValue),
    ("stale-value", Mode::StaleValue),
    ("giant-answer", Mode::GiantAnswer),
    ("aliased-answer", Mode::AliasedAnswer),
    ("invalid-utf8", Mode::InvalidUtf8),
    ("lost-write", Mode::LostWrite),
    ("endless-scan", Mode::EndlessScan),
];

impl Mode {
    /// Whether there is a way to do it in `function`.
    fn fits(self, function: Function) -> bool {
        use Function::{Delete, Get, Open, Put, Scan};
        match self {
            Self::Trap | Self::Loop | Self::Sleep | Self::Memory | Self::Recurse => true,
            Self::Descend
            | Self::Exit
            | Self::Nap
            | Self::Pipe
            | Self::Handles
            | Self::Random
            | Self::WideWrite
            | Self::Print => true,
            Self::LoopInRealloc | Self::WildRealloc | Self::AbsurdLimits => function == Open,
            Self::Error | Self::Timeout | Self::Full | Self::Refuse | Self::GiantError => true,
            Self::ShortAnswer | Self::LongAnswer => matches!(function, Get | Put | Delete),
            Self::Swapped => matches!(function, Get | Put | Delete | Scan),
            Self::WrongKey | Self::GiantAnswer | Self::InvalidUtf8 => matches!(function, Get | Scan),
            Self::DuplicateKey | Self::GarbageValue | Self::StaleValue | Self::AliasedAnswer => function == Get,
            Self::LostWrite => matches!(function, Put | Delete),
            Self::EndlessScan => function == Scan,
        }
    }
}

/// Which calls go wrong, and how. Counts start anew with every instance.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `None`: every function in which the mode is possible, but `open` unless it is all about that.
    on: Option<Function>,
    mode: Mode,
    /// How many more calls behave.
    after: u64,
    /// How many more calls misbehave from then on.
    times: u64,
    /// Only puts of a value with this text count.
    containing: Option<String>,
    /// How large "giant" is, in bytes.
    size: usize,
}

impl Plan {
    /// Without `mode`, nothing goes wrong.
    pub(crate) fn from_settings(settings: Vec<(String, String)>) -> Result<Option<Self>> {
        let mut settings = Settings::new(settings)?;
        let on = settings.choice("on", &FUNCTIONS)?;
        let mode = settings.choice("mode", &MODES)?;
        let after = settings.integer("after", 0..=i64::MAX)?.map_or(0, i64::unsigned_abs);
        let times = settings.integer("times", 0..=i64::MAX)?.map_or(u64::MAX, i64::unsigned_abs);
        let containing = settings.string("containing");
        let size = settings.bytes("size")?.unwrap_or(64 << 20);
        settings.finish()?;
        let Some(mode) = mode else { return Ok(None) };
        // What can only be done in `open`, or makes most sense there, needn't be told where.
        let at_open = matches!(mode, Mode::Refuse | Mode::LoopInRealloc | Mode::WildRealloc | Mode::AbsurdLimits);
        let default = at_open.then_some(Some(Function::Open));
        let on = required("on", on.or(default))?;
        if let Some(function) = on
            && !mode.fits(function)
        {
            return Err(Error::invalid_argument(format!("the mode {mode:?} is not possible in {function:?}")));
        }
        let size =
            usize::try_from(size).map_err(|_| Error::invalid_argument("the setting \"size\" is out of range"))?;
        Ok(Some(Self { on, mode, after, times, containing, size }))
    }

    fn strike(&mut self, function: Function) -> Option<(Mode, usize)> {
        let is_meant = match self.on {
            Some(on) => on == function,
            None => function != Function::Open && self.mode.fits(function),
        };
        if !is_meant {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.times = self.times.checked_sub(1)?;
        Some((self.mode, self.size))
    }
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Makes `plan` the one to follow.
pub(crate) fn set(plan: Option<Plan>) {
    PLAN.set(plan);
}

/// Whether a put of these could go wrong at all.
pub(crate) fn concerns(entries: &[Entry]) -> bool {
    PLAN.with_borrow(|plan| {
        let Some(text) = plan.as_ref().and_then(|plan| plan.containing.as_ref()) else { return true };
        let holds = |entry: &Entry| entry.value.windows(text.len().max(1)).any(|part| part == text.as_bytes());
        entries.iter().any(holds)
    })
}

/// How this call of `function` should go wrong, and how large "giant" is; `None`: it should not.
pub(crate) fn strike(function: Function) -> Option<(Mode, usize)> {
    PLAN.with_borrow_mut(|plan| plan.as_mut()?.strike(function))
}
