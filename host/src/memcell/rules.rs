//! What the fields of a MemCell may hold, and the conversion of JSON into BSON that checks it.

use bson::{Bson, Document};
use serde_json::{Map, Number, Value};

use super::datetime::{EXPECTED, parse_datetime};
use super::extended;
use crate::{Error, Result};

/// How many levels of documents and lists a MemCell from outside may have, itself included.
const MAX_INPUT_NESTING: usize = 100;

/// What a value must be. Null is allowed everywhere but in lists and for `timestamp`.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Whatever BSON can hold.
    Any,
    Text,
    Datetime,
    /// A datetime, and never null.
    RequiredDatetime,
    List(&'static Rule),
    /// Fields that aren't named are unknown ones, and may hold anything.
    Object(&'static [(&'static str, Rule)]),
}

const TEXTS: Rule = Rule::List(&Rule::Text);

const MESSAGE: Rule =
    Rule::Object(&[("content", Rule::Text), ("files", Rule::List(&Rule::Any)), ("extend", Rule::Object(&[]))]);

const RAW_DATA: Rule =
    Rule::Object(&[("data_type", Rule::Text), ("messages", Rule::List(&MESSAGE)), ("meta", Rule::Object(&[]))]);

const MEMCELL: &[(&str, Rule)] = &[
    ("user_id", Rule::Text),
    ("timestamp", Rule::RequiredDatetime),
    ("summary", Rule::Text),
    ("group_id", Rule::Text),
    ("original_data", Rule::List(&RAW_DATA)),
    ("participants", TEXTS),
    ("type", Rule::Text),
    ("subject", Rule::Text),
    ("keywords", TEXTS),
    ("linked_entities", TEXTS),
    ("episode", Rule::Text),
    ("foresight_memories", Rule::List(&Rule::Object(&[]))),
    ("event_log", Rule::Object(&[])),
    ("extend", Rule::Object(&[])),
    ("created_at", Rule::Datetime),
    ("updated_at", Rule::Datetime),
    ("deleted_at", Rule::Datetime),
    ("deleted_by", Rule::Text),
    ("expires_at", Rule::Datetime),
];

impl Rule {
    fn of(fields: &'static [(&'static str, Rule)], name: &str) -> Self {
        fields.iter().find(|(field, _)| *field == name).map_or(Self::Any, |(_, rule)| *rule)
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Text => "a string",
            Self::Datetime | Self::RequiredDatetime => "a datetime",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    fn allows(self, value: &Bson, in_list: bool) -> bool {
        match (self, value) {
            (Self::Any, _)
            | (Self::Text, Bson::String(_))
            | (Self::Datetime | Self::RequiredDatetime, Bson::DateTime(_))
            | (Self::List(_), Bson::Array(_))
            | (Self::Object(_), Bson::Document(_)) => true,
            (Self::RequiredDatetime, _) => false,
            (_, Bson::Null) => !in_list,
            _ => false,
        }
    }
}

/// Checks and converts one top-level field. Strings become datetimes where the field is one, Extended JSON becomes
/// what it stands for, whole numbers the smallest BSON integer that holds them.
///
/// # Errors
/// [`Error::invalid_field`] with the dotted path of what is wrong.
pub(super) fn convert_field(name: &str, value: Value) -> Result<Bson> {
    if name.is_empty() || name.starts_with('$') {
        return Err(Error::invalid_field(name, "a field's name can't be empty or begin with $"));
    }
    check_name(name)
        .and_then(|()| convert(value, Rule::of(MEMCELL, name), false, 1))
        .map_err(|problem| problem.into_error(name))
}

/// The BSON number that a JSON number becomes; `None` for a whole number that 64 signed bits can't hold.
///
/// One that 64 unsigned bits can't hold either is a double before it comes here: the JSON parser makes it one.
pub(super) fn number(number: &Number) -> Option<Bson> {
    match number.as_i64() {
        Some(whole) => Some(i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32)),
        None if number.is_f64() => number.as_f64().map(Bson::Double),
        None => None,
    }
}

/// What is wrong, and where below the value at hand: `[0].messages`.
struct Problem {
    below: String,
    message: String,
}

impl Problem {
    fn here(message: impl Into<String>) -> Self {
        Self { below: String::new(), message: message.into() }
    }

    fn within(mut self, step: &str) -> Self {
        self.below.insert_str(0, step);
        self
    }

    fn into_error(self, name: &str) -> Error {
        Error::invalid_field(format!("{name}{}", self.below), self.message)
    }
}

/// `level` is the number of documents and lists around the value.
fn convert(value: Value, rule: Rule, in_list: bool, level: usize) -> Result<Bson, Problem> {
    let converted = match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(flag),
        Value::Number(given) => {
            number(&given).ok_or_else(|| Problem::here("the number is beyond the range of a 64-bit signed integer"))?
        }
        Value::String(text) => match rule {
            Rule::Datetime | Rule::RequiredDatetime => {
                Bson::DateTime(parse_datetime(&text).ok_or_else(|| Problem::here(EXPECTED))?)
            }
            _ => Bson::String(text),
        },
        Value::Array(items) => {
            descend(level)?;
            let item_rule = if let Rule::List(item) = rule { *item } else { Rule::Any };
            let convert_item = |(index, item)| {
                convert(item, item_rule, true, level + 1).map_err(|problem| problem.within(&format!("[{index}]")))
            };
            Bson::Array(items.into_iter().enumerate().map(convert_item).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => convert_object(object, rule, level)?,
    };
    if !rule.allows(&converted, in_list) {
        return Err(Problem::here(format!("expected {}, found {}", rule.expected(), found(&converted))));
    }
    Ok(converted)
}

fn convert_object(object: Map<String, Value>, rule: Rule, level: usize) -> Result<Bson, Problem> {
    match extended::unwrap(&object) {
        Some(Ok(wrapped)) => return Ok(wrapped),
        Some(Err(wrapper)) => return Err(Problem::here(format!("this is not what {wrapper} can hold"))),
        None => descend(level)?,
    }
    let fields = if let Rule::Object(fields) = rule { fields } else { &[] };
    let mut document = Document::new();
    for (name, value) in object {
        let converted = check_name(&name).and_then(|()| convert(value, Rule::of(fields, &name), false, level + 1));
        let converted = converted.map_err(|problem| problem.within(&format!(".{name}")))?;
        document.insert(name, converted);
    }
    Ok(Bson::Document(document))
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.contains('\0') {
        return Err(Problem::here("a field's name can't contain a nul character"));
    }
    Ok(())
}

fn descend(level: usize) -> Result<(), Problem> {
    if level >= MAX_INPUT_NESTING {
        return Err(Problem::here(format!("the document is nested deeper than {MAX_INPUT_NESTING} levels")));
    }
    Ok(())
}

/// What a value is, in the words of JSON where it has them.
pub(super) fn found(value: &Bson) -> &'static str {
    match value {
        Bson::Null => "null",
        Bson::Boolean(_) => "a boolean",
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "a number",
        Bson::String(_) => "a string",
        Bson::Array(_) => "a list",
        Bson::Document(_) => "an object",
        Bson::DateTime(_) => "a datetime",
        Bson::ObjectId(_) => "an object id",
        Bson::RegularExpression(_) => "a regular expression",
        Bson::Undefined => "undefined",
        _ => "another bson type",
    }
}
