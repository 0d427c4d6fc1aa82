//! Walks a TOML document and remembers everything that is wrong with it, and every key that anybody asked for.
//!
//! A [`Section`] hands out the values of one table. A value that is wrong is reported and replaced by its default, so
//! that reading goes on and the next problem is found too; whoever has read everything asks [`Reading::finish`] whether
//! the result counts. A key that is in the file and that nobody asked for is unknown. What the environment says of a key
//! takes the place of what the file says.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::problems::Problem;

/// The largest number of edits at which a name is still offered as what was meant.
const MAX_EDITS: usize = 2;

/// One pass over one document.
pub(super) struct Reading<'a> {
    text: &'a str,
    environment: &'a Environment,
    syntax: Vec<Problem>,
    problems: RefCell<Vec<Problem>>,
    /// The keys that were asked for, by the dotted path of their table.
    known: RefCell<BTreeMap<String, BTreeSet<String>>>,
    /// Where in the file every key is that was asked for, by its dotted path.
    places: RefCell<BTreeMap<String, usize>>,
    /// What nobody asked for: the path of the table, the key, and where it is.
    unknown: RefCell<Vec<(String, String, usize)>>,
}

/// One table of the document, be it there or not.
pub(super) struct Section<'a> {
    reading: &'a Reading<'a>,
    path: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
}

/// A value of the document with its key and its place (a byte offset).
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) at: usize,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Reading<'a> {
    /// `errors`: where `text` isn't TOML.
    pub(super) fn new(text: &'a str, errors: &[toml::de::Error], environment: &'a Environment) -> Self {
        Self {
            text,
            environment,
            syntax: errors.iter().map(|error| syntax_problem(text, error)).collect(),
            problems: RefCell::default(),
            known: RefCell::default(),
            places: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// The document itself.
    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        Section { reading: self, path: String::new(), at: None, table: Some(table) }
    }

    /// Remembers a problem with `key`; `at` is a byte offset.
    pub(super) fn problem(&self, key: String, at: Option<usize>, message: impl Into<String>) {
        let line = at.map(|at| line_of(self.text, at));
        self.problems.borrow_mut().push(Problem { key, line, column: None, message: message.into() });
    }

    /// Whether the text is TOML at all.
    pub(super) fn is_toml(&self) -> bool {
        self.syntax.is_empty()
    }

    /// Remembers a problem that somebody else has found with what was read.
    pub(super) fn add(&self, problem: Problem) {
        // What the environment says is nowhere in the file.
        let is_overridden = self.environment.of_key(&problem.key).is_some();
        let at = self.places.borrow().get(&problem.key).copied().filter(|_| !is_overridden);
        self.problem(problem.key, at, problem.message);
    }

    /// All keys that were asked for, dotted.
    pub(super) fn known(&self) -> BTreeSet<String> {
        let known = self.known.borrow();
        known.iter().flat_map(|(path, names)| names.iter().map(move |name| dotted(path, name))).collect()
    }

    /// Every problem. Of a text that isn't TOML, only that is reported: what the damaged
    /// document seems to say would hide the damage behind problems that aren't there.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        if !self.is_toml() {
            return std::mem::take(&mut self.syntax);
        }
        for (path, name, at) in self.unknown.take() {
            self.problem(dotted(&path, &name), Some(at), self.explain_unknown(&path, &name));
        }
        self.report_unknown_variables();
        self.problems.into_inner()
    }

    /// A variable that was meant to override something and doesn't is as wrong as an unknown key.
    fn report_unknown_variables(&self) {
        let known = self.known();
        let keys: Vec<&str> = known.iter().map(String::as_str).collect();
        let tables: Vec<&str> = keys.iter().copied().filter(|key| !key.contains('.')).collect();
        for variable in self.environment.unknown(&tables, &keys) {
            let message = format!(
                "the environment variable {variable} overrides no key; its name is MEMCELL_ and the dotted key in capitals, with _ \
                 for every other character; backends with their settings, tokens, encryption keys and [http.tls] have to be in the file"
            );
            self.problem(String::new(), None, message);
        }
    }

    /// What may have been meant: a key of the same table that looks alike, or one of the same name in a neighbouring
    /// table.
    fn explain_unknown(&self, path: &str, name: &str) -> String {
        let known = self.known.borrow();
        let siblings = known.get(path);
        let near = siblings.into_iter().flatten().map(|sibling| (edits(name, sibling), sibling)).min();
        if let Some((distance, sibling)) = near
            && distance <= MAX_EDITS
            && distance < sibling.len()
        {
            return format!("is no key; did you mean {sibling}?");
        }
        let first = path.split('.').next();
        let elsewhere = known.iter().filter(|(other, names)| *other != path && names.contains(name));
        // Longest common beginning first: a neighbour rather than something of another backend.
        let nearest = elsewhere.max_by_key(|(other, _)| (common_prefix(other, path), other.split('.').next() == first));
        if let Some((table, _)) = nearest {
            return format!("is no key here; it belongs in [{table}]");
        }
        let names: Vec<&str> = siblings.into_iter().flatten().map(String::as_str).collect();
        format!("is no key; known here: {}", names.join(", "))
    }
}

