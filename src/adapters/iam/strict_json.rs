//! JSON whose objects have each member once.
//!
//! `serde_json` keeps the last of two members of one name and says nothing, so
//! that whoever signed and whoever checks could read two different documents
//! (RFC 7515 §4, RFC 7519 §4). Knows nothing of tokens.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Where a text stops being JSON, or names a member twice. Never what it says,
/// which may be a token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object whose members are named once each (line {line}, column {column})")]
pub(super) struct NotStrictJson {
    line: usize,
    column: usize,
}

/// Reads one JSON object and nothing after it.
///
/// # Errors
/// [`NotStrictJson`] for anything else, a member that is there twice included.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, NotStrictJson> {
    let place = |error: &serde_json::Error| NotStrictJson {
        line: error.line(),
        column: error.column(),
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict
        .deserialize(&mut reader)
        .map_err(|error| place(&error))?;
    reader.end().map_err(|error| place(&error))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(NotStrictJson { line: 1, column: 1 }),
    }
}

/// Reads any value; recursion is bounded by `serde_json` (128 levels).
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_any_reader_would() {
        let text = r#" {"a":[1,-2,0.5,null,true,{"b":"ä"}],"c":{"a":1}} "#;
        let expected: Value = serde_json::from_str(text).expect("JSON");
        let read = parse_object(text.as_bytes()).expect("strict");
        assert_eq!(Value::Object(read), expected);
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_every_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
        ] {
            assert!(parse_object(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_one_whole_object_is_read() {
        for text in [
            "",
            "[]",
            "1",
            "{}x",
            "{}{}",
            "{",
            r#"{"a":NaN}"#,
            "\u{feff}{}",
        ] {
            assert!(parse_object(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
        let deep = "[".repeat(100_000);
        assert!(parse_object(deep.as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn a_fault_says_where_and_not_what() {
        let fault = parse_object(b"{\n\"canary\":1,\"canary\":2}").expect_err("twice");
        assert!(fault.to_string().contains("line 2"), "{fault}");
        assert!(!fault.to_string().contains("canary"), "{fault}");
    }
}
