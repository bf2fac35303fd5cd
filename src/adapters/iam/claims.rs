//! What a verified token says (RFC 7519 §4), read by type.

use serde_json::{Map, Value};

use crate::domain::time::{Period, Timestamp};

/// How far two clocks may differ (RFC 7519 §4.1.4).
pub(super) const LEEWAY: Period = Period::seconds(30);

/// The longest text that is taken for a name (`sub`, `iss`, `jti` and the like), in bytes.
const LONGEST_NAME: usize = 256;

/// The claims of a token whose signature has been verified.
pub(super) struct Claims(Map<String, Value>);

/// Why claims were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimFault {
    /// Not there, or not of its type.
    Missing(&'static str),
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` is still to come.
    NotYetValid,
}

impl Claims {
    /// The claims of a verified token; for `token`, which verifies.
    pub(super) fn verified(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// A claim that must be a text of 1 to 256 bytes without control characters:
    /// it may get into a receipt.
    ///
    /// # Errors
    /// [`ClaimFault::Missing`].
    pub(super) fn text(&self, name: &'static str) -> Result<&str, ClaimFault> {
        match self.0.get(name) {
            Some(Value::String(text)) if is_name(text) => Ok(text),
            _ => Err(ClaimFault::Missing(name)),
        }
    }

    /// A claim that must be one text or a list of texts (`aud`, RFC 7519 §4.1.3).
    ///
    /// # Errors
    /// [`ClaimFault::Missing`].
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&str>, ClaimFault> {
        let texts: Option<Vec<&str>> = match self.0.get(name) {
            Some(Value::String(one)) => Some(vec![one]),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
            _ => None,
        };
        texts.ok_or(ClaimFault::Missing(name))
    }

    /// A claim that must be an instant (NumericDate: seconds since 1970, with or
    /// without a fraction).
    ///
    /// # Errors
    /// [`ClaimFault::Missing`].
    pub(super) fn instant(&self, name: &'static str) -> Result<Timestamp, ClaimFault> {
        self.0
            .get(name)
            .and_then(numeric_date)
            .ok_or(ClaimFault::Missing(name))
    }

    /// The same for a claim that may be absent.
    ///
    /// # Errors
    /// [`ClaimFault::Missing`] where it is there and no instant.
    pub(super) fn optional_instant(
        &self,
        name: &'static str,
    ) -> Result<Option<Timestamp>, ClaimFault> {
        match self.0.contains_key(name) {
            true => self.instant(name).map(Some),
            false => Ok(None),
        }
    }

    /// Checks that the token is not over: `exp`, which must be there.
    ///
    /// # Errors
    /// [`ClaimFault::Missing`], [`ClaimFault::Expired`].
    pub(super) fn require_not_expired(&self, now: Timestamp) -> Result<(), ClaimFault> {
        if now < self.instant("exp")?.plus(LEEWAY) {
            Ok(())
        } else {
            Err(ClaimFault::Expired)
        }
    }

    /// Checks that the token has begun: `nbf` and `iat`, where they are there.
    ///
    /// # Errors
    /// [`ClaimFault::Missing`], [`ClaimFault::NotYetValid`].
    pub(super) fn require_begun(&self, now: Timestamp) -> Result<(), ClaimFault> {
        for name in ["nbf", "iat"] {
            if let Some(begin) = self.optional_instant(name)?
                && begin > now.plus(LEEWAY)
            {
                return Err(ClaimFault::NotYetValid);
            }
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
}

fn numeric_date(value: &Value) -> Option<Timestamp> {
    const MICROSECONDS: i64 = 1_000_000;
    /// The last second of the year 9999, where the calendar ends.
    const LAST: f64 = 253_402_300_799.0;
    if let Some(seconds) = value.as_i64() {
        return Timestamp::from_microseconds(seconds.checked_mul(MICROSECONDS)?);
    }
    let seconds = value.as_f64().filter(|seconds| seconds.abs() <= LAST)?;
    // Within the bounds above a microsecond more or less is all that is lost.
    Timestamp::from_microseconds((seconds * 1e6) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        Claims::verified(value.as_object().expect("an object").clone())
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().expect("valid")
    }

    const NOW: i64 = 1_772_366_400;

    #[test]
    fn a_text_must_be_one_that_can_be_written_down() {
        for value in [
            json!(null),
            json!(""),
            json!(7),
            json!(["a"]),
            json!("a\nb"),
            json!("a\u{0}"),
            json!("x".repeat(257)),
        ] {
            let read = claims(json!({ "sub": value }));
            assert_eq!(read.text("sub"), Err(ClaimFault::Missing("sub")));
        }
        assert_eq!(claims(json!({ "sub": "ä" })).text("sub"), Ok("ä"));
        assert_eq!(
            claims(json!({})).text("sub"),
            Err(ClaimFault::Missing("sub"))
        );
    }

    #[test]
    fn an_audience_is_one_text_or_a_list_of_texts() {
        assert_eq!(claims(json!({ "aud": "a" })).texts("aud"), Ok(vec!["a"]));
        let two = claims(json!({ "aud": ["a", "b"] }));
        assert_eq!(two.texts("aud"), Ok(vec!["a", "b"]));
        for value in [json!(1), json!(["a", 1]), json!({})] {
            assert!(claims(json!({ "aud": value })).texts("aud").is_err());
        }
    }

    #[test]
    fn instants_are_numbers_within_the_calendar() {
        for (value, micros) in [
            (json!(NOW), NOW * 1_000_000),
            (json!(1.5), 1_500_000),
            (json!(-1), -1_000_000),
        ] {
            let read = claims(json!({ "exp": value })).instant("exp");
            assert_eq!(read.map(Timestamp::microseconds), Ok(micros));
        }
        for value in [
            json!("1772366400"),
            json!(null),
            json!(true),
            json!(1e300),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(999_999_999_999_999_i64),
        ] {
            let read = claims(json!({ "exp": value })).instant("exp");
            assert_eq!(read, Err(ClaimFault::Missing("exp")), "{value}");
        }
    }

    #[test]
    fn a_token_is_over_with_exp_and_the_leeway() {
        for (exp, expected) in [
            (NOW - 29, Ok(())),
            (NOW - 30, Err(ClaimFault::Expired)),
            (0, Err(ClaimFault::Expired)),
        ] {
            let checked = claims(json!({ "exp": exp })).require_not_expired(now());
            assert_eq!(checked, expected, "{exp}");
        }
        let none = claims(json!({})).require_not_expired(now());
        assert_eq!(none, Err(ClaimFault::Missing("exp")));
    }

    #[test]
    fn a_token_begins_with_nbf_and_iat_and_the_leeway() {
        for name in ["nbf", "iat"] {
            for (begin, expected) in [
                (json!(NOW + 30), Ok(())),
                (json!(NOW + 31), Err(ClaimFault::NotYetValid)),
                (json!("soon"), Err(ClaimFault::Missing(name))),
            ] {
                let checked = claims(json!({ name: begin })).require_begun(now());
                assert_eq!(checked, expected, "{name}");
            }
        }
        assert_eq!(claims(json!({})).require_begun(now()), Ok(()));
    }
}
