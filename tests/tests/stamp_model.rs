//! The rules of stamps, checked exhaustively: every order of events that one key, one host and another program can bring about,
//! up to a number of operations. Whenever all is quiet, the backend must hold what MongoDB has.
//!
//! It is `ARCHITECTURE.md`, «How a copy stays right», as a state machine. A write of the host is two steps, since the clock is read
//! before it lands. No other operation of the host on that key comes in between those of an insert, but anybody else's may. That the
//! tail looks again when its write is refused mends what lies outside the model (several hosts, inserts whose fate is unknown);
//! here it shows that it does no harm. An event that says which revision a change made needs no re-read if a direct write of that
//! revision is the last thing that the backend took for the key. For each rule there is a variant without it, which must be caught: otherwise the model would
//! prove nothing.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashSet, VecDeque};

/// A document: what is in it, its revision if it has one, and whether it is soft-deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Document {
    content: u8,
    revision: Option<u8>,
    hidden: bool,
}

/// What a backend holds: the content of an entry, or `None` for a tombstone.
type Value = Option<u8>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Condition {
    Newer,
    NotOlder,
    Always,
}

/// What the tail has in hand, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tail {
    Idle,
    /// It has re-read the document for so many events, and is about to write.
    Read {
        events: usize,
        stamp: u8,
        value: Value,
        condition: Condition,
    },
    /// Its write was refused: it is about to read once more.
    Refused {
        events: usize,
    },
}

/// A backfill's copy of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Job {
    Due,
    /// It found nothing, and has the tail see to it.
    Handed,
    Read {
        stamp: u8,
        value: Value,
        condition: Condition,
    },
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    clock: u8,
    next_content: u8,
    operations_left: u8,
    document: Option<Document>,
    /// The revision of the last document that another program removed.
    removed: Option<u8>,
    stored: (u8, Value),
    /// Direct writes under way; any of them may be the next to arrive.
    direct: BTreeSet<(u8, Value)>,
    /// Changes that the tail has not been told of, each with the revision that it gave the document.
    events: VecDeque<Option<u8>>,
    /// The stamp of the direct write that the backend took, if the tail has written nothing since.
    delivered: Option<u8>,
    tail: Tail,
    job: Job,
    /// The revision of an insert that has not landed.
    inserting: Option<u8>,
    /// The reading of the clock with which a change of the host is under way, whatever it will be.
    changing: Option<u8>,
    crashes_left: u8,
    repairs_left: u8,
}

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Direct writes are put whatever the stamp.
    DirectNewer,
    /// The tail writes only what is newer.
    TailNotOlder,
    /// A backfill overwrites an equal stamp.
    JobNewer,
    /// A repair is made beside the tail, not in its order.
    RepairByTail,
    /// A job removes what it found gone by itself.
    RemovalByTail,
    /// The checkpoint moves before the write is made.
    CheckpointBehind,
    /// A re-read is stamped with the clock's reading as it is, although an insert with an older one is under way.
    ReadingBelowInserts,
    /// A backfill stamps a document without a revision with the clock's reading as it is, although a change with an older one is under
    /// way.
    JobBelowChanges,
    /// Other operations of the host go on while an insert is under way.
    InsertAlone,
    /// An insert starts at revision 1.
    InsertByClock,
    /// An update counts one up and looks at no clock.
    UpdateByClock,
    /// A direct write counts as the last one although the tail has written since.
    DeliveredForgotten,
    /// An event bears the document's revision also if the change left it alone, as the document in the event of a replacement does.
    OwnRevision,
    /// What the last event says stands for all that came before it.
    EveryEvent,
}

fn view(document: Option<Document>) -> Value {
    document.filter(|document| !document.hidden).map(|document| document.content)
}

/// The stamp of what a re-read finds, and the clock after it. Without a revision it is the clock's reading, or just below that
/// of an insert under way: whatever is read now was there before it lands.
fn reading(state: &State, without: Without) -> (u8, u8) {
    let clock = state.clock + 1;
    let below = state.inserting.filter(|_| without != Without::ReadingBelowInserts).map(|revision| revision - 1);
    let stamp = state.document.and_then(|document| document.revision).unwrap_or(below.unwrap_or(clock));
    (stamp, clock.max(stamp))
}

