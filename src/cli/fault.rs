//! Why a command came to nothing, as one message and an exit code.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::FAULTY_CONFIGURATION;
use crate::config::{Config, Source};

/// Exit code for wrong arguments, as the parser of arguments has it.
const WRONG_ARGUMENTS: u8 = 2;

/// Exit code for what a running service refused.
const REFUSED: u8 = 4;

/// Exit code for a service that is away or busy.
const AWAY: u8 = 5;

/// Why nothing was done.
#[derive(Debug)]
pub(super) struct Fault {
    code: u8,
    what: String,
}

impl Fault {
    /// An argument that cannot be meant.
    pub(super) fn arguments(what: impl Display) -> Self {
        Self {
            code: WRONG_ARGUMENTS,
            what: what.to_string(),
        }
    }

    /// Something that was refused, or failed.
    pub(super) fn failed(what: impl Display) -> Self {
        Self {
            code: 1,
            what: what.to_string(),
        }
    }

    /// Something that a running service refused, and will refuse again.
    pub(super) fn refused(what: impl Display) -> Self {
        Self {
            code: REFUSED,
            what: what.to_string(),
        }
    }

    /// A service that is away or busy: again later makes sense.
    pub(super) fn away(what: impl Display) -> Self {
        Self {
            code: AWAY,
            what: what.to_string(),
        }
    }

    /// Something that failed, with what was behind it.
    pub(super) fn caused(error: &dyn Error) -> Self {
        Self::failed(with_causes(error))
    }
}

/// An error and what was behind it, on one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut what = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        what.push_str(": ");
        what.push_str(&inner.to_string());
        cause = inner.source();
    }
    what
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// Standard output that is gone takes nothing back, and is not silent either.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::failed(format_args!("the output cannot be written: {error}"))
    }
}

/// The configuration of this process.
pub(super) fn load_config(config_dir: Option<PathBuf>) -> Result<Config, Fault> {
    match Config::load(&Source::from_process(config_dir)) {
        Ok(loaded) => Ok(loaded.config),
        Err(faults) => Err(Fault {
            code: FAULTY_CONFIGURATION,
            what: faults.to_string(),
        }),
    }
}

/// The exit code of what was done, or of why it was not, which is said on standard
/// error.
pub(super) fn exit(done: Result<(), Fault>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Where standard error is gone too, the exit code is left.
            let _ = writeln!(io::stderr(), "error: {fault}");
            ExitCode::from(fault.code)
        }
    }
}
