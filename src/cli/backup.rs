//! `kms backup`: a snapshot of the store in a file, beside a running service or
//! without one.
//!
//! It knows where each file lies and what is to be said of it. How a snapshot is
//! taken is the store's matter.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::fault::{Fault, exit, load_config};
use super::owner;
use crate::adapters::data_plane::sqlite::snapshot::{self, StoreSummary};
use crate::app::kek::KekFiles;
use crate::app::{LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::config::{Config, StoreUrl};

/// Standard output, in the place of a file's name.
const STANDARD_OUTPUT: &str = "-";

/// The file beside the store that a snapshot passes through on its way out.
const PASSING: &str = "backup.passing";

/// What `kms backup` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The file to write, which must not be there yet; - is standard output, and the
    /// report goes to standard error then.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Takes the backup. Exits with 1 when there is none, and 64 for a faulty
/// configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    exit(load_config(config_dir).and_then(|config| {
        let database = store_file(&config)?;
        if arguments.out.as_os_str() == STANDARD_OUTPUT {
            return pour_out(&config, database);
        }
        let summary =
            snapshot::take(database, &arguments.out).map_err(|fault| Fault::caused(&fault))?;
        let size = fs::metadata(&arguments.out)?.len();
        let told = arguments.out.display();
        let mut stdout = io::stdout().lock();
        report(&config, database, &told, size, &summary, &mut stdout)?;
        Ok(())
    }))
}

/// Writes the snapshot to standard output, for where nothing can be copied out of: a
/// container without a shell. It is made beside the store, whole and checked, first.
fn pour_out(config: &Config, database: &Path) -> Result<(), Fault> {
    owner::is_ours(database)?;
    if io::stdout().is_terminal() {
        return Err(Fault::arguments(
            "--out -: standard output is a terminal, and a backup is no text: lead it into a file \
             or a pipe",
        ));
    }
    let passing = database.with_file_name(PASSING);
    let fault = |error: io::Error| Fault::failed(format_args!("{}: {error}", passing.display()));
    // What one that was killed has left behind.
    match fs::remove_file(&passing) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let summary = snapshot::take(database, &passing).map_err(|fault| Fault::caused(&fault))?;
    let mut snapshot = fs::File::open(&passing).map_err(fault)?;
    // It is as secret as the store beside it, and gone with this process from here on.
    fs::remove_file(&passing).map_err(fault)?;
    let mut stdout = io::stdout().lock();
    let size = io::copy(&mut snapshot, &mut stdout)
        .and_then(|size| stdout.flush().map(|()| size))
        .map_err(|error| {
            Fault::failed(format_args!(
                "standard output did not take the backup: {error}"
            ))
        })?;
    let told = "standard output";
    report(
        config,
        database,
        &told,
        size,
        &summary,
        &mut io::stderr().lock(),
    )?;
    Ok(())
}

/// The file of the configured store.
pub(super) fn store_file(config: &Config) -> Result<&Path, Fault> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(path),
        StoreUrl::Memory => Err(Fault::failed(
            "store.url is memory: such a store is gone with its process, and has no file",
        )),
        StoreUrl::Postgres(_) => Err(Fault::failed(
            "store.url is of PostgreSQL, which has tools of its own for this",
        )),
    }
}

fn report(
    config: &Config,
    database: &Path,
    out: &dyn Display,
    bytes: u64,
    summary: &StoreSummary,
    stdout: &mut impl Write,
) -> io::Result<()> {
    writeln!(stdout, "backup: {out} ({bytes} bytes)")?;
    writeln!(stdout, "ledger: {} receipts", summary.receipts)?;
    if let Some(note) = &summary.newest_checkpoint {
        writeln!(stdout, "newest checkpoint:\n{note}")?;
    }
    writeln!(
        stdout,
        "The keys in it are sealed, and what opens them is not in it. Keep these apart from it, \
         as secrets:"
    )?;
    for (file, what) in secrets(config) {
        writeln!(stdout, "  {}  {what}", file.display())?;
    }
    if !summary.archives.is_empty() {
        writeln!(
            stdout,
            "Older receipts were moved to these files, which do not change. Back them up as well:"
        )?;
        for file in summary.archives_of(database) {
            let is_there = file.try_exists().unwrap_or(false);
            let missing = if is_there { "" } else { "  (missing)" };
            writeln!(stdout, "  {}{missing}", file.display())?;
        }
    }
    stdout.flush()
}

/// The files of secrets that a backup does not hold.
fn secrets(config: &Config) -> Vec<(PathBuf, &'static str)> {
    let next_kek = KekFiles::of(config).next();
    let next = config.data_dir.join(NEXT_LEDGER_KEY_FILE);
    let mut files = vec![
        (
            config.kek_file(),
            "the key-encryption key, without which no key in the backup opens",
        ),
        (
            config.data_dir.join(LEDGER_KEY_FILE),
            "the key that signs the ledger",
        ),
    ];
    if next_kek.try_exists().unwrap_or(false) {
        files.push((
            next_kek,
            "the key-encryption key that is to take its place, and that keys in the backup may \
             be sealed under",
        ));
    }
    if next.try_exists().unwrap_or(false) {
        files.push((next, "the key that is to sign the ledger next"));
    }
    files
}
