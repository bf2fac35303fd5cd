//! From what a file or a variable holds to a value of a type.
//!
//! A parser answers the value and how it is written back, or what it expected.
//! It knows neither the setting's name nor where the value came from, and it
//! never repeats what it was given.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::domain::ids::ModuleId;
use crate::domain::time::Period;
use crate::domain::wire::WireField as _;

use super::secret::MASK;
use crate::domain::secret::SecretBytes;

/// A value as it was given.
pub(super) enum Raw {
    /// The text of an environment variable.
    Variable(String),
    /// A value of a TOML file.
    File(toml::Value),
}

impl Raw {
    /// The text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Variable(text) => Some(text.trim()),
            Self::File(toml::Value::String(text)) => Some(text),
            Self::File(_) => None,
        }
    }

    /// Whether it is the empty text, which leaves an optional setting unset.
    pub(super) fn is_empty(&self) -> bool {
        self.text().is_some_and(str::is_empty)
    }
}

/// A value with the TOML literal that stands for it.
pub(super) struct Parsed<T> {
    pub(super) value: T,
    pub(super) shown: String,
}

/// A parser's answer; the error says what was expected.
pub(super) type Outcome<T> = Result<Parsed<T>, String>;

/// A text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    // JSON's escapes are TOML's, but for the one control character JSON leaves alone.
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

pub(super) fn address(raw: &Raw) -> Outcome<SocketAddr> {
    let value: SocketAddr = parsed(raw)
        .ok_or("expected an IP address and a port, such as 127.0.0.1:8002 or [::1]:8002")?;
    Ok(Parsed {
        value,
        shown: quoted(&value.to_string()),
    })
}

/// A length of time that bounds something, so not zero.
pub(super) fn period(raw: &Raw) -> Outcome<Period> {
    parsed::<Period>(raw)
        .filter(|period| !period.as_duration().is_zero())
        .map(|value| Parsed {
            value,
            shown: quoted(&value.to_string()),
        })
        .ok_or_else(|| {
            "expected a duration longer than zero, such as P90D, PT30S or 30s; \
             a day is 24 hours, months and years are not taken"
                .to_owned()
        })
}

/// The same where zero says that nothing is waited for.
pub(super) fn period_or_none(raw: &Raw) -> Outcome<Period> {
    parsed::<Period>(raw)
        .map(|value| Parsed {
            value,
            shown: quoted(&value.to_string()),
        })
        .ok_or_else(|| {
            "expected a duration such as P7D, PT30S or 0s; a day is 24 hours, months and years are \
             not taken"
                .to_owned()
        })
}

pub(super) fn path(raw: &Raw) -> Outcome<PathBuf> {
    let text = raw
        .text()
        .filter(|text| !text.is_empty() && !text.contains('\0'))
        .ok_or("expected a path")?;
    Ok(Parsed {
        value: PathBuf::from(text),
        shown: quoted(text),
    })
}

pub(super) fn text(raw: &Raw) -> Outcome<String> {
    let text = raw
        .text()
        .filter(|text| !text.is_empty())
        .ok_or("expected a text that isn't empty")?;
    Ok(Parsed {
        value: text.to_owned(),
        shown: quoted(text),
    })
}

pub(super) fn secret(raw: &Raw) -> Outcome<SecretBytes> {
    // Not trimmed: a space may be part of it.
    let text = match raw {
        Raw::Variable(text) | Raw::File(toml::Value::String(text)) => text,
        Raw::File(_) => return Err("expected a text, in quotes".to_owned()),
    };
    Ok(Parsed {
        value: SecretBytes::from(text.to_owned()),
        shown: quoted(MASK),
    })
}

pub(super) fn flag(raw: &Raw) -> Outcome<bool> {
    let value = match raw {
        Raw::File(toml::Value::Boolean(value)) => Some(*value),
        Raw::File(_) => None,
        Raw::Variable(text) => text.trim().to_ascii_lowercase().parse().ok(),
    };
    let value = value.ok_or("expected true or false")?;
    Ok(Parsed {
        value,
        shown: value.to_string(),
    })
}

