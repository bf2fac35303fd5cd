//! `kms ledger public-key`: the keys that receipts and checkpoints are checked with.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{complain, config, database, failed, written};
use crate::adapters::data_plane::sqlite::LedgerCopy;
use crate::adapters::ledger::LedgerSigner;
use crate::app::LEDGER_KEY_FILE;
use crate::domain::ledger::{ORIGIN, VerifierKey};
use crate::ports::ledger_source::LedgerSource as _;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The data folder; the configuration's where it is not named.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Prints every key that ever signed, the first one first.
    #[arg(long)]
    all: bool,
}

/// Prints verifier keys. Needs the data folder and no running service.
pub(super) fn run(
    arguments: &Arguments,
    config_dir: Option<PathBuf>,
) -> Result<ExitCode, ExitCode> {
    let folder = match &arguments.data_dir {
        Some(folder) => folder.clone(),
        None => config(config_dir.clone())?.data_dir,
    };
    let path = folder.join(LEDGER_KEY_FILE);
    let in_file = match arguments.all {
        true => None,
        false => LedgerSigner::load(&path).map_err(|fault| failed(&fault))?,
    };
    let keys = match in_file {
        Some(signer) => vec![signer.verifier_key()],
        None => {
            let database = database(arguments.data_dir.as_deref(), config_dir)?;
            if !arguments.all && !database.exists() {
                complain(format_args!(
                    "{}: no such file; the service makes it on its first start",
                    path.display()
                ));
                return Err(ExitCode::FAILURE);
            }
            stored(&database, arguments.all)?
        }
    };
    let mut stdout = io::stdout().lock();
    written(
        keys.iter()
            .try_for_each(|key| writeln!(stdout, "{key}"))
            .and_then(|()| stdout.flush()),
    )
}

/// The keys that the store knows: all of them, or the newest.
fn stored(database: &std::path::Path, all: bool) -> Result<Vec<VerifierKey>, ExitCode> {
    let keys = LedgerCopy::open(database)
        .and_then(|mut copy| copy.keys())
        .map_err(|fault| failed(&fault))?;
    let Some(before_newest) = keys.len().checked_sub(1) else {
        complain(format_args!(
            "{} knows no key of the ledger yet",
            database.display()
        ));
        return Err(ExitCode::FAILURE);
    };
    let skipped = if all { 0 } else { before_newest };
    Ok(keys
        .iter()
        .skip(skipped)
        .map(|key| VerifierKey::new(ORIGIN, key.public_key))
        .collect())
}
