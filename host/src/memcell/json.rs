//! BSON written as JSON, straight from the raw bytes: the one writer behind API JSON and canonical Extended JSON.
//!
//! Every validated read writes a document here, to compare it with the stored copy: runs of characters are copied
//! whole, and nothing is built in between.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::oid::ObjectId;
use bson::{RawArray, RawBsonRef, RawDocument};

use super::datetime::write_datetime;
use super::extended::{EXOTIC, WRAPPERS};
use crate::{Error, ErrorKind, Result};

/// How many levels of documents and lists may be nested in a stored document. MongoDB's own limit is 200; without
/// one, a hostile value could exhaust the stack.
pub(crate) const MAX_NESTING: usize = 200;

/// How BSON types are told apart in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Plain values for humans and programs: numbers, ISO 8601 datetimes; Extended JSON only for what JSON lacks.
    Api,
    /// Canonical Extended JSON v2: every type survives.
    ///
    /// As the specification has it, and `bson`, but for doubles with an exponent, which that writes with all of their zeros.
    Canonical,
}

/// What reading brings back of a document that was written as canonical Extended JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    /// The same.
    Exact,
    /// Another one: a document within it looks like what stands for a value of another type, such as `{"$oid": "…"}`.
    Ambiguous,
}

/// Appends `document` to `out`.
///
/// # Errors
/// If the document is malformed or nested too deeply; `out` then holds a part of it.
pub(crate) fn write_document(document: &RawDocument, dialect: Dialect, out: &mut Vec<u8>) -> Result<Fidelity> {
    let mut writer = Writer { dialect, depth: 0, fidelity: Fidelity::Exact, out };
    writer.document(document)?;
    Ok(writer.fidelity)
}

/// Appends one value to `out`. Errors as with [`write_document`].
pub(crate) fn write_value(value: RawBsonRef<'_>, dialect: Dialect, out: &mut Vec<u8>) -> Result<()> {
    Writer { dialect, depth: 0, fidelity: Fidelity::Exact, out }.value(value)
}

/// Appends the API form of a MemCell: [`Dialect::Api`] with `event_id` in the place of `_id`.
///
/// A stored field that is itself called `event_id` is left out, for there can't be two of them. Errors as with
/// [`write_document`].
pub(super) fn write_memcell(document: &RawDocument, out: &mut Vec<u8>) -> Result<()> {
    let mut writer = Writer { dialect: Dialect::Api, depth: 1, fidelity: Fidelity::Exact, out };
    writer.out.push(b'{');
    let mut first = true;
    for element in document.iter_elements() {
        let element = element.map_err(malformed)?;
        let name = element.key().as_str();
        if name == "event_id" {
            continue;
        }
        writer.separate(&mut first);
        let value = element.value().map_err(malformed)?;
        if name == "_id" {
            writer.raw(r#""event_id":"#);
            writer.event_id(value)?;
        } else {
            writer.name(name);
            writer.value(value)?;
        }
    }
    writer.out.push(b'}');
    Ok(())
}

/// Walks through all of a document, so that no later access to it can fail.
///
/// # Errors
/// If it is malformed or nested too deeply.
pub(crate) fn check_document(document: &RawDocument) -> Result<()> {
    fn check_value(value: RawBsonRef<'_>, depth: usize) -> Result<()> {
        match value {
            RawBsonRef::Document(document) => check_nested(document, depth),
            RawBsonRef::Array(list) => {
                descend(depth)?;
                for item in list {
                    check_value(item.map_err(malformed)?, depth + 1)?;
                }
                Ok(())
            }
            RawBsonRef::JavaScriptCodeWithScope(code) => check_nested(code.scope, depth),
            _ => Ok(()),
        }
    }
    fn check_nested(document: &RawDocument, depth: usize) -> Result<()> {
        descend(depth)?;
        for element in document.iter_elements() {
            check_value(element.and_then(|element| element.value()).map_err(malformed)?, depth + 1)?;
        }
        Ok(())
    }
    check_nested(document, 0)
}

/// The error for BSON that can't be read. It says nothing of the contents, which the cause might.
pub(crate) fn malformed(source: bson::error::Error) -> Error {
    Error::new(ErrorKind::Internal, "the document is not well-formed bson").with_source(source)
}

fn descend(depth: usize) -> Result<()> {
    if depth >= MAX_NESTING {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("the document is nested deeper than {MAX_NESTING} levels"),
        ));
    }
    Ok(())
}