/// A whole number from zero to this one.
pub(super) fn up_to(largest: usize) -> impl Fn(&Raw) -> Outcome<usize> {
    move |raw| {
        number(raw)
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number <= largest)
            .map(|value| Parsed {
                value,
                shown: value.to_string(),
            })
            .ok_or_else(|| format!("expected a whole number from 0 to {largest}"))
    }
}

fn number(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::File(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
        Raw::File(_) => None,
        Raw::Variable(text) => text.trim().parse().ok(),
    }
}

/// A whole number of a range that starts above zero.
pub(super) fn whole<T: TryFrom<NonZeroU64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&Raw) -> Outcome<T> {
    move |raw| {
        number(raw)
            .filter(|number| range.contains(number))
            .and_then(NonZeroU64::new)
            .and_then(|number| {
                Some(Parsed {
                    value: T::try_from(number).ok()?,
                    shown: number.to_string(),
                })
            })
            .ok_or_else(|| {
                format!(
                    "expected a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// A number of bytes: `1048576`, or a text such as `512KiB` and `1MiB`.
pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Raw) -> Outcome<NonZeroUsize> {
    move |raw| {
        let written = match raw {
            Raw::File(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => raw.text().and_then(size),
        };
        written
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| NonZeroUsize::new(usize::try_from(bytes).ok()?))
            .map(|value| Parsed {
                value,
                shown: value.to_string(),
            })
            .ok_or_else(|| {
                format!(
                    "expected a number of bytes from {} to {}, such as 1048576, 512KiB or 1MiB",
                    range.start(),
                    range.end()
                )
            })
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 1 << 10),
        (_, Some(number)) => (number, 1 << 20),
        _ => (text, 1),
    };
    number.trim_end().parse::<u64>().ok()?.checked_mul(unit)
}

/// One of some names, in whatever case. A value's first name is the one it is
/// written back with.
pub(super) fn choice<T: Copy + PartialEq>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&Raw) -> Outcome<T> {
    move |raw| {
        let chosen = raw.text().and_then(|text| {
            choices
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text))
        });
        let Some(&(_, value)) = chosen else {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            return Err(format!("expected one of {}", names.join(", ")));
        };
        let name = choices
            .iter()
            .find(|(_, other)| *other == value)
            .map_or("", |&(name, _)| name);
        Ok(Parsed {
            value,
            shown: quoted(name),
        })
    }
}

/// A list: an array in a file, comma separated in a variable.
pub(super) fn list<T>(item: impl Fn(&Raw) -> Outcome<T>) -> impl Fn(&Raw) -> Outcome<Vec<T>> {
    move |raw| {
        let items: Vec<Raw> = match raw {
            Raw::Variable(text) => text
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(|text| Raw::Variable(text.to_owned()))
                .collect(),
            Raw::File(toml::Value::Array(items)) => items.iter().cloned().map(Raw::File).collect(),
            Raw::File(_) => return Err("expected a list, such as [\"a\", \"b\"]".to_owned()),
        };
        let mut values = Vec::with_capacity(items.len());
        let mut shown = Vec::with_capacity(items.len());
        for (index, raw) in items.iter().enumerate() {
            let parsed = item(raw).map_err(|what| format!("item {}: {what}", index + 1))?;
            values.push(parsed.value);
            shown.push(parsed.shown);
        }
        Ok(Parsed {
            value: values,
            shown: format!("[{}]", shown.join(", ")),
        })
    }
}

/// A module by its name.
pub(super) fn module(raw: &Raw) -> Outcome<ModuleId> {
    let text = raw.text().unwrap_or_default();
    match text.parse::<ModuleId>() {
        Ok(module) => Ok(Parsed {
            shown: quoted(module.as_str()),
            value: module,
        }),
        Err(_) => Err(format!("expected {}", ModuleId::EXPECTED)),
    }
}