impl<'a> Section<'a> {
    /// The dotted path of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        dotted(&self.path, name)
    }

    /// Looks a key up, which makes it known.
    pub(super) fn entry(&self, name: &str) -> Option<Entry<'a>> {
        self.reading.known.borrow_mut().entry(self.path.clone()).or_default().insert(name.to_owned());
        let (key, value) = self.table?.get_key_value(name)?;
        let entry = entry(key, value);
        self.reading.places.borrow_mut().insert(self.key(name), entry.at);
        Some(entry)
    }

    /// The value of a key, or `default` if the key is absent or `parse` refuses its value; a refusal is reported.
    pub(super) fn read<T>(&self, name: &str, default: T, parse: impl Fn(&DeValue<'_>) -> Result<T, String>) -> T {
        self.optional(name, parse).unwrap_or(default)
    }

    /// The value of a key, if it is there and right; a refusal is reported.
    pub(super) fn optional<T>(&self, name: &str, parse: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Option<T> {
        let written = self.written(name, &parse);
        self.overriding(name, parse).unwrap_or(written)
    }

    /// What the environment says of a key, if anything: `Some(None)` if that is wrong, which is reported.
    pub(super) fn overriding<T>(
        &self,
        name: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let (variable, text) = self.reading.environment.of_key(&self.key(name))?;
        match parse_bare(text, parse) {
            Ok(value) => Some(Some(value)),
            Err(reason) => {
                let message = format!("the environment variable {variable} {reason}");
                self.reading.problem(self.key(name), None, message);
                Some(None)
            }
        }
    }

    /// What the file says of a key, if it does and is right; a refusal is reported.
    pub(super) fn written<T>(&self, name: &str, parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>) -> Option<T> {
        let entry = self.entry(name)?;
        match parse(entry.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.reading.problem(self.key(name), Some(entry.at), message);
                None
            }
        }
    }

    /// As [`Section::optional`], and reports the key's absence.
    pub(super) fn required<T>(
        &self,
        name: &str,
        what: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(name) {
            self.problem(name, format!("is required: {what}"));
        }
        self.optional(name, parse)
    }

    /// Whether files and variables with secrets are to be read.
    pub(super) fn reads_secrets(&self) -> bool {
        self.reading.environment.reads_secrets()
    }

    /// Whether the document has this key, or the environment in its place.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some() || self.reading.environment.of_key(&self.key(name)).is_some()
    }

    /// The table under a key, be it there or not. Anything but a table is reported.
    pub(super) fn section(&self, name: &str) -> Section<'a> {
        let absent = Section { reading: self.reading, path: self.key(name), at: self.at, table: None };
        match self.entry(name) {
            Some(entry) => self.table_of(&entry).unwrap_or(absent),
            None => absent,
        }
    }

    /// The entry as a table; anything else is reported.
    pub(super) fn table_of(&self, entry: &Entry<'a>) -> Option<Section<'a>> {
        let path = self.key(entry.name);
        let Some(table) = entry.value.as_table() else {
            let message = format!("must be a table ([{path}] on a line of its own), found {}", describe(entry.value));
            self.reading.problem(path, Some(entry.at), message);
            return None;
        };
        Some(Section { reading: self.reading, path, at: Some(entry.at), table: Some(table) })
    }

    /// All entries in the order of the file; none of them counts as unknown afterwards, unless `finish` is called.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> =
            self.table.into_iter().flatten().map(|(key, value)| entry(key, value)).collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    /// Reports a problem with a key of this table, where the key is, or else where the table begins.
    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        // What the environment says is nowhere in the file.
        let is_overridden = self.reading.environment.of_key(&self.key(name)).is_some();
        let at = self.entry(name).map(|entry| entry.at).or(self.at).filter(|_| !is_overridden);
        self.reading.problem(self.key(name), at, message);
    }

    /// Notes the keys that nobody has asked for.
    pub(super) fn finish(&self) {
        let known = self.reading.known.borrow();
        let known = known.get(&self.path);
        for entry in self.entries() {
            if !known.is_some_and(|names| names.contains(entry.name)) {
                self.reading.unknown.borrow_mut().push((self.path.clone(), entry.name.to_owned(), entry.at));
            }
        }
    }
}

