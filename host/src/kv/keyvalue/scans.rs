//! Scans under way: a component lists keys in pages of its own size, the host hands them out in steps of the caller's.
//!
//! What a page had beyond a step is kept here, since asking for it again can give another page: keys may have moved into it
//! that a count of those handed out would pass over.

use std::collections::VecDeque;

use super::interface::{Cursor, Draft};

/// Rests of pages that are kept. Who scans with more cursors than this at a time begins a page again, and meets some of its
/// keys twice.
const KEPT: usize = 4;

/// The rests of pages, by the cursors that were given out for them.
#[derive(Debug, Default)]
pub(super) struct Scans {
    kept: VecDeque<(u64, Rest)>,
    given: u64,
}

/// What is left of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Where the component began the page.
    pub(super) page: Option<Cursor>,
    /// The keys that were not handed out yet.
    pub(super) keys: VecDeque<String>,
    /// Where the component begins the next page.
    pub(super) next: Option<Cursor>,
}

/// Where a cursor leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into a page that was begun.
    Within(Rest),
    /// To the beginning of a page.
    Page(Option<Cursor>),
}

impl Scans {
    /// Where to go on with a scan; `None`: at the beginning. `Err(())`: the cursor is none of ours.
    pub(super) fn resume(&mut self, cursor: Option<&str>, draft: Draft) -> Result<Place, ()> {
        let Some(cursor) = cursor else { return Ok(Place::Page(None)) };
        let (number, page) = parse(cursor, draft).ok_or(())?;
        let kept = number.and_then(|number| self.kept.iter().position(|(kept, _)| *kept == number));
        match kept.and_then(|index| self.kept.remove(index)) {
            Some((_, rest)) => Ok(Place::Within(rest)),
            None => Ok(Place::Page(page)),
        }
    }

    /// The cursor for what is left of a page and what comes after it; `None` if nothing does.
    pub(super) fn suspend(&mut self, rest: Rest) -> Option<String> {
        if rest.keys.is_empty() {
            return rest.next.as_ref().map(|next| text(None, Some(next)));
        }
        self.given += 1;
        let cursor = text(Some(self.given), rest.page.as_ref());
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((self.given, rest));
        Some(cursor)
    }
}

const PREFIX: &str = "page:";

/// `page:NUMBER:CURSOR`: the number of the rest that is kept (empty: none) and, after an `=`, the component's cursor of the
/// page (nothing at all: its first one).
fn text(number: Option<u64>, page: Option<&Cursor>) -> String {
    let number = number.map(|number| number.to_string()).unwrap_or_default();
    let page = match page {
        None => String::new(),
        Some(Cursor::Number(cursor)) => format!("={cursor}"),
        Some(Cursor::Text(cursor)) => format!("={cursor}"),
    };
    format!("{PREFIX}{number}:{page}")
}

fn parse(text: &str, draft: Draft) -> Option<(Option<u64>, Option<Cursor>)> {
    let (number, page) = text.strip_prefix(PREFIX)?.split_once(':')?;
    let number = if number.is_empty() { None } else { Some(decimal(number)?) };
    let page = match (page.strip_prefix('='), draft) {
        (None, _) if page.is_empty() => None,
        (None, _) => return None,
        (Some(cursor), Draft::One) => Some(Cursor::Number(decimal(cursor)?)),
        (Some(cursor), Draft::Two) => Some(Cursor::Text(cursor.to_owned())),
    };
    // The beginning of a scan has no cursor.
    (number.is_some() || page.is_some()).then_some((number, page))
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(page: Option<Cursor>, keys: &[&str], next: Option<Cursor>) -> Rest {
        Rest { page, keys: keys.iter().map(|key| (*key).to_owned()).collect(), next }
    }

    fn cursor(text: &str) -> Cursor {
        Cursor::Text(text.to_owned())
    }

    #[test]
    fn a_page_goes_on_where_it_was_left() {
        let mut scans = Scans::default();
        assert_eq!(scans.resume(None, Draft::Two), Ok(Place::Page(None)));
        let first = scans.suspend(rest(None, &["b", "c"], Some(cursor("x:=y")))).unwrap();
        assert_eq!(
            scans.resume(Some(&first), Draft::Two),
            Ok(Place::Within(rest(None, &["b", "c"], Some(cursor("x:=y")))))
        );
        let next = scans.suspend(rest(None, &[], Some(cursor("x:=y")))).unwrap();
        assert_eq!(scans.resume(Some(&next), Draft::Two), Ok(Place::Page(Some(cursor("x:=y")))));
        assert_eq!(scans.suspend(rest(Some(cursor("x")), &[], None)), None);
    }

    #[test]
    fn a_rest_that_is_gone_begins_its_page_again() {
        let mut scans = Scans::default();
        let page = |n: usize| rest(Some(Cursor::Number(n as u64)), &["k"], None);
        let cursors: Vec<String> = (0..=KEPT).map(|n| scans.suspend(page(n)).unwrap()).collect();
        assert_eq!(scans.resume(Some(&cursors[0]), Draft::One), Ok(Place::Page(Some(Cursor::Number(0)))));
        assert_eq!(scans.resume(Some(&cursors[1]), Draft::One), Ok(Place::Within(page(1))));
        // Asked for twice, it is gone as well.
        assert_eq!(scans.resume(Some(&cursors[1]), Draft::One), Ok(Place::Page(Some(Cursor::Number(1)))));
        assert_eq!(Scans::default().resume(Some(&cursors[2]), Draft::One), Ok(Place::Page(Some(Cursor::Number(2)))));
    }

    #[test]
    fn foreign_cursors_are_refused() {
        for text in
            ["", "page:", "page::", "page:1", "page:x:", "page:+1:", "page:1:x", "slot:1", "page::=x", "page::="]
        {
            assert_eq!(Scans::default().resume(Some(text), Draft::One), Err(()), "{text}");
        }
        assert_eq!(Scans::default().resume(Some("page::=x"), Draft::Two), Ok(Place::Page(Some(cursor("x")))));
    }
}
