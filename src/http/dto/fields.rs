//! Fields that only the wire knows: what they hold, and what a wrong one is told.

use std::fmt;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::domain::binary::Base64Bytes;
use crate::domain::ids::{KeyAlias, ModuleId};
use crate::domain::policy::LARGEST_DAILY_LIMIT;
use crate::domain::secret::SecretBytes;
use crate::domain::time::Period;
use crate::domain::wire::{Unparsable, WireField};

/// An approval token in a body.
pub(crate) struct ApprovalTokenField(pub(crate) SecretBytes);

impl WireField for ApprovalTokenField {
    const EXPECTED: &'static str = "an approval token, as a string";
}

impl<'de> Deserialize<'de> for ApprovalTokenField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|token| Self(SecretBytes::from(token)))
    }
}

/// Modules that may use a key.
pub(crate) struct ModuleList(pub(crate) Vec<ModuleId>);

/// More modules than the platform will ever have.
pub(super) const MOST_MODULES: usize = 256;

impl WireField for ModuleList {
    const EXPECTED: &'static str = "a list of 1 to 256 modules such as M21";
}

impl<'de> Deserialize<'de> for ModuleList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let modules = Vec::<ModuleId>::deserialize(deserializer)?;
        if modules.is_empty() || modules.len() > MOST_MODULES {
            return Err(serde::de::Error::custom(Self::EXPECTED));
        }
        Ok(Self(modules))
    }
}

/// [`LARGEST_DAILY_LIMIT`], which a `f64` keeps exactly.
const LARGEST_WHOLE: f64 = LARGEST_DAILY_LIMIT as f64;

/// Uses a UTC day.
pub(crate) struct DailyLimit(pub(crate) u64);

impl WireField for DailyLimit {
    const EXPECTED: &'static str = "a whole number from 1 to 9007199254740991";
}

impl<'de> Deserialize<'de> for DailyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeNumber;

        impl Visitor<'_> for WholeNumber {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DailyLimit::EXPECTED)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<u64, E> {
                let is_whole = number.fract() == 0.0 && (0.0..=LARGEST_WHOLE).contains(&number);
                is_whole
                    .then_some(number as u64)
                    .ok_or_else(|| E::custom(DailyLimit::EXPECTED))
            }
        }

        // 10.0 is a whole number too (JSON Schema Core 2020-12, 4.2.3), and some write it so.
        let limit = deserializer.deserialize_any(WholeNumber)?;
        if (1..=LARGEST_DAILY_LIMIT).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(serde::de::Error::custom(Self::EXPECTED))
        }
    }
}

/// How long a key signs and encrypts.
pub(crate) struct RotationPeriodField(pub(crate) Period);

impl RotationPeriodField {
    /// The spellings that are promised, as a regular expression (ECMA-262): those of
    /// answers, any number of one unit, and the short form. Of what else ISO 8601 has
    /// most is read too.
    pub(super) const PATTERN: &'static str = "^(?:P(?:36500D|\
        (?:[1-9][0-9]{0,3}|[12][0-9]{4}|3[0-5][0-9]{3}|36[0-4][0-9]{2})D\
        (?:T(?:(?:1?[0-9]|2[0-3])H(?:[1-5]?[0-9]M)?(?:[1-5]?[0-9](?:[.][0-9]{1,6})?S)?|\
        [1-5]?[0-9]M(?:[1-5]?[0-9](?:[.][0-9]{1,6})?S)?|[1-5]?[0-9](?:[.][0-9]{1,6})?S))?|\
        T(?:[1-9][0-9]{0,4}H(?:[1-5]?[0-9]M)?(?:[1-5]?[0-9](?:[.][0-9]{1,6})?S)?|\
        [1-9][0-9]{0,6}M(?:[1-5]?[0-9](?:[.][0-9]{1,6})?S)?|[1-9][0-9]{0,8}(?:[.][0-9]{1,6})?S))|\
        [1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d)$";
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);
}

impl WireField for RotationPeriodField {
    const EXPECTED: &'static str = "a duration from PT1S to P36500D, such as P90D (ISO 8601)";
}

impl<'de> Deserialize<'de> for RotationPeriodField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .ok()
            .filter(|period: &Period| {
                (Self::SHORTEST..=Self::LONGEST).contains(&period.as_duration())
            })
            // As the store keeps it, so that it reads back as it was answered.
            .map(|period| Self(period.in_whole_microseconds()))
            .ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// Another alias for a key. Unlike in other fields, `null` is not the same as
/// nothing: it takes the alias away, and so does the empty text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum AliasChange {
    /// The field is not there.
    #[default]
    Unchanged,
    /// The key is to bear no alias.
    Removed,
    /// The key is to bear this one.
    Set(KeyAlias),
}

impl AliasChange {
    /// What changes, if anything does.
    pub(crate) fn into_change(self) -> Option<Option<KeyAlias>> {
        match self {
            Self::Unchanged => None,
            Self::Removed => Some(None),
            Self::Set(alias) => Some(Some(alias)),
        }
    }
}

impl WireField for AliasChange {
    const EXPECTED: &'static str = "an alias as for a new key, or null for none";
}

impl<'de> Deserialize<'de> for AliasChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(Self::Removed),
            Some(text) if text.is_empty() => Ok(Self::Removed),
            Some(text) => text
                .parse()
                .map(Self::Set)
                .map_err(|_| serde::de::Error::custom(Self::EXPECTED)),
        }
    }
}

