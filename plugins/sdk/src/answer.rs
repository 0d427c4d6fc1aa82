//! How large an answer gets.

use crate::error::{Error, Result};

/// The most bytes of values that an answer to several keys holds; a single value may be larger. The answer, what it is made from
/// and the store's own cache are in a component's memory at the same time, and then in the host's, which bounds answers as well.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Counts the values of an answer while it is made.
#[derive(Debug, Default)]
pub struct AnswerBytes {
    values: usize,
    bytes: usize,
}

impl AnswerBytes {
    /// Another value of this many bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it isn't the first one and makes the answer larger than [`MAX_ANSWER_BYTES`].
    pub fn add(&mut self, value_bytes: usize) -> Result<()> {
        self.values += 1;
        self.bytes = self.bytes.saturating_add(value_bytes);
        if self.bytes > MAX_ANSWER_BYTES && self.values > 1 {
            let text = format!("an answer of more than {MAX_ANSWER_BYTES} bytes; ask for fewer keys at a time");
            return Err(Error::too_large(text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_may_be_of_any_size_and_several_not() {
        assert_eq!(AnswerBytes::default().add(usize::MAX), Ok(()));
        let mut answer = AnswerBytes::default();
        assert_eq!((answer.add(MAX_ANSWER_BYTES - 1), answer.add(1), answer.add(0)), (Ok(()), Ok(()), Ok(())));
        assert!(matches!(answer.add(1), Err(Error::TooLarge(_))));
    }
}
