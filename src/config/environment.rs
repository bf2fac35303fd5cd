//! The name of the environment the service runs in.
//!
//! It decides which files are read and which rules hold; what those are is not
//! known here.

use std::fmt;
use std::str::FromStr;

/// A deployment's name: 1 to 32 of `a-z`, `0-9` and `-`. Not the `environment`
/// of a key's scope, which callers send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    /// The environment where nothing is set up: plain HTTP, on this machine.
    pub fn development() -> Self {
        Self("development".to_owned())
    }

    /// Whether this is `development`.
    pub fn is_development(&self) -> bool {
        self.0 == "development"
    }

    /// Whether this is `production`.
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a text that is not an [`EnvironmentName`] gets told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected 1 to 32 lower-case letters, digits and hyphens, such as development or production"
)]
pub struct InvalidEnvironmentName;

impl FromStr for EnvironmentName {
    type Err = InvalidEnvironmentName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidEnvironmentName)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_short() {
        for text in ["development", "staging-2", "a", &"x".repeat(32)] {
            assert!(text.parse::<EnvironmentName>().is_ok(), "{text}");
        }
        // A name becomes part of a path, and `Production` must not pass as something else.
        for text in ["", "Production", "../etc", "a b", "ü", &"x".repeat(33)] {
            assert!(text.parse::<EnvironmentName>().is_err(), "{text}");
        }
    }

    #[test]
    fn development_and_production_know_themselves() {
        let production: EnvironmentName = "production".parse().expect("a name");
        assert!(production.is_production() && !production.is_development());
        let development = EnvironmentName::development();
        assert!(development.is_development() && !development.is_production());
    }
}
