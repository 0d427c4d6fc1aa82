//! Two documents gone through side by side, field by field.

use std::collections::HashMap;
use std::fmt::Write as _;

use bson::{RawArray, RawBsonRef, RawDocument};
use serde::Serialize;

use crate::Result;
use crate::memcell::json::{Dialect, MAX_NESTING, malformed, write_value};

/// The most characters of a value that are shown.
const MAX_SHOWN_CHARS: usize = 120;

/// How many of them come before the first that differs, where the beginning has to be left out.
const SHOWN_CONTEXT_CHARS: usize = 40;

/// In what way two copies differ in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Both have a value, and not the same.
    Changed,
    /// The stored copy lacks the field.
    OnlyInMongo,
    /// MongoDB's document lacks the field.
    OnlyInKv,
    /// Lists of unequal length, which are the values shown. The items that both have are compared as well.
    Length,
}

/// One place in which two copies of a document differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: `original_data[0].messages[1].content`.
    pub path: String,
    /// In what way.
    pub kind: DifferenceKind,
    /// MongoDB's value as API JSON (as canonical Extended JSON where only the types differ), shortened to 120
    /// characters around the first that differs.
    pub mongo: Option<String>,
    /// The stored copy's value, likewise.
    pub kv: Option<String>,
}

/// The differences between two documents, at most `limit`, and whether there are more.
///
/// # Errors
/// If either document is malformed or nested too deeply.
pub(super) fn between(mongo: &RawDocument, kv: &RawDocument, limit: usize) -> Result<(Vec<Difference>, bool)> {
    let mut walk = Walk { path: String::new(), depth: 0, found: Vec::new(), limit, truncated: false };
    walk.documents(mongo, kv)?;
    Ok((walk.found, walk.truncated))
}

struct Walk {
    path: String,
    depth: usize,
    found: Vec<Difference>,
    limit: usize,
    truncated: bool,
}

impl Walk {
    fn documents(&mut self, mongo: &RawDocument, kv: &RawDocument) -> Result<()> {
        let kv_fields: Vec<_> = kv.iter().collect::<Result<_, _>>().map_err(malformed)?;
        let mut unmatched: HashMap<&str, RawBsonRef<'_>> =
            kv_fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        for element in mongo {
            let (name, mongo_value) = element.map_err(malformed)?;
            let name = name.as_str();
            let kv_value = unmatched.remove(name);
            self.at(
                |path| push_name(path, name),
                |walk| match kv_value {
                    Some(kv_value) => walk.values(mongo_value, kv_value),
                    None => walk.report(DifferenceKind::OnlyInMongo, Some(mongo_value), None),
                },
            )?;
        }
        // In the order of the document, which a map doesn't keep.
        for (name, _) in kv_fields {
            if let Some(value) = unmatched.remove(name.as_str()) {
                self.at(
                    |path| push_name(path, name.as_str()),
                    |walk| walk.report(DifferenceKind::OnlyInKv, None, Some(value)),
                )?;
            }
        }
        Ok(())
    }

    fn lists(&mut self, mongo: &RawArray, kv: &RawArray) -> Result<()> {
        let mongo: Vec<_> = mongo.into_iter().collect::<Result<_, _>>().map_err(malformed)?;
        let kv: Vec<_> = kv.into_iter().collect::<Result<_, _>>().map_err(malformed)?;
        if mongo.len() != kv.len() {
            self.add(DifferenceKind::Length, Some(mongo.len().to_string()), Some(kv.len().to_string()));
        }
        for (index, (mongo, kv)) in mongo.into_iter().zip(kv).enumerate() {
            // Writing to a string can't fail.
            let step = |path: &mut String| {
                let _ = write!(path, "[{index}]");
            };
            self.at(step, |walk| walk.values(mongo, kv))?;
        }
        Ok(())
    }

    fn values(&mut self, mongo: RawBsonRef<'_>, kv: RawBsonRef<'_>) -> Result<()> {
        match (mongo, kv) {
            _ if self.truncated => Ok(()),
            (RawBsonRef::Document(mongo), RawBsonRef::Document(kv)) => self.documents(mongo, kv),
            (RawBsonRef::Array(mongo), RawBsonRef::Array(kv)) => self.lists(mongo, kv),
            (RawBsonRef::JavaScriptCodeWithScope(mongo), RawBsonRef::JavaScriptCodeWithScope(kv))
                if mongo.code == kv.code =>
            {
                self.at(|path| path.push_str(".$scope"), |walk| walk.documents(mongo.scope, kv.scope))
            }
            (mongo, kv) if same_scalar(mongo, kv) => Ok(()),
            (mongo, kv) => self.report(DifferenceKind::Changed, Some(mongo), Some(kv)),
        }
    }

