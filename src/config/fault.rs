//! What is wrong with a configuration, as one message an operator can act on.
//!
//! It knows names and expectations and never a value: whatever a setting was
//! given may be a secret in the wrong place.

use std::fmt;

/// Everything that keeps a configuration from being used, all of it at once.
#[derive(Debug)]
pub struct ConfigFaults {
    faults: Vec<Fault>,
}

impl ConfigFaults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }

    /// How many faults there are; at least one.
    pub fn count(&self) -> usize {
        self.faults.len()
    }

    /// The settings at fault by their dotted names, in the order of the message.
    pub fn settings(&self) -> impl Iterator<Item = &str> {
        self.faults.iter().map(Fault::setting)
    }
}

impl fmt::Display for ConfigFaults {
    /// One heading line, then one line a fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => f.write_str("the configuration has 1 fault:")?,
            count => write!(f, "the configuration has {count} faults:")?,
        }
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Fault {
    setting: String,
    origin: Option<String>,
    what: String,
}

impl Fault {
    /// A fault of `setting`: what was expected, or how to mend it.
    pub(super) fn new(setting: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            origin: None,
            what: what.into(),
        }
    }

    /// The same, with the file or the variable that the value came from.
    pub(super) fn from(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    pub(super) fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match &self.origin {
            Some(origin) => format!("{} ({origin}): {}", self.setting, self.what),
            None => format!("{}: {}", self.setting, self.what),
        };
        f.write_str(&one_line(&line))
    }
}

/// Control characters replaced: names of unknown settings and paths are the
/// writer's, and must neither break the line nor steer a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_a_heading_and_one_line_a_fault() {
        let faults = ConfigFaults::new(vec![
            Fault::new("server.listen", "expected an address").from("KMS__SERVER__LISTEN"),
            Fault::new("tls.client_ca", "set it"),
        ]);
        assert_eq!(
            faults.to_string(),
            "the configuration has 2 faults:\n  \
             server.listen (KMS__SERVER__LISTEN): expected an address\n  \
             tls.client_ca: set it"
        );
    }

    #[test]
    fn a_name_with_control_characters_stays_on_its_line() {
        let fault = Fault::new("a\n\u{1b}[2Jb", "unknown setting");
        assert_eq!(fault.to_string(), "a\u{fffd}\u{fffd}[2Jb: unknown setting");
    }
}