fn parsed<T: std::str::FromStr>(raw: &Raw) -> Option<T> {
    raw.text()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str) -> Raw {
        Raw::Variable(text.to_owned())
    }

    #[test]
    fn numbers_and_flags_are_read_from_text_only_where_text_is_all_there_is() {
        let number = whole::<NonZeroU64>(1..=8);
        assert_eq!(
            number(&variable(" 8 ")).ok().map(|p| p.value.get()),
            Some(8)
        );
        assert!(number(&Raw::File(toml::Value::Integer(8))).is_ok());
        assert!(number(&Raw::File(toml::Value::from("8"))).is_err());
        assert!(flag(&variable("TRUE")).is_ok_and(|p| p.value));
        assert!(flag(&variable("yes")).is_err());
        assert!(flag(&Raw::File(toml::Value::from("true"))).is_err());
    }

    #[test]
    fn a_number_outside_its_range_is_told_the_range() {
        let number = whole::<NonZeroU64>(1..=8);
        for text in ["0", "9", "-1", "1.5", ""] {
            assert_eq!(
                number(&variable(text)).err().as_deref(),
                Some("expected a whole number from 1 to 8"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn sizes_are_read_in_bytes_kibibytes_and_mebibytes() {
        let size = bytes(1024..=64 << 20);
        for (text, expected) in [
            ("2048", 2048),
            ("512KiB", 512 << 10),
            ("1MiB", 1 << 20),
            ("64 MiB", 64 << 20),
        ] {
            let read = size(&variable(text)).ok().map(|p| p.value.get());
            assert_eq!(read, Some(expected), "{text}");
        }
        for text in [
            "1023",
            "65MiB",
            "1MB",
            "1mib",
            "18014398509481984KiB",
            "KiB",
        ] {
            assert!(size(&variable(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_period_of_nothing_is_refused() {
        assert!(period(&variable("PT30S")).is_ok());
        for text in ["PT0S", "0s", "P1M", "soon", ""] {
            assert!(period(&variable(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_list_is_an_array_or_comma_separated_and_names_the_bad_item() {
        let words = list(text);
        let read = words(&variable("a, b,,")).ok().map(|p| p.value);
        assert_eq!(read, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(words(&variable("")).is_ok_and(|p| p.value.is_empty()));
        assert!(words(&Raw::File(toml::Value::from("a"))).is_err());
        let mixed = toml::Value::Array(vec!["a".into(), 5.into()]);
        assert_eq!(
            words(&Raw::File(mixed)).err().as_deref(),
            Some("item 2: expected a text that isn't empty")
        );
    }

    #[test]
    fn an_alias_is_written_back_by_the_first_name() {
        let backend = choice(&[("software", 1), ("mock", 1), ("pkcs11", 2)]);
        assert!(backend(&variable("Mock")).is_ok_and(|p| p.shown == "\"software\""));
        assert_eq!(
            backend(&variable("tpm")).err().as_deref(),
            Some("expected one of software, mock, pkcs11")
        );
    }

    #[test]
    fn a_quoted_text_is_read_back_by_toml_as_it_was() {
        let odd = "a\"b\\c\nd\u{1}\u{7f}é";
        let table: toml::Table = format!("x = {}", quoted(odd)).parse().expect("TOML");
        assert_eq!(table["x"].as_str(), Some(odd));
    }

    #[test]
    fn paths_are_not_empty_and_hold_no_nul() {
        assert!(path(&variable("data")).is_ok());
        assert!(path(&variable("")).is_err());
        assert!(path(&variable("a\0b")).is_err());
    }

    #[test]
    fn modules_have_names_of_their_own_alphabet() {
        let is_module = |text: &str| module(&Raw::Variable(text.to_owned())).is_ok();
        for text in ["M21", "EPC-1", "a.b_c", &"x".repeat(64)] {
            assert!(is_module(text), "{text}");
        }
        for text in ["", "-M21", "M 21", "M21/x", "Mü", &"x".repeat(65)] {
            assert!(!is_module(text), "{text}");
        }
    }
}