/// The stamps that a backfill may give to what it has read, and the clock after it. A document without a revision gets one from long
/// before every change under way, if there is any: the tail may have brought that by the time that the copy is written.
fn stamps_of_job(state: &State, without: Without) -> (Vec<u8>, u8) {
    let (stamp, clock) = reading(state, without);
    let is_bare = state.document.is_some_and(|document| document.revision.is_none());
    let stamps = match state.changing {
        Some(under_way) if is_bare && without != Without::JobBelowChanges => vec![1, stamp.min(under_way - 1)],
        _ if is_bare => vec![1, stamp],
        _ => vec![stamp],
    };
    (stamps, clock)
}

fn put(stored: (u8, Value), stamp: u8, value: Value, condition: Condition) -> Option<(u8, Value)> {
    let allowed = match condition {
        Condition::Newer => stamp > stored.0,
        Condition::NotOlder => stamp >= stored.0,
        Condition::Always => true,
    };
    allowed.then_some((stamp.max(stored.0), value))
}

/// Whether the backend has what the next so many events tell of.
fn is_delivered(state: &State, events: usize, without: Without) -> bool {
    let mut next = state.events.range(..events);
    let told = without == Without::EveryEvent || next.clone().all(Option::is_some);
    told && state.delivered.is_some() && next.next_back() == Some(&state.delivered)
}

struct Steps<'a> {
    state: &'a State,
    without: Without,
    next: Vec<State>,
}

