//! What goes wrong, in fact.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use memcell_plugin::guest::bindings::exports::memcell::kv::digests::Digest;
use memcell_plugin::guest::bindings::exports::memcell::kv::store::{Entry, Error, Mark, Outcome, Page};

use crate::plan::Mode;

/// The mode of a call that goes wrong, with how large "giant" is in bytes.
type Strike = Option<(Mode, usize)>;

/// Misdeeds that don't need an answer to work on. Some of them never return.
pub(crate) fn deed(mode: Mode, size: usize) -> Result<(), Error> {
    match mode {
        Mode::Trap => std::process::abort(),
        Mode::Loop => spin(),
        Mode::Sleep => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Mode::Memory => exhaust(),
        Mode::Recurse => {
            black_box(recurse(0));
            Ok(())
        }
        Mode::Descend => {
            black_box(descend(black_box(0)));
            Ok(())
        }
        Mode::Exit => std::process::exit(0),
        Mode::Nap => {
            thread::sleep(Duration::from_millis(300));
            Ok(())
        }
        // As a file system that has stopped answering: nobody can cut this off.
        Mode::Pipe => {
            drop(std::fs::File::open("/data/pipe"));
            Ok(())
        }
        Mode::Handles => loop {
            std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX));
        },
        Mode::Random => {
            black_box(wasip2::random::random::get_random_bytes(size as u64));
            Ok(())
        }
        Mode::WideWrite => {
            let stderr = wasip2::cli::stderr::get_stderr();
            drop(black_box(stderr.write(&vec![b'x'; size])));
            Ok(())
        }
        Mode::Print => {
            print_lines(size);
            Ok(())
        }
        Mode::Error => Err(Error::Unavailable("unavailable on purpose".to_owned())),
        Mode::Timeout => Err(Error::Timeout),
        Mode::Full => Err(Error::QuotaExceeded("full on purpose".to_owned())),
        Mode::Refuse => Err(Error::InvalidArgument("refused on purpose".to_owned())),
        Mode::GiantError => Err(Error::Other("x".repeat(size))),
        _ => Ok(()),
    }
}

