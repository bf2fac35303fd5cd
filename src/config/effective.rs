//! The configuration in effect, for an operator to read.
//!
//! It holds what settings are written as, secrets already masked, and never the
//! values themselves.

use std::fmt;

use super::fault::one_line;

/// One line a setting, readable as TOML: `server.listen = "127.0.0.1:8002"  # default`.
/// What comes after the `#` is the file or the variable that the value is from.
pub struct Effective {
    environment: Option<(String, &'static str)>,
    lines: Vec<Line>,
}

/// One setting.
pub(super) struct Line {
    pub(super) name: &'static str,
    /// The TOML literal; `None` where the setting isn't set.
    pub(super) shown: Option<String>,
    pub(super) origin: String,
    /// Whether somebody set it, and not only to what it is anyway.
    pub(super) chosen: bool,
}

impl Effective {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self {
            environment: None,
            lines,
        }
    }

    /// The same with the environment's name on top. It is no setting of a file,
    /// so it is shown as a comment.
    pub(super) fn of_environment(mut self, name: &str, origin: &'static str) -> Self {
        self.environment = Some((name.to_owned(), origin));
        self
    }

    /// Where the value of a setting comes from; `None` where it isn't set or wasn't read.
    pub(super) fn origin(&self, name: &str) -> Option<&str> {
        if name == "environment" {
            return self.environment.as_ref().map(|(_, origin)| *origin);
        }
        self.line(name)
            .filter(|line| line.shown.is_some())
            .map(|line| line.origin.as_str())
    }

    /// Whether somebody set this setting.
    pub(super) fn is_chosen(&self, name: &str) -> bool {
        self.line(name).is_some_and(|line| line.chosen)
    }

    fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.name == name)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, origin)) = &self.environment {
            writeln!(f, "# environment: {name} ({origin})")?;
        }
        for line in &self.lines {
            let (name, origin) = (line.name, one_line(&line.origin));
            match &line.shown {
                Some(shown) => writeln!(f, "{name} = {shown}  # {origin}")?,
                None => writeln!(f, "# {name} is not set")?,
            }
        }
        Ok(())
    }
}
