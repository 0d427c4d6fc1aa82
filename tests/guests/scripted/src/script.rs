//! A text of hexadecimal digits, read as a sequence of answers. Behind its end there are zeros, which make harmless answers.

use std::cell::RefCell;

/// What is left to be read.
#[derive(Default)]
pub(crate) struct Script {
    bytes: std::vec::IntoIter<u8>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

/// Begins with this text. What is no digit counts as 0.
pub(crate) fn begin(digits: &str) {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    let bytes: Vec<u8> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte: u8, &next| byte.wrapping_shl(4) | digit(next)))
        .collect();
    SCRIPT.set(Script { bytes: bytes.into_iter() });
}

/// Reads something.
pub(crate) fn read<R>(reader: impl FnOnce(&mut Script) -> R) -> R {
    SCRIPT.with_borrow_mut(reader)
}

impl Script {
    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes.next().unwrap_or(0)
    }

    /// Whether the next is one out of so many.
    pub(crate) fn is_one_in(&mut self, chances: u8) -> bool {
        self.byte() % chances == chances - 1
    }

    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() % 5 {
            0 => u64::from(self.byte()),
            1 => u64::from(u32::MAX),
            2 => u64::MAX,
            3 => u64::MAX - u64::from(self.byte()),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    pub(crate) fn small_number(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte());
        self.bytes.by_ref().take(count).collect()
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(crate) fn optional<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.is_one_in(2).then(|| some(self))
    }

    /// As many as are due, or not.
    pub(crate) fn list<T>(&mut self, due: usize, mut one: impl FnMut(&mut Self, usize) -> T) -> Vec<T> {
        let count = match self.byte() {
            0xfd => due + 1,
            0xfe => due.saturating_sub(1),
            0xff => usize::from(self.byte()),
            _ => due,
        };
        (0..count).map(|index| one(self, index)).collect()
    }
}