/// Lines of 100 bytes, in turn on both streams.
fn print_lines(bytes: usize) {
    let line = format!("{}\n", "flood ".repeat(17));
    for _ in 0..bytes / (2 * line.len()) {
        // A full or closed stream is the host's affair.
        drop(std::io::stdout().write_all(line.as_bytes()));
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}

/// The allocator, which the host calls too, to put the arguments of a call somewhere.
struct Rigged;

/// What the allocator does: its duty; loop for ever; answer with an address outside of all memory.
static RIGGED: AtomicU8 = AtomicU8::new(HONEST);
const HONEST: u8 = 0;
const LOOPING: u8 = 1;
const WILD: u8 = 2;

#[global_allocator]
static ALLOCATOR: Rigged = Rigged;

#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
// SAFETY: honest, it is the system's; otherwise, it is this component that pays for it.
unsafe impl GlobalAlloc for Rigged {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match RIGGED.load(Ordering::Relaxed) {
            LOOPING => spin(),
            WILD => (u32::MAX as usize & !(layout.align() - 1)) as *mut u8,
            // SAFETY: passed on as it came.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Rigs the allocator, if that is the mode: from now on, no call with a list in its arguments arrives.
pub(crate) fn rig(strike: Strike) {
    match strike {
        Some((Mode::LoopInRealloc, _)) => RIGGED.store(LOOPING, Ordering::Relaxed),
        Some((Mode::WildRealloc, _)) => RIGGED.store(WILD, Ordering::Relaxed),
        _ => {}
    }
}

fn spin() -> ! {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}

fn exhaust() -> ! {
    const PIECE: usize = 1 << 20;
    let mut pieces = Vec::new();
    loop {
        pieces.push(black_box(vec![1_u8; PIECE]));
    }
}

#[allow(unconditional_recursion, reason = "the stack is to run out")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(black_box(depth.wrapping_add(1))).wrapping_add(frame.iter().sum())
}

/// Recurses without using any of its own memory: it is the host's stack that would run out.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == u64::MAX { depth } else { descend(depth + 1).wrapping_mul(3) ^ depth }
}

/// Twists what was read.
/// As [`twist_entries`], of what digests have.
pub(crate) fn twist_digests(strike: Strike, mut answers: Vec<Option<Digest>>) -> Vec<Option<Digest>> {
    let Some((mode, size)) = strike else { return answers };
    match mode {
        Mode::ShortAnswer => drop(answers.pop()),
        Mode::LongAnswer => answers.push(None),
        Mode::Swapped => answers.reverse(),
        Mode::GarbageValue => answers.iter_mut().flatten().for_each(|digest| scramble(&mut digest.head)),
        Mode::StaleValue => answers.iter_mut().flatten().for_each(|digest| digest.rest_hash ^= 1),
        Mode::GiantAnswer => {
            let share = size / answers.len().max(1);
            answers.iter_mut().flatten().for_each(|digest| digest.head = vec![b'x'; share]);
        }
        _ => {}
    }
    answers
}

pub(crate) fn twist_entries(strike: Strike, mut answers: Vec<Option<Entry>>) -> Vec<Option<Entry>> {
    let Some((mode, size)) = strike else { return answers };
    match mode {
        Mode::ShortAnswer => drop(answers.pop()),
        Mode::LongAnswer => answers.push(None),
        Mode::Swapped => answers.reverse(),
        Mode::WrongKey => answers.iter_mut().flatten().for_each(|entry| entry.key.push_str("-foreign")),
        Mode::DuplicateKey => {
            if let Some(first) = answers.iter().flatten().next().cloned() {
                answers.iter_mut().for_each(|answer| *answer = Some(first.clone()));
            }
        }
        Mode::GarbageValue => answers.iter_mut().flatten().for_each(|entry| scramble(&mut entry.value)),
        Mode::StaleValue => {
            for entry in answers.iter_mut().flatten() {
                let middle = entry.value.len() / 2;
                if let Some(byte) = entry.value.get_mut(middle) {
                    *byte ^= 1;
                }
            }
        }
        Mode::GiantAnswer => {
            let share = size / answers.len().max(1);
            answers.iter_mut().for_each(|answer| *answer = Some(entry(vec![b'x'; share])));
        }
        Mode::AliasedAnswer => return aliased(size),
        Mode::InvalidUtf8 => answers.iter_mut().flatten().for_each(|entry| entry.key = not_utf8()),
        _ => {}
    }
    answers
}

/// Twists what became of writes.
pub(crate) fn twist_outcomes(strike: Strike, mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    match strike {
        Some((Mode::ShortAnswer, _)) => drop(outcomes.pop()),
        Some((Mode::LongAnswer, _)) => outcomes.push(Outcome::Applied),
        Some((Mode::Swapped, _)) => outcomes.reverse(),
        _ => {}
    }
    outcomes
}

/// Twists a step of a scan.
pub(crate) fn twist_page(strike: Strike, mut page: Page) -> Page {
    let Some((mode, size)) = strike else { return page };
    match mode {
        Mode::Swapped => page.marks.reverse(),
        Mode::WrongKey => page.marks.iter_mut().for_each(|mark| mark.key.push_str("-foreign")),
        Mode::InvalidUtf8 => page.marks.iter_mut().for_each(|mark| mark.key = not_utf8()),
        Mode::GiantAnswer => page.marks.push(Mark { key: "x".repeat(size), stamp: 1, expires_at: None }),
        _ => {}
    }
    page
}

fn entry(value: Vec<u8>) -> Entry {
    Entry { key: "giant".to_owned(), stamp: 1, expires_at: None, value }
}

/// The same bytes in every run, with nothing left of what was there.
fn scramble(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
}

/// An answer of `size` bytes from a buffer of one MiB, listed again and again: far more than the memory limit allows to exist.
#[allow(
    unsafe_code,
    reason = "several owners of one buffer are the very point; the host must refuse before any frees it"
)]
fn aliased(size: usize) -> Vec<Option<Entry>> {
    const PIECE: usize = 1 << 20;
    let buffer: &'static mut [u8] = vec![b'x'; PIECE].leak();
    let start = buffer.as_mut_ptr();
    (0..size / PIECE)
        // SAFETY: there is none. If the host takes the answer, freeing the buffer twice is this component's own ruin.
        .map(|_| Some(entry(unsafe { Vec::from_raw_parts(start, PIECE, PIECE) })))
        .collect()
}

#[allow(unsafe_code, reason = "safe code can't make what the host is to be tested with")]
fn not_utf8() -> String {
    // SAFETY: nothing reads it as text but the host, which has to check.
    unsafe { String::from_utf8_unchecked(vec![b'k', 0xff, 0xfe]) }
}
