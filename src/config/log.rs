//! `log.*`: what is logged, and in which form.
//!
//! It knows the choices, and nothing of the logging library.

use super::reader::Reader;
use super::value::choice;

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe line that is written.
    pub level: LogLevel,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How severe a line is, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is about to fail, or was refused.
    Warn,
    /// What happened.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl Log {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let formats = choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let levels = choice(&[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ]);
        Self {
            format: reader.take("log.format", formats),
            level: reader.take("log.level", levels),
        }
    }
}