/// Whether a field of this name, alone or beside another one, stands for a value in Extended JSON.
fn is_wrapper(name: &str) -> bool {
    name.starts_with('$') && (WRAPPERS.contains(&name) || EXOTIC.contains(&name))
}

struct Writer<'a> {
    dialect: Dialect,
    depth: usize,
    fidelity: Fidelity,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn document(&mut self, document: &RawDocument) -> Result<()> {
        descend(self.depth)?;
        self.depth += 1;
        self.out.push(b'{');
        let mut first = true;
        for element in document.iter_elements() {
            let element = element.map_err(malformed)?;
            // What is read as another type has one or two fields, and all of their names begin like this.
            if first && self.depth > 1 && is_wrapper(element.key().as_str()) {
                self.fidelity = Fidelity::Ambiguous;
            }
            self.separate(&mut first);
            self.name(element.key().as_str());
            self.value(element.value().map_err(malformed)?)?;
        }
        self.out.push(b'}');
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, list: &RawArray) -> Result<()> {
        descend(self.depth)?;
        self.depth += 1;
        self.out.push(b'[');
        let mut first = true;
        for item in list {
            self.separate(&mut first);
            self.value(item.map_err(malformed)?)?;
        }
        self.out.push(b']');
        self.depth -= 1;
        Ok(())
    }

    fn value(&mut self, value: RawBsonRef<'_>) -> Result<()> {
        let api = self.dialect == Dialect::Api;
        match value {
            RawBsonRef::String(text) => self.string(text),
            RawBsonRef::Document(document) => self.document(document)?,
            RawBsonRef::Array(list) => self.list(list)?,
            RawBsonRef::Null => self.raw("null"),
            RawBsonRef::Boolean(true) => self.raw("true"),
            RawBsonRef::Boolean(false) => self.raw("false"),
            RawBsonRef::Int32(number) if api => self.integer(number),
            RawBsonRef::Int32(number) => self.quoted_integer("$numberInt", number),
            RawBsonRef::Int64(number) if api => self.integer(number),
            RawBsonRef::Int64(number) => self.quoted_integer("$numberLong", number),
            RawBsonRef::Double(number) => self.double(number)?,
            RawBsonRef::DateTime(moment) => self.datetime(moment),
            RawBsonRef::ObjectId(id) => {
                self.raw(r#"{"$oid":"#);
                self.hex(id);
                self.out.push(b'}');
            }
            other => self.exotic(other)?,
        }
        Ok(())
    }

    /// The types that a MemCell hardly ever holds; Extended JSON in both dialects.
    fn exotic(&mut self, value: RawBsonRef<'_>) -> Result<()> {
        match value {
            RawBsonRef::Decimal128(number) => self.wrapped("$numberDecimal", &number.to_string()),
            RawBsonRef::Symbol(text) => self.wrapped("$symbol", text),
            RawBsonRef::JavaScriptCode(code) => self.wrapped("$code", code),
            RawBsonRef::JavaScriptCodeWithScope(code) => {
                self.raw(r#"{"$code":"#);
                self.string(code.code);
                self.raw(r#","$scope":"#);
                // Within Extended JSON the types matter, also in the API.
                let outer = std::mem::replace(&mut self.dialect, Dialect::Canonical);
                self.document(code.scope)?;
                self.dialect = outer;
                self.out.push(b'}');
            }
            RawBsonRef::RegularExpression(regex) => {
                let mut options: Vec<char> = regex.options.as_str().chars().collect();
                options.sort_unstable();
                self.raw(r#"{"$regularExpression":{"pattern":"#);
                self.string(regex.pattern.as_str());
                self.raw(r#","options":"#);
                self.string(&options.into_iter().collect::<String>());
                self.raw("}}");
            }
            RawBsonRef::Binary(binary) => {
                self.raw(r#"{"$binary":{"base64":""#);
                self.raw(&BASE64.encode(binary.bytes));
                self.raw(r#"","subType":""#);
                self.hex_digits(&[u8::from(binary.subtype)]);
                self.raw(r#""}}"#);
            }
            RawBsonRef::Timestamp(timestamp) => {
                self.raw(r#"{"$timestamp":{"t":"#);
                self.integer(timestamp.time);
                self.raw(r#","i":"#);
                self.integer(timestamp.increment);
                self.raw("}}");
            }
            RawBsonRef::DbPointer(_) => {
                // Deprecated for a decade, and its parts can't be had from the raw form.
                let Ok(bson::Bson::DbPointer(pointer)) = bson::Bson::try_from(value) else {
                    return Err(Error::new(ErrorKind::Internal, "a dbpointer can't be read"));
                };
                let json = bson::Bson::DbPointer(pointer).into_canonical_extjson();
                self.raw(&json.to_string());
            }
            RawBsonRef::Undefined => self.raw(r#"{"$undefined":true}"#),
            RawBsonRef::MinKey => self.raw(r#"{"$minKey":1}"#),
            RawBsonRef::MaxKey => self.raw(r#"{"$maxKey":1}"#),
            _ => return Err(Error::new(ErrorKind::Internal, "a bson type is unknown to this host")),
        }
        Ok(())
    }

    fn event_id(&mut self, id: RawBsonRef<'_>) -> Result<()> {
        if let RawBsonRef::ObjectId(id) = id {
            self.hex(id);
            return Ok(());
        }
        self.dialect = Dialect::Canonical;
        self.value(id)?;
        self.dialect = Dialect::Api;
        Ok(())
    }

    fn double(&mut self, number: f64) -> Result<()> {
        if self.dialect == Dialect::Api && number.is_finite() {
            // The shortest form that reads back as the same double, with a fraction or an exponent.
            return serde_json::to_writer(&mut *self.out, &number)
                .map_err(|source| Error::new(ErrorKind::Internal, "a double can't be written").with_source(source));
        }
        self.raw(r#"{"$numberDouble":""#);
        if number.is_finite() {
            // The shortest form that reads back as the same double: with a fraction, or an exponent where there would be more than 16
            // digits before the point. Writing to a vector can't fail.
            let _ = write!(self.out, "{number:?}");
        } else {
            let sign = if number.is_sign_negative() { "-" } else { "" };
            self.raw(sign);
            self.raw(if number.is_nan() { "NaN" } else { "Infinity" });
        }
        self.raw(r#""}"#);
        Ok(())
    }

    fn datetime(&mut self, moment: bson::DateTime) {
        if self.dialect == Dialect::Api {
            let start = self.out.len();
            self.out.push(b'"');
            if write_datetime(moment, self.out) {
                self.out.push(b'"');
                return;
            }
            self.out.truncate(start);
        }
        self.raw(r#"{"$date":"#);
        self.quoted_integer("$numberLong", moment.timestamp_millis());
        self.out.push(b'}');
    }

    /// `{"name":"text"}`.
    fn wrapped(&mut self, name: &str, text: &str) {
        self.out.push(b'{');
        self.name(name);
        self.string(text);
        self.out.push(b'}');
    }

    /// `{"name":"number"}`.
    fn quoted_integer(&mut self, name: &str, number: impl itoa::Integer) {
        self.raw("{\"");
        self.raw(name);
        self.raw("\":\"");
        self.integer(number);
        self.raw("\"}");
    }

    fn integer(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn hex(&mut self, id: ObjectId) {
        self.out.push(b'"');
        self.hex_digits(&id.bytes());
        self.out.push(b'"');
    }

    fn hex_digits(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.out.extend([byte >> 4, byte & 0xf].map(|nibble| nibble + if nibble < 10 { b'0' } else { b'a' - 10 }));
        }
    }

    fn separate(&mut self, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
    }

    fn name(&mut self, name: &str) {
        self.string(name);
        self.out.push(b':');
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = text.as_bytes();
        loop {
            let (run, special) = rest.split_at(plain_run(rest));
            self.out.extend_from_slice(run);
            let Some((byte, behind)) = special.split_first() else { break };
            match byte {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                b'\r' => self.raw("\\r"),
                b'\t' => self.raw("\\t"),
                0x08 => self.raw("\\b"),
                0x0c => self.raw("\\f"),
                control => {
                    self.raw("\\u00");
                    self.hex_digits(&[*control]);
                }
            }
            rest = behind;
        }
        self.out.push(b'"');
    }
}

/// How many bytes at the front can stand in a JSON string as they are.
fn plain_run(bytes: &[u8]) -> usize {
    // No short circuit within a block: the compiler then checks all of its bytes at once.
    fn special(byte: u8) -> bool {
        (byte < 0x20) | (byte == b'"') | (byte == b'\\')
    }
    let (blocks, _) = bytes.as_chunks::<16>();
    let plain = |block: &&[u8; 16]| !block.iter().fold(false, |found, &byte| found | special(byte));
    let start = blocks.iter().take_while(plain).count() * 16;
    let rest = bytes.get(start..).unwrap_or_default();
    start + rest.iter().position(|&byte| special(byte)).unwrap_or(rest.len())
}