    /// Goes one step down, and comes back.
    fn at(&mut self, step: impl FnOnce(&mut String), visit: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.depth > MAX_NESTING {
            let message = format!("a document is nested deeper than {MAX_NESTING} levels");
            return Err(crate::Error::new(crate::ErrorKind::Internal, message));
        }
        let length = self.path.len();
        step(&mut self.path);
        self.depth += 1;
        let visited = visit(self);
        self.depth -= 1;
        self.path.truncate(length);
        visited
    }

    fn report(
        &mut self,
        kind: DifferenceKind,
        mongo: Option<RawBsonRef<'_>>,
        kv: Option<RawBsonRef<'_>>,
    ) -> Result<()> {
        if self.truncated {
            return Ok(());
        }
        let json = |value: Option<RawBsonRef<'_>>, dialect| value.map(|value| json(value, dialect)).transpose();
        let (mut mongo_json, mut kv_json) = (json(mongo, Dialect::Api)?, json(kv, Dialect::Api)?);
        if mongo_json == kv_json {
            (mongo_json, kv_json) = (json(mongo, Dialect::Canonical)?, json(kv, Dialect::Canonical)?);
        }
        let start = match (&mongo_json, &kv_json) {
            (Some(mongo), Some(kv)) => window_start(mongo, kv),
            _ => 0,
        };
        let shown = |json: Option<String>| json.map(|json| shortened(&json, start));
        let (mongo_shown, kv_shown) = (shown(mongo_json), shown(kv_json));
        self.add(kind, mongo_shown, kv_shown);
        Ok(())
    }

    fn add(&mut self, kind: DifferenceKind, mongo: Option<String>, kv: Option<String>) {
        if self.found.len() == self.limit {
            self.truncated = true;
        } else {
            self.found.push(Difference { path: self.path.clone(), kind, mongo, kv });
        }
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Whether two values that are neither documents nor lists are the same.
fn same_scalar(mongo: RawBsonRef<'_>, kv: RawBsonRef<'_>) -> bool {
    match (mongo, kv) {
        // Zero and minus zero are told apart, and NaN has many forms, which JSON doesn't keep.
        (RawBsonRef::Double(mongo), RawBsonRef::Double(kv)) => {
            mongo.to_bits() == kv.to_bits() || (mongo.is_nan() && kv.is_nan())
        }
        // A decimal has several encodings, of which JSON keeps one.
        (RawBsonRef::Decimal128(mongo), RawBsonRef::Decimal128(kv)) => {
            mongo == kv || mongo.to_string() == kv.to_string()
        }
        // The order of the options means nothing, and Extended JSON sorts them.
        (RawBsonRef::RegularExpression(mongo), RawBsonRef::RegularExpression(kv)) => {
            let sorted = |options: &str| {
                let mut options: Vec<char> = options.chars().collect();
                options.sort_unstable();
                options
            };
            mongo.pattern == kv.pattern && sorted(mongo.options.as_str()) == sorted(kv.options.as_str())
        }
        (mongo, kv) => mongo == kv,
    }
}

fn json(value: RawBsonRef<'_>, dialect: Dialect) -> Result<String> {
    let mut json = Vec::new();
    write_value(value, dialect, &mut json)?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// The character from which two values are shown: the first, unless they begin to differ too far behind it.
fn window_start(mongo: &str, kv: &str) -> usize {
    let same = mongo.chars().zip(kv.chars()).take_while(|(mongo, kv)| mongo == kv).count();
    if same < MAX_SHOWN_CHARS - SHOWN_CONTEXT_CHARS { 0 } else { same - SHOWN_CONTEXT_CHARS }
}

/// At most [`MAX_SHOWN_CHARS`] characters from `start` on, with an ellipsis in the place of what is left out.
fn shortened(json: &str, start: usize) -> String {
    let mut text = String::from(if start > 0 { "…" } else { "" });
    let room = MAX_SHOWN_CHARS - text.chars().count();
    let mut rest = json.chars().skip(start);
    text.extend(rest.by_ref().take(room));
    if rest.next().is_some() {
        text.pop();
        text.push('…');
    }
    text
}
