//! `kms ledger …`: looking at the evidence ledger, one file a command.

mod archive;
mod export;
mod public_key;
mod rotate_key;
mod verify;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::FAULTY_CONFIGURATION;
use crate::adapters::data_plane::sqlite::LedgerCopy;
use crate::adapters::ledger::{AuditFailure, AuditProgress, AuditReport, audit};
use crate::config::{Config, Source, StoreUrl};
use crate::domain::ledger::{ORIGIN, VerifierKey};

/// The database in a data folder.
const DATABASE: &str = "kms.db";

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Prints the key that receipts are checked with, as a verifier key
    /// (name+hash+key).
    PublicKey(public_key::Arguments),
    /// Writes receipts as JSON lines, each with the proof that it is in the tree of
    /// the newest checkpoint.
    Export(export::Arguments),
    /// Makes a new key for the ledger and lets it take over; prints its verifier key.
    RotateKey(rotate_key::Arguments),
    /// Checks a whole ledger: every signature, every hash, the tree, the
    /// checkpoints and the keys.
    ///
    /// Exits with 0 where it verifies, 1 where it does not or cannot be read.
    Verify(Box<verify::Arguments>),
    /// Moves old receipts out of the store to a file, beside a running service too.
    Archive(archive::Arguments),
}

/// Does what the command says.
pub(super) fn run(command: LedgerCommand, config_dir: Option<PathBuf>) -> ExitCode {
    let done = match command {
        LedgerCommand::PublicKey(arguments) => public_key::run(&arguments, config_dir),
        LedgerCommand::Export(arguments) => export::run(&arguments, config_dir),
        LedgerCommand::RotateKey(arguments) => rotate_key::run(&arguments, config_dir),
        LedgerCommand::Verify(arguments) => verify::run(&arguments, config_dir),
        LedgerCommand::Archive(arguments) => Ok(archive::run(config_dir, &arguments)),
    };
    done.unwrap_or_else(|code| code)
}

/// Checks the ledger in the database of a data folder, of a service that runs or
/// of a copy. Writes nothing. Without a key to trust, the ledger's own are taken;
/// `since` is the text of a checkpoint that was kept elsewhere.
///
/// # Errors
/// [`AuditFailure`].
pub(crate) fn audit_folder(
    database: &Path,
    trusted: &[VerifierKey],
    since: Option<&str>,
    mut progress: impl FnMut(AuditProgress),
) -> Result<AuditReport, AuditFailure> {
    let mut copy = LedgerCopy::open(database)?;
    audit(&mut copy, trusted, since, &mut progress)
}

/// The configuration of this process, or the exit code for a faulty one.
fn config(config_dir: Option<PathBuf>) -> Result<Config, ExitCode> {
    match Config::load(&Source::from_process(config_dir)) {
        Ok(loaded) => Ok(loaded.config),
        Err(faults) => {
            complain(faults);
            Err(ExitCode::from(FAULTY_CONFIGURATION))
        }
    }
}

/// The database in the given folder, or else in the configuration's.
fn database(data_dir: Option<&Path>, config_dir: Option<PathBuf>) -> Result<PathBuf, ExitCode> {
    if let Some(folder) = data_dir {
        return Ok(folder.join(DATABASE));
    }
    match config(config_dir)?.store.url {
        StoreUrl::Sqlite(path) => Ok(path),
        StoreUrl::Postgres(_) | StoreUrl::Memory => {
            complain("store.url is not a file: name the folder or the service to look at");
            Err(ExitCode::FAILURE)
        }
    }
}

/// A key of this ledger, from an argument.
fn verifier_key(text: &str) -> Result<VerifierKey, String> {
    let key: VerifierKey = text.parse().map_err(|error| format!("{error}"))?;
    match key.name() {
        ORIGIN => Ok(key),
        other => Err(format!(
            "a key of {other}, and the ledger is named {ORIGIN}"
        )),
    }
}

fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// An error with its causes, on one line.
fn failed(error: &dyn Error) -> ExitCode {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    complain(line);
    ExitCode::FAILURE
}

/// What became of writing to standard output.
fn written(result: io::Result<()>) -> Result<ExitCode, ExitCode> {
    result
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| failed(&error))
}
