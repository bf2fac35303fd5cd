//! `kms ledger …`: looking at the evidence ledger.

pub(super) mod archive;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::FAULTY_CONFIGURATION;
use crate::adapters::ledger::LedgerSigner;
use crate::app::LEDGER_KEY_FILE;
use crate::config::{Config, Source};

/// Prints the ledger's verifier key. Needs the data folder and no running service.
pub(super) fn public_key(config_dir: Option<PathBuf>) -> ExitCode {
    let config = match Config::load(&Source::from_process(config_dir)) {
        Ok(loaded) => loaded.config,
        Err(faults) => {
            let _ = writeln!(io::stderr(), "{faults}");
            return ExitCode::from(FAULTY_CONFIGURATION);
        }
    };
    let path = config.data_dir.join(LEDGER_KEY_FILE);
    match LedgerSigner::load(&path) {
        Ok(Some(signer)) => match writeln!(io::stdout(), "{}", signer.verifier_key()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(None) => {
            let _ = writeln!(
                io::stderr(),
                "{}: no such file; the service makes it on its first start",
                path.display()
            );
            ExitCode::FAILURE
        }
        Err(fault) => {
            let cause = std::error::Error::source(&fault).map(|cause| format!(": {cause}"));
            let _ = writeln!(io::stderr(), "{fault}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
