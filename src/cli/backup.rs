//! `kms backup`: a snapshot of the store in a file, beside a running service or
//! without one.
//!
//! It knows where each file lies and what is to be said of it. How a snapshot is
//! taken is the store's matter.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::fault::{Fault, exit, load_config};
use crate::adapters::data_plane::sqlite::snapshot::{self, StoreSummary};
use crate::app::kek::KekFiles;
use crate::app::{LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::config::{Config, StoreUrl};

/// What `kms backup` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Takes the backup. Exits with 1 when there is none, and 64 for a faulty
/// configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    exit(load_config(config_dir).and_then(|config| {
        let database = store_file(&config)?;
        let summary =
            snapshot::take(database, &arguments.out).map_err(|fault| Fault::caused(&fault))?;
        let size = fs::metadata(&arguments.out)?.len();
        let mut stdout = io::stdout().lock();
        report(
            &config,
            database,
            &arguments.out,
            size,
            &summary,
            &mut stdout,
        )?;
        Ok(())
    }))
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
    out: &Path,
    bytes: u64,
    summary: &StoreSummary,
    stdout: &mut impl Write,
) -> io::Result<()> {
    writeln!(stdout, "backup: {} ({bytes} bytes)", out.display())?;
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
