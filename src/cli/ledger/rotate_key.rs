//! `kms ledger rotate-key`: a new key for the ledger, laid where the service looks.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{complain, config, failed, written};
use crate::adapters::ledger::LedgerSigner;
use crate::app::{LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::cli::owner;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The data folder; the configuration's where it is not named.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Makes the key and prints its verifier key. The service does the rest, by itself.
pub(super) fn run(
    arguments: &Arguments,
    config_dir: Option<PathBuf>,
) -> Result<ExitCode, ExitCode> {
    let folder = match &arguments.data_dir {
        Some(folder) => folder.clone(),
        None => config(config_dir)?.data_dir,
    };
    let (current, next) = (
        folder.join(LEDGER_KEY_FILE),
        folder.join(NEXT_LEDGER_KEY_FILE),
    );
    if !current.exists() {
        complain(format_args!(
            "{}: no such file; the service makes it on its first start",
            current.display()
        ));
        return Err(ExitCode::FAILURE);
    }
    if let Err(fault) = owner::is_ours(&current) {
        complain(fault);
        return Err(ExitCode::FAILURE);
    }
    if next.exists() {
        complain(format_args!(
            "{} waits to take over already: a running service does it within seconds, and logs \
             what keeps it from that; one that starts does it then",
            next.display()
        ));
        return Err(ExitCode::FAILURE);
    }
    let signer = LedgerSigner::create(&next).map_err(|fault| failed(&fault))?;
    complain(format_args!(
        "{} takes over within seconds where the service runs, or else when it starts, and becomes \
         {}. Back it up, and give the key below to whoever checks the ledger.",
        next.display(),
        current.display()
    ));
    let mut stdout = io::stdout().lock();
    written(writeln!(stdout, "{}", signer.verifier_key()).and_then(|()| stdout.flush()))
}
