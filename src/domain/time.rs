//! Instants and periods as they appear on the wire and in the configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::wire::WireField;

/// An instant in UTC with microsecond resolution, written as RFC 3339 with six
/// digits of a second and `Z`.
///
/// Microseconds, because the store keeps microseconds: an instant reads back
/// exactly as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// How instants are written on the wire, as a regular expression (ECMA-262).
    pub const PATTERN: &'static str =
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z$";

    /// The beginning of the calendar.
    pub const EARLIEST: Self = Self(jiff::Timestamp::MIN);

    /// The instant `microseconds` after 1970-01-01T00:00:00Z, or `None` where
    /// the calendar ends (the year 9999).
    pub fn from_microseconds(microseconds: i64) -> Option<Self> {
        jiff::Timestamp::from_microsecond(microseconds)
            .ok()
            .map(Self)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn microseconds(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Whole days since 1970-01-01 in UTC, which is how the daily limits count.
    pub fn utc_day(self) -> i64 {
        self.0.as_second().div_euclid(86_400)
    }

    /// The time left until the next UTC midnight.
    pub fn until_next_utc_day(self) -> Duration {
        let into_day = self.0.as_second().rem_euclid(86_400);
        Duration::from_secs(u64::try_from(86_400 - into_day).unwrap_or(86_400))
    }

    /// This instant plus a period, saturating at the end of the calendar.
    pub fn plus(self, period: Period) -> Self {
        let later = self
            .0
            .checked_add(SignedDuration::try_from(period.0).unwrap_or(SignedDuration::MAX))
            .unwrap_or(jiff::Timestamp::MAX);
        Self::from_microseconds(later.as_microsecond()).unwrap_or(self)
    }
}

impl Timestamp {
    /// This instant plus a length of time, saturating at the end of the calendar.
    pub fn plus_duration(self, length: Duration) -> Self {
        self.plus(Period(length))
    }

    /// The next UTC midnight.
    pub fn next_utc_day(self) -> Self {
        let midnight = (self.utc_day() + 1).saturating_mul(86_400_000_000);
        Self::from_microseconds(midnight).unwrap_or(self)
    }

    /// This instant less a length of time, saturating where the calendar begins.
    pub fn minus(self, length: Duration) -> Self {
        let microseconds = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        let earlier = self.microseconds().saturating_sub(microseconds);
        Self::from_microseconds(earlier).unwrap_or(Self(jiff::Timestamp::MIN))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(instant: jiff::Timestamp) -> Self {
        // Truncated, so that what was written is what is read back.
        Self::from_microseconds(instant.as_microsecond()).unwrap_or(Self(instant))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Always six digits, so that instants sort as texts too.
        write!(f, "{:.6}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(Self::from)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        // The library reads more than RFC 3339 in UTC, which is all that the wire has.
        let is_utc = text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T');
        let read = is_utc.then(|| text.parse().ok()).flatten();
        read.ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
    }
}

impl WireField for Timestamp {
    const EXPECTED: &'static str = "a time in UTC such as 2026-03-01T12:00:00Z (RFC 3339)";
}

/// A length of time, read as an ISO 8601 duration (`P90D`, `PT30S`) or in the
/// short form (`30s`, `7d`). A day is 24 hours: keys live by the clock and not
/// by a calendar, so months and years are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// How periods are written, as a regular expression (ECMA-262).
    pub const PATTERN: &'static str =
        r"^P(?:[0-9]+D)?(?:T(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]+)?S)?)?$";

    /// A period of so many days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 86_400))
    }

    /// A period of so many microseconds, which is how stores keep them.
    pub const fn microseconds(microseconds: u64) -> Self {
        Self(Duration::from_micros(microseconds))
    }

    /// A period of so many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same without what is less than a microsecond, which no store keeps.
    pub fn in_whole_microseconds(self) -> Self {
        let whole = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        Self::microseconds(whole)
    }

    /// The same as the standard library's type.
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

/// What a text that is not a [`Period`] gets told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as P90D, PT30S or 30s, in days of 24 hours or less")]
pub struct InvalidPeriod;

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span: Span = text.trim().parse().map_err(|_| InvalidPeriod)?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(InvalidPeriod);
        }
        span.to_duration(SpanRelativeTo::days_are_24_hours())
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .map(Self)
            .ok_or(InvalidPeriod)
    }
}

impl fmt::Display for Period {
    /// ISO 8601, in the largest units: `P90D`, `PT1H30M`, `P1DT12H`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        f.write_str("P")?;
        if days > 0 {
            write!(f, "{days}D")?;
        }
        if hours > 0 || minutes > 0 || seconds > 0 || nanoseconds > 0 || days == 0 {
            f.write_str("T")?;
        }
        if hours > 0 {
            write!(f, "{hours}H")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}M")?;
        }
        if nanoseconds > 0 {
            let fraction = format!("{nanoseconds:09}");
            write!(f, "{seconds}.{}S", fraction.trim_end_matches('0'))?;
        } else if seconds > 0 || self.0.is_zero() {
            write!(f, "{seconds}S")?;
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_ends_in_z_and_reads_back() {
        let instant: Timestamp = "2026-03-01T10:20:30.123456Z".parse().expect("a timestamp");
        assert_eq!(instant.to_string(), "2026-03-01T10:20:30.123456Z");
        assert_eq!(
            Timestamp::from_microseconds(instant.microseconds()),
            Some(instant)
        );
    }

    #[test]
    fn instants_sort_as_texts() {
        let whole: Timestamp = "2026-03-01T10:20:30Z".parse().expect("valid");
        assert_eq!(whole.to_string(), "2026-03-01T10:20:30.000000Z");
    }

    #[test]
    fn nanoseconds_are_cut_so_that_the_store_gives_back_the_same_instant() {
        let instant: Timestamp = "2026-03-01T10:20:30.123456789Z".parse().expect("valid");
        assert_eq!(instant.to_string(), "2026-03-01T10:20:30.123456Z");
    }

    #[test]
    fn the_utc_day_changes_at_midnight() {
        let before: Timestamp = "2026-03-01T23:59:59.999999Z".parse().expect("valid");
        let after: Timestamp = "2026-03-02T00:00:00Z".parse().expect("valid");
        assert_eq!(before.utc_day() + 1, after.utc_day());
        assert_eq!(before.until_next_utc_day(), Duration::from_secs(1));
        assert_eq!(after.until_next_utc_day(), Duration::from_secs(86_400));
    }

    #[test]
    fn periods_read_both_forms_and_write_iso_8601() {
        for (text, seconds, iso) in [
            ("P90D", 90 * 86_400, "P90D"),
            ("7d", 7 * 86_400, "P7D"),
            ("30s", 30, "PT30S"),
            ("PT1H30M", 5_400, "PT1H30M"),
            ("P1DT12H", 129_600, "P1DT12H"),
            ("P1W", 7 * 86_400, "P7D"),
            ("PT0S", 0, "PT0S"),
        ] {
            let period: Period = text.parse().expect(text);
            assert_eq!(period.as_duration().as_secs(), seconds, "{text}");
            assert_eq!(period.to_string(), iso, "{text}");
        }
        let short: Period = "PT0.25S".parse().expect("a quarter of a second");
        assert_eq!(short.to_string(), "PT0.25S");
    }

    #[test]
    fn periods_of_uncertain_or_negative_length_are_refused() {
        for text in ["P1M", "P1Y", "-PT5S", "", "5", "soon"] {
            assert_eq!(text.parse::<Period>(), Err(InvalidPeriod), "{text:?}");
        }
    }
}
