//! Extended JSON read: the objects that stand for a BSON value, and whole stored documents.

use bson::{Bson, DateTime, Document, JavaScriptCodeWithScope, RawDocumentBuf};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::datetime::parse_datetime;
use super::json::MAX_NESTING;

/// How deep the JSON of a document within [`MAX_NESTING`] can be: a value at the bottom may be wrapped in three more
/// objects.
const MAX_JSON_NESTING: usize = MAX_NESTING + 3;

/// The other wrappers, each read here.
pub(super) const WRAPPERS: [&str; 7] =
    ["$oid", "$date", "$numberInt", "$numberLong", "$numberDouble", "$code", "$scope"];

/// The wrappers that `bson` reads as they are: all that a MemCell hardly ever holds.
pub(super) const EXOTIC: [&str; 10] = [
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$symbol",
    "$regularExpression",
    "$timestamp",
    "$minKey",
    "$maxKey",
    "$dbPointer",
    "$undefined",
];

/// The BSON value that an Extended JSON object (canonical or relaxed) stands for.
///
/// `None` if it is an ordinary document, which it is too if it has a wrapper's field among others. The error names the
/// wrapper if what it wraps is wrong.
pub(super) fn unwrap(object: &Map<String, Value>) -> Option<Result<Bson, &str>> {
    if object.len() > 2 {
        return None;
    }
    if let (2, Some(code), Some(Value::Object(scope))) = (object.len(), object.get("$code"), object.get("$scope")) {
        let read = code.as_str().zip(stored_document(scope, 1).ok());
        return Some(match read {
            Some((code, scope)) => Ok(JavaScriptCodeWithScope { code: code.to_owned(), scope }.into()),
            None => Err("$code"),
        });
    }
    let mut fields = object.iter();
    let (Some((name, value)), None) = (fields.next(), fields.next()) else { return None };
    let read = match name.as_str() {
        "$oid" => value.as_str().and_then(|text| text.parse().ok()).map(Bson::ObjectId),
        "$date" => datetime(value).map(Bson::DateTime),
        "$numberInt" => parsed(value).map(Bson::Int32),
        "$numberLong" => parsed(value).map(Bson::Int64),
        "$numberDouble" => parsed(value).map(Bson::Double),
        "$code" => value.as_str().map(|code| Bson::JavaScriptCode(code.to_owned())),
        exotic if EXOTIC.contains(&exotic) => Bson::try_from(object.clone()).ok(),
        _ => return None,
    };
    Some(read.ok_or(name.as_str()))
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// What `$date` holds: ISO 8601, a `$numberLong`, or milliseconds as older tools wrote them.
fn datetime(value: &Value) -> Option<DateTime> {
    match value {
        Value::String(text) => parse_datetime(text),
        Value::Number(millis) => millis.as_i64().map(DateTime::from_millis),
        Value::Object(object) if object.len() == 1 => {
            object.get("$numberLong").and_then(parsed).map(DateTime::from_millis)
        }
        _ => None,
    }
}

/// Reads a document that was written as canonical Extended JSON.
///
/// A field that looks like a wrapper and isn't one is taken for the document it must have been. The error is for the
/// log.
pub(crate) fn read_document(json: &[u8]) -> Result<RawDocumentBuf, String> {
    check_nesting(json)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Its own limit is below that of MongoDB; check_nesting has kept the stack safe.
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    // Only the syntax can be wrong here, so that the text quotes nothing of the contents.
    let value = value.map_err(|source| format!("the payload is not json: {source}"))?;
    let Value::Object(object) = value else { return Err("the payload is not a json object".to_owned()) };
    let document = stored_document(&object, 0)?;
    RawDocumentBuf::try_from(&document).map_err(|source| format!("the payload is no bson document: {source}"))
}

/// Reads one value that was written as canonical Extended JSON, such as an `_id`.
pub(super) fn read_value(json: &str) -> Result<Bson, String> {
    let value: Value = serde_json::from_str(json).map_err(|source| source.to_string())?;
    stored_value(&value, 0)
}

fn stored_document(object: &Map<String, Value>, depth: usize) -> Result<Document, String> {
    let mut document = Document::new();
    for (name, value) in object {
        if name.contains('\0') {
            return Err("a field name contains a nul character".to_owned());
        }
        document.insert(name, stored_value(value, depth)?);
    }
    Ok(document)
}

fn stored_value(value: &Value, depth: usize) -> Result<Bson, String> {
    if depth > MAX_JSON_NESTING {
        return Err(too_deep());
    }
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::String(text) => Bson::String(text.clone()),
        Value::Number(number) => super::rules::number(number).ok_or("a number is out of range")?,
        Value::Array(items) => {
            Bson::Array(items.iter().map(|item| stored_value(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => match unwrap(object) {
            Some(Ok(wrapped)) => wrapped,
            Some(Err(_)) | None => Bson::Document(stored_document(object, depth + 1)?),
        },
    })
}

/// Counts the brackets outside strings, before anything recursive sees the text.
fn check_nesting(json: &[u8]) -> Result<(), String> {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_JSON_NESTING {
                    return Err(too_deep());
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(inner) = bytes.next() {
                    match inner {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn too_deep() -> String {
    format!("the payload is nested deeper than {MAX_JSON_NESTING} levels")
}