/// A nonce of 96 bits.
pub(crate) struct NonceField(pub(crate) [u8; 12]);

impl WireField for NonceField {
    const EXPECTED: &'static str =
        "the iv that encrypt answered: 12 bytes in standard base64 with padding";
}

impl<'de> Deserialize<'de> for NonceField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Base64Bytes::deserialize(deserializer)?.into_bytes();
        <[u8; 12]>::try_from(bytes.as_ref())
            .map(Self)
            .map_err(|_| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// How many entries a page holds.
#[derive(Clone, Copy)]
pub(crate) struct PageLimit(pub(crate) usize);

impl PageLimit {
    /// Where the query says nothing.
    pub(crate) const DEFAULT: Self = Self(100);
    pub(super) const LARGEST: usize = 1_000;
}

impl WireField for PageLimit {
    const EXPECTED: &'static str = "a whole number from 1 to 1000";
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .ok()
            .filter(|limit| (1..=Self::LARGEST).contains(limit))
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// The size of a tree, in a query.
pub(crate) struct TreeSize(pub(crate) u64);

impl WireField for TreeSize {
    const EXPECTED: &'static str = "a number of receipts";
}

impl<'de> Deserialize<'de> for TreeSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(|_| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// Where a page begins: after the entry with this id. Opaque to callers, who give back what they got.
pub(crate) struct Cursor(pub(crate) [u8; 16]);

impl Cursor {
    /// Its form, as a regular expression (ECMA-262).
    pub(super) const PATTERN: &'static str = "^[0-9a-f]{32}$";

    /// The text of a cursor.
    pub(crate) fn encode(after: &[u8; 16]) -> String {
        after.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(text: &str) -> Option<Self> {
        let digits = |place: usize| text.get(2 * place..2 * place + 2);
        let mut bytes = [0u8; 16];
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        // As they are written, and not in each way that reads as a number.
        if text.len() != 2 * bytes.len() || !text.bytes().all(is_digit) {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits(place)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl WireField for Cursor {
    const EXPECTED: &'static str = "the next_cursor of the page before";
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::decode(&text).ok_or_else(|| serde::de::Error::custom(Unparsable(Self::EXPECTED)))
    }
}

/// Where a page of a line of rotations begins: after so many of them.
pub(crate) struct LineCursor(pub(crate) u32);

impl LineCursor {
    /// Its form, as a regular expression (ECMA-262).
    pub(super) const PATTERN: &'static str = "^0{24}[0-9a-f]{8}$";

    /// The text of a cursor.
    pub(crate) fn encode(after: u32) -> String {
        Cursor::encode(&u128::from(after).to_be_bytes())
    }

    fn decode(text: &str) -> Option<Self> {
        let Cursor(bytes) = Cursor::decode(text)?;
        u32::try_from(u128::from_be_bytes(bytes)).ok().map(Self)
    }
}

impl WireField for LineCursor {
    const EXPECTED: &'static str = Cursor::EXPECTED;
}

impl<'de> Deserialize<'de> for LineCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::decode(&text).ok_or_else(|| serde::de::Error::custom(Unparsable(Self::EXPECTED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(text: &str) -> Option<String> {
        let field: Result<RotationPeriodField, _> = serde_json::from_value(text.into());
        field.ok().map(|field| field.0.to_string())
    }

    #[test]
    fn a_rotation_period_is_at_least_a_second_and_at_most_a_hundred_years() {
        for (text, read) in [
            ("PT1S", Some("PT1S")),
            ("P36500D", Some("P36500D")),
            ("30d", Some("P30D")),
            ("PT1.0000019S", Some("PT1.000001S")),
            ("PT0.999999S", None),
            ("PT0S", None),
            ("-P1D", None),
            ("P36500DT1S", None),
            ("P1Y", None),
            ("P1M", None),
            ("", None),
        ] {
            assert_eq!(period(text).as_deref(), read, "{text:?}");
        }
        assert!(serde_json::from_value::<RotationPeriodField>(90.into()).is_err());
    }

    #[test]
    fn a_daily_limit_is_a_whole_number_however_it_is_written() {
        let read = |text: &str| {
            serde_json::from_str::<DailyLimit>(text)
                .ok()
                .map(|read| read.0)
        };
        for (text, number) in [
            ("1", Some(1)),
            ("10.0", Some(10)),
            ("1e3", Some(1_000)),
            ("9007199254740991", Some(LARGEST_DAILY_LIMIT)),
            ("9007199254740991.0", Some(LARGEST_DAILY_LIMIT)),
            ("9007199254740992", None),
            ("9007199254740992.0", None),
            ("1e300", None),
            ("10.5", None),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            ("-1.0", None),
            ("\"1\"", None),
            ("true", None),
        ] {
            assert_eq!(read(text), number, "{text}");
        }
    }

    #[test]
    fn null_takes_an_alias_away_and_a_field_that_is_not_there_does_not() {
        let read = |value: serde_json::Value| serde_json::from_value::<AliasChange>(value);
        assert_eq!(AliasChange::default().into_change(), None);
        for none in [serde_json::Value::Null, "".into()] {
            assert_eq!(read(none).expect("valid").into_change(), Some(None));
        }
        let alias = "line".parse().ok();
        assert_eq!(
            read("line".into()).expect("valid").into_change(),
            Some(alias)
        );
        for malformed in ["-line", " "] {
            assert!(read(malformed.into()).is_err());
        }
        assert!(read(7.into()).is_err());
    }
}