/// Parses the text of a variable, in which a text needs no quotes and other values look as in the file.
fn parse_bare<T>(text: &str, parse: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Result<T, String> {
    parse(&DeValue::String(Cow::Borrowed(text))).or_else(|refusal| match DeValue::parse(text) {
        Ok(value) if !value.get_ref().is_str() => parse(value.get_ref()),
        _ => Err(refusal),
    })
}

/// What a value is, for a message: short, and on one line.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A text for a message: quoted, escaped, and shortened.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn entry<'a>(key: &'a Spanned<Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
    Entry { name: key.get_ref(), at: key.span().start, value: value.get_ref() }
}

/// The line of a byte offset, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

/// What the parser says of a key or table that is there twice, without saying which.
const DUPLICATE_KEY: &str = "duplicate key";

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let start = error.span().map(|span| span.start);
    let before = start.and_then(|start| text.get(..start));
    let column = before.map(|before| before.chars().rev().take_while(|&c| c != '\n').count() + 1);
    let line = start.map(|start| line_of(text, start));
    // Only the message: the error's own rendering quotes the line, which may hold a password.
    let mut message = error.message().replace('\n', ", ");
    if message == DUPLICATE_KEY
        && let Some(key) = error.span().and_then(|span| text.get(span))
    {
        message = format!("{DUPLICATE_KEY} {}: it is there already, further up; put both together", quote(key));
    }
    Problem { key: String::new(), line, column, message }
}

fn dotted(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let name = if bare { Cow::Borrowed(name) } else { Cow::Owned(quote(name)) };
    if path.is_empty() { name.into_owned() } else { format!("{path}.{name}") }
}

fn common_prefix(left: &str, right: &str) -> usize {
    left.split('.').zip(right.split('.')).take_while(|(a, b)| a == b).count()
}

/// How many characters must be inserted, deleted or replaced to make one word of the other (Levenshtein's distance).
pub(super) fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    // One row of the table at a time: `row[j]` is the distance between what was seen of `left` and `right[..j]`.
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row, vec![i + 1]).into_iter();
        let mut above_left = diagonal.next().unwrap_or_default();
        for (above, b) in diagonal.zip(&right) {
            let beside = row.last().copied().unwrap_or_default();
            row.push((above_left + usize::from(a != *b)).min(above + 1).min(beside + 1));
            above_left = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, distance) in
            [("", "", 0), ("a", "", 1), ("listen", "listen", 0), ("lisen", "listen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
            assert_eq!(edits(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn names_that_need_it_are_quoted() {
        assert_eq!(dotted("a.b", "c-d_1"), "a.b.c-d_1");
        assert_eq!(dotted("a", "b.c"), "a.\"b.c\"");
        assert_eq!(dotted("", ""), "\"\"");
    }
}