impl Steps<'_> {
    /// A write of the host, acknowledged: its direct write sets out, or is dropped.
    fn written(&mut self, document: Option<Document>, stamp: u8, adjust: impl Fn(&mut State)) {
        let mut after = self.state.clone();
        after.clock = (self.state.clock + 1).max(stamp);
        after.events.push_back(document.map(|_| stamp));
        after.document = document;
        adjust(&mut after);
        self.next.push(after.clone());
        after.direct.insert((stamp, view(document)));
        self.next.push(after);
    }

    fn insert_goes_on(&mut self) {
        let state = self.state;
        let Some(revision) = state.inserting else { return };
        // It lands, unless somebody else was first.
        match state.document {
            Some(_) => self.next.push(State { inserting: None, ..state.clone() }),
            None => {
                let document = Document { content: state.next_content, revision: Some(revision), hidden: false };
                self.written(Some(document), revision, |after| {
                    after.inserting = None;
                    after.next_content += 1;
                });
            }
        }
    }

    fn spend(state: &mut State) {
        state.operations_left -= 1;
    }

    fn host_writes(&mut self) {
        let state = self.state;
        let clock = state.clock + 1;
        let is_alone = state.inserting.is_none() && state.changing.is_none();
        if state.operations_left == 0 || !(is_alone || self.without == Without::InsertAlone) {
            return;
        }
        if state.inserting.is_none() {
            let revision = if self.without == Without::InsertByClock { 1 } else { clock };
            let mut after = State { clock: clock.max(revision), inserting: Some(revision), ..state.clone() };
            Self::spend(&mut after);
            self.next.push(after);
        }
        if state.changing.is_none() {
            let mut after = State { clock, changing: Some(clock), ..state.clone() };
            Self::spend(&mut after);
            self.next.push(after);
        }
    }

    /// A change lands: an update, a soft deletion or its contrary, or a removal.
    fn change_goes_on(&mut self) {
        let state = self.state;
        let Some(reading) = state.changing else { return };
        let landed = |after: &mut State| after.changing = None;
        let Some(document) = state.document else {
            self.next.push(State { changing: None, ..state.clone() });
            return;
        };
        let counted = document.revision.unwrap_or(0) + 1;
        let revision = if self.without == Without::UpdateByClock { counted } else { counted.max(reading) };
        if document.hidden {
            self.written(Some(Document { revision: Some(revision), hidden: false, ..document }), revision, landed);
        } else {
            let updated = Document { content: state.next_content, revision: Some(revision), hidden: false };
            self.written(Some(updated), revision, |after| {
                landed(after);
                after.next_content += 1;
            });
            self.written(Some(Document { revision: Some(revision), hidden: true, ..document }), revision, landed);
        }
        self.written(None, counted.max(reading), landed);
    }

    /// Another program writes as it likes: it keeps the revision, drops it, removes the document, or inserts one with the revision of
    /// one that was removed. No direct write.
    fn others_write(&mut self) {
        let state = self.state;
        if state.operations_left == 0 {
            return;
        }
        let bare = Document { content: state.next_content, revision: None, hidden: false };
        let mut outcomes = vec![(Some(bare), None)];
        if let Some(document) = state.document {
            let changed = Document { content: state.next_content, ..document };
            outcomes.push((Some(changed), changed.revision.filter(|_| self.without == Without::OwnRevision)));
            outcomes.push((None, None));
        } else if let Some(revision) = state.removed {
            outcomes.push((Some(Document { revision: Some(revision), ..bare }), Some(revision)));
        }
        for (document, told) in outcomes {
            let mut after = state.clone();
            after.document = document;
            after.next_content += 1;
            after.events.push_back(told);
            if document.is_none() {
                after.removed = state.document.and_then(|document| document.revision);
            }
            Self::spend(&mut after);
            self.next.push(after);
        }
    }

    fn direct_writes_arrive(&mut self) {
        let condition = if self.without == Without::DirectNewer { Condition::Always } else { Condition::Newer };
        for write in &self.state.direct {
            let mut after = self.state.clone();
            after.direct.remove(write);
            if let Some(stored) = put(after.stored, write.0, write.1, condition) {
                after.stored = stored;
                after.delivered = Some(write.0);
            }
            self.next.push(after);
        }
    }

    fn tail_works(&mut self) {
        let state = self.state;
        let (stamp, clock) = reading(state, self.without);
        let value = view(state.document);
        let mut read = |events, condition, change: &dyn Fn(&mut State)| {
            let tail = Tail::Read { events, stamp, value, condition };
            let mut after = State { clock, tail, ..state.clone() };
            change(&mut after);
            self.next.push(after);
        };
        match state.tail {
            Tail::Idle => {
                let condition =
                    if self.without == Without::TailNotOlder { Condition::Newer } else { Condition::NotOlder };
                let (told, new): (Vec<_>, Vec<_>) =
                    (1..=state.events.len()).partition(|events| is_delivered(state, *events, self.without));
                for events in new {
                    read(events, condition, &|_| {});
                }
                if state.repairs_left > 0 && self.without != Without::RepairByTail {
                    read(0, Condition::Always, &|after| after.repairs_left -= 1);
                }
                if state.job == Job::Handed {
                    read(0, Condition::Always, &|after| after.job = Job::Done);
                }
                for events in told {
                    let mut after = State { delivered: None, ..state.clone() };
                    after.events.drain(..events);
                    self.next.push(after);
                }
            }
            Tail::Refused { events } => read(events, Condition::Always, &|_| {}),
            Tail::Read { events, stamp, value, condition } => {
                let mut after = state.clone();
                let stubborn = self.without != Without::TailNotOlder;
                match put(state.stored, stamp, value, condition) {
                    None if stubborn => after.tail = Tail::Refused { events },
                    written => {
                        after.stored = written.unwrap_or(state.stored);
                        after.events.drain(..events);
                        after.tail = Tail::Idle;
                        if self.without != Without::DeliveredForgotten {
                            after.delivered = None;
                        }
                    }
                }
                self.next.push(after);
            }
        }
    }

    fn job_works(&mut self) {
        let state = self.state;
        let (stamps, clock) = stamps_of_job(state, self.without);
        let value = view(state.document);
        match state.job {
            Job::Due if state.document.is_none() && self.without != Without::RemovalByTail => {
                self.next.push(State { job: Job::Handed, ..state.clone() });
            }
            // The tail takes it up.
            Job::Handed => {}
            Job::Due => {
                let condition = if self.without == Without::JobNewer { Condition::NotOlder } else { Condition::Newer };
                for stamp in stamps {
                    let job = Job::Read { stamp, value, condition };
                    self.next.push(State { clock, job, ..state.clone() });
                }
            }
            Job::Read { stamp, value, condition } => {
                let stored = put(state.stored, stamp, value, condition).unwrap_or(state.stored);
                self.next.push(State { stored, job: Job::Done, ..state.clone() });
            }
            Job::Done if state.repairs_left > 0 && self.without == Without::RepairByTail => {
                let (stamp, _) = reading(state, self.without);
                let job = Job::Read { stamp, value, condition: Condition::Always };
                self.next.push(State { clock, job, repairs_left: state.repairs_left - 1, ..state.clone() });
            }
            Job::Done => {}
        }
    }

    /// The host dies and comes back: what was under way is lost, what the tail had not written it is told again.
    fn host_crashes(&mut self) {
        let state = self.state;
        if state.crashes_left == 0 {
            return;
        }
        let mut after = state.clone();
        after.crashes_left -= 1;
        after.direct.clear();
        after.delivered = None;
        after.inserting = None;
        after.changing = None;
        after.tail = Tail::Idle;
        if after.job != Job::Due {
            after.job = Job::Done;
        }
        if self.without == Without::CheckpointBehind
            && let Tail::Read { events, .. } = state.tail
        {
            after.events.drain(..events);
        }
        self.next.push(after);
    }
}

