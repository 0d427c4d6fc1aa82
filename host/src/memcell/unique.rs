//! JSON whose objects say everything once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// How much of a field's name an error repeats, in characters.
const SHOWN: usize = 64;

/// A JSON value in which no object, at any depth, has a field twice: one of the two would be lost without a word.
pub(crate) struct Unique(pub(crate) Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

/// As `serde_json` reads its values, but for the objects.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, given: bool) -> Result<Value, E> {
        Ok(Value::Bool(given))
    }

    fn visit_i64<E>(self, given: i64) -> Result<Value, E> {
        Ok(given.into())
    }

    fn visit_u64<E>(self, given: u64) -> Result<Value, E> {
        Ok(given.into())
    }

    fn visit_f64<E>(self, given: f64) -> Result<Value, E> {
        Ok(Number::from_f64(given).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, given: &str) -> Result<Value, E> {
        Ok(given.into())
    }

    fn visit_string<E>(self, given: String) -> Result<Value, E> {
        Ok(given.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            match object.entry(name) {
                Entry::Vacant(field) => drop(field.insert(fields.next_value::<Unique>()?.0)),
                Entry::Occupied(field) => {
                    let name: String = field.key().chars().take(SHOWN).collect();
                    return Err(A::Error::custom(format_args!("the field {name:?} is given twice")));
                }
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Value, String> {
        serde_json::from_str::<Unique>(json).map(|Unique(value)| value).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_as_the_library_reads_them() {
        for json in [
            "null",
            " true ",
            "[]",
            "{}",
            r#""\u00e9\n""#,
            "[0, -0, -0.0, 1.5e300, 9223372036854775807, -9223372036854775808, 18446744073709551616, 0.1]",
            r#"{"b": {"a": [{"a": 1}, {"a": 2}]}, "a": null, "": {"": ""}}"#,
        ] {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(read(json).unwrap().to_string(), expected.to_string());
        }
        for json in ["", "{", "[1,]", "1 2", "nul", r#"{"a" 1}"#, "1e999"] {
            let expected = serde_json::from_str::<Value>(json).unwrap_err();
            assert_eq!(read(json).unwrap_err(), expected.to_string(), "{json}");
        }
    }

    #[test]
    fn a_field_that_is_given_twice_is_refused() {
        assert_eq!(read(r#"{"a": 1, "a": 1}"#).unwrap_err(), r#"the field "a" is given twice at line 1 column 12"#);
        for json in [r#"[{"x": {"a": 1, "b": 2, "\u0061": 3}}]"#, r#"{"": 1, "": 2}"#] {
            assert!(read(json).unwrap_err().contains(" is given twice at line 1"), "{json}");
        }
        let long = "x".repeat(10_000);
        assert!(read(&format!(r#"{{"{long}": 1, "{long}": 2}}"#)).unwrap_err().len() < 200);
    }
}
