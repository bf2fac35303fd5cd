//! `kms hsm …`: looking at the HSM from outside the service.

mod check;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

/// What can be done.
#[derive(Subcommand)]
pub(super) enum HsmCommand {
    /// Looks at the configured token: what is there, what it can do, whether the PIN
    /// opens it, and a round trip of each operation with keys that are destroyed
    /// again. Tries the PIN once.
    Check,
}

/// Does it.
pub(super) fn run(command: &HsmCommand, config_dir: Option<PathBuf>) -> ExitCode {
    match command {
        HsmCommand::Check => check::run(config_dir),
    }
}