fn steps(state: &State, without: Without) -> Vec<State> {
    let mut steps = Steps { state, without, next: Vec::new() };
    steps.insert_goes_on();
    steps.host_writes();
    steps.change_goes_on();
    steps.others_write();
    steps.direct_writes_arrive();
    steps.tail_works();
    steps.job_works();
    steps.host_crashes();
    steps.next
}

fn is_quiet(state: &State) -> bool {
    state.direct.is_empty()
        && state.events.is_empty()
        && state.tail == Tail::Idle
        && !matches!(state.job, Job::Read { .. } | Job::Handed)
        && state.inserting.is_none()
        && state.changing.is_none()
}

/// Explores all states. Answers how many there are, how many of them are quiet, and the first quiet one that is wrong.
fn explore(operations: u8, without: Without) -> (usize, usize, Option<State>) {
    let start = State {
        clock: 1,
        next_content: 1,
        operations_left: operations,
        document: None,
        removed: None,
        stored: (0, None),
        direct: BTreeSet::new(),
        events: VecDeque::new(),
        delivered: None,
        tail: Tail::Idle,
        job: Job::Due,
        inserting: None,
        changing: None,
        crashes_left: 1,
        repairs_left: 1,
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut waiting = VecDeque::from([start]);
    let mut quiet = 0;
    while let Some(state) = waiting.pop_front() {
        if is_quiet(&state) {
            quiet += 1;
            if state.stored.1 != view(state.document) {
                return (seen.len(), quiet, Some(state));
            }
        }
        for next in steps(&state, without) {
            if seen.insert(next.clone()) {
                waiting.push_back(next);
            }
        }
    }
    (seen.len(), quiet, None)
}

#[test]
fn with_all_rules_every_quiet_state_agrees() {
    let (states, quiet, wrong) = explore(3, Without::Nothing);
    assert_eq!(wrong, None);
    assert!(states > 100_000 && quiet > 500, "{states} states, {quiet} of them quiet");
}

fn caught(without: Without) {
    if let (states, _, None) = explore(3, without) {
        panic!("without {without:?}, all {states} states agree: the model doesn't notice");
    }
}

#[test]
fn direct_writes_must_be_newer() {
    caught(Without::DirectNewer);
}

#[test]
fn the_tail_must_overwrite_an_equal_stamp() {
    caught(Without::TailNotOlder);
}

#[test]
fn a_backfill_must_not_overwrite_an_equal_stamp() {
    caught(Without::JobNewer);
}

#[test]
fn readings_must_be_below_the_inserts_under_way() {
    caught(Without::ReadingBelowInserts);
}

#[test]
fn copies_of_backfills_must_be_older_than_the_changes_under_way() {
    caught(Without::JobBelowChanges);
}

#[test]
fn other_operations_of_the_host_must_wait_for_an_insert() {
    caught(Without::InsertAlone);
}

#[test]
fn repairs_must_be_made_by_the_tail() {
    caught(Without::RepairByTail);
}

#[test]
fn removals_of_jobs_must_be_made_by_the_tail() {
    caught(Without::RemovalByTail);
}

#[test]
fn the_checkpoint_must_stay_behind_what_is_written() {
    caught(Without::CheckpointBehind);
}

#[test]
fn inserts_must_take_their_revision_from_the_clock() {
    caught(Without::InsertByClock);
}

#[test]
fn updates_must_look_at_the_clock() {
    caught(Without::UpdateByClock);
}

#[test]
fn what_the_tail_has_written_must_be_forgotten() {
    caught(Without::DeliveredForgotten);
}

#[test]
fn events_of_changes_that_left_the_revision_alone_must_be_re_read() {
    caught(Without::OwnRevision);
}

#[test]
fn every_event_must_tell_of_a_revision() {
    caught(Without::EveryEvent);
}
