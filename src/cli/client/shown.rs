//! Answers for people and for programs. What a service says is escaped either way,
//! since it may steer a terminal.

use std::borrow::Cow;
use std::io::{self, Write as _};

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::adapters::remote::escaped;
use crate::cli::fault::Fault;

/// The fields of answers in the order in which people read them. What is nested has
/// its path.
const FIELDS: &[&str] = &[
    "key_id",
    "old_key_id",
    "new_key_id",
    "key_type",
    "key_state",
    "key_alias",
    "key_usage",
    "algorithms",
    "tenant_id",
    "environment",
    "plane",
    "created_at",
    "created_by",
    "valid_until",
    "rotate_at",
    "rotation_period",
    "rotation_count",
    "rotated_at",
    "grace_until",
    "archived_at",
    "revoked_at",
    "revocation_reason",
    "erase_at",
    "predecessor_key_id",
    "successor_key_id",
    "access_policy/allowed_modules",
    "access_policy/requires_approval",
    "access_policy/max_usage_per_day",
    "usage/used",
    "usage/limit",
    "usage/resets_at",
    "usage/last_used_at",
    "hsm_backend",
    "receipt_id",
];

/// The fields that are texts of several lines, below all others.
const TEXTS: &[&str] = &["public_key", "new_public_key"];

/// An answer that is not what it should be.
pub(super) fn malformed(what: &str) -> Fault {
    Fault::failed(format_args!("the service's answer is no {what}"))
}

/// Prints an answer: as it is on one line, or its fields one below the other.
pub(super) fn print(answer: &[u8], json: bool) -> Result<(), Fault> {
    let text = match json {
        true => format!("{}\n", one_line(answer)?),
        false => fields(answer)?,
    };
    write(&text)
}

/// Writes text to standard output.
pub(super) fn write(text: &str) -> Result<(), Fault> {
    write_on(text).map(|_| ())
}

/// The same; whether somebody still reads.
pub(super) fn write_on(text: &str) -> Result<bool, Fault> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        // Who has read enough is content.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// A JSON document on one line, in the order it came in. What is not printable stands
/// as JSON's own escape, which says the same.
pub(super) fn one_line(answer: &[u8]) -> Result<String, Fault> {
    let text = std::str::from_utf8(answer)
        .ok()
        .filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        .ok_or_else(|| malformed("JSON"))?;
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            // Between values; within a text JSON has no line ends.
            '\n' | '\r' | '\t' => line.push(' '),
            ' '..='~' => line.push(c),
            _ if escaped(c.encode_utf8(&mut [0; 4])).len() == c.len_utf8() => line.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Ok(line)
}

/// The fields that an answer has, aligned.
fn fields(answer: &[u8]) -> Result<String, Fault> {
    let answer: Value = serde_json::from_slice(answer).map_err(|_| malformed("JSON"))?;
    let found: Vec<(String, String)> = FIELDS
        .iter()
        .filter_map(|path| {
            let value = answer.pointer(&format!("/{path}"))?;
            Some((path.replace('/', "."), in_words(value)?.into_owned()))
        })
        .collect();
    let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in found {
        text.push_str(&format!("{name:width$}  {value}\n"));
    }
    for name in TEXTS {
        if let Some(Value::String(value)) = answer.get(*name) {
            text.push_str(&format!("{name}\n"));
            for line in value.lines() {
                text.push_str(&escaped(line));
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// A value as a person writes it; `None` for one that is not there.
pub(super) fn in_words(value: &Value) -> Option<Cow<'static, str>> {
    match value {
        Value::Null => None,
        Value::Bool(true) => Some("yes".into()),
        Value::Bool(false) => Some("no".into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::String(text) => Some(escaped(text).into()),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(in_words).collect();
            Some(items.join(", ").into())
        }
        Value::Object(_) => Some(escaped(&value.to_string()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_stays_what_it_is_on_one_line_and_steers_nothing() {
        let answer = "{\n  \"b\": 1.50,\t\"a\": \"x\u{9b}31m\u{202e}é\u{1f511}\u{e0001}\" }\r\n";
        let line = one_line(answer.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(
            line,
            "{   \"b\": 1.50, \"a\": \"x\\u009b31m\\u202eé\u{1f511}\\udb40\\udc01\" }"
        );
        let read: Value = serde_json::from_str(&line).expect("JSON");
        let was: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!(read, was);
        for other in ["", "x", "{} {}", "\u{1b}"] {
            assert!(one_line(other.as_bytes()).is_err(), "{other:?}");
        }
        assert!(one_line(b"\"\xff\"").is_err());
    }

    #[test]
    fn fields_are_aligned_in_one_order_and_escaped() {
        let answer = r#"{"receipt_id":"r","usage":{"used":0,"limit":3},"key_id":"k\u001b[2J",
            "public_key":"-----\n\u001b\n","key_alias":null,"algorithms":["a","b"],"other":1}"#;
        let text = fields(answer.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(
            text,
            "key_id       k\\u{1b}[2J\nalgorithms   a, b\nusage.used   0\nusage.limit  3\n\
             receipt_id   r\npublic_key\n-----\n\\u{1b}\n"
        );
    }
}
