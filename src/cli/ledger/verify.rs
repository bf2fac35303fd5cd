//! `kms ledger verify`: checks a whole ledger.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::{audit_folder, complain, database, failed, verifier_key, written};
use crate::adapters::ledger::{AuditFailure, AuditProgress, AuditReport};
use crate::domain::ledger::VerifierKey;

/// How often the progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The folder with the ledger, a copy or a running service's; the
    /// configuration's where nothing is named.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data_dir: Option<PathBuf>,

    /// The address of a running service.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The key that signs the ledger (name+hash+key), as you have it from
    /// somewhere else. After a change of keys, the newest that you know; may be
    /// given more than once.
    #[arg(long, value_name = "VKEY", value_parser = verifier_key)]
    public_key: Vec<VerifierKey>,

    /// A checkpoint that you kept: the ledger has to have grown out of it.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,

    /// Says nothing about the progress.
    #[arg(long)]
    quiet: bool,
}

/// Checks the ledger and prints what came of it.
pub(super) fn run(
    arguments: &Arguments,
    config_dir: Option<PathBuf>,
) -> Result<ExitCode, ExitCode> {
    let since = match &arguments.since {
        None => None,
        Some(path) => Some(fs::read_to_string(path).map_err(|error| {
            complain(format_args!("{}: {error}", path.display()));
            ExitCode::FAILURE
        })?),
    };
    let mut teller = Teller::new(arguments.quiet);
    let progress = |progress| teller.tell(progress);
    let database = database(arguments.data_dir.as_deref(), config_dir)?;
    let audited = audit_folder(&database, &arguments.public_key, since.as_deref(), progress);
    match audited {
        Ok(report) => {
            if arguments.public_key.is_empty() {
                warn_of_own_keys(&report);
            }
            written(print(&report, &mut io::stdout().lock()))
        }
        Err(AuditFailure::Flawed {
            flaw,
            first_bad,
            held,
        }) => {
            let mut stdout = io::stdout().lock();
            let _ = writeln!(
                stdout,
                "not verified: {flaw}\nfirst bad index: {first_bad}\n\
                 under a checkpoint that holds: {held} receipts"
            )
            .and_then(|()| stdout.flush());
            Err(ExitCode::FAILURE)
        }
        Err(failure) => Err(failed(&failure)),
    }
}

fn warn_of_own_keys(report: &AuditReport) {
    let newest = report.keys.last().map(ToString::to_string);
    let first = report.keys.first().map(ToString::to_string);
    complain(format_args!(
        "warning: the keys were taken from the ledger itself, which proves only that it agrees \
         with itself. Compare its first key, {}, and give --public-key {}",
        first.unwrap_or_default(),
        newest.unwrap_or_default()
    ));
}

fn print(report: &AuditReport, out: &mut impl Write) -> io::Result<()> {
    let size = report.checkpoint.size;
    writeln!(out, "verified: {} receipts", size - report.by_tree_alone)?;
    if report.by_tree_alone > 0 {
        writeln!(
            out,
            "verified by the tree alone: {} receipts in archives that are not there: {}",
            report.by_tree_alone,
            report.away.join(", ")
        )?;
    }
    writeln!(out, "size: {size}\nroot: {}", report.checkpoint.root)?;
    for key in &report.keys {
        writeln!(out, "key: {key}")?;
    }
    writeln!(
        out,
        "checkpoints: the newest and {} on the way",
        report.kept_checkpoints
    )?;
    if let Some(since) = report.since {
        writeln!(out, "grown out of the given checkpoint: {}", since.size)?;
    }
    out.flush()
}

/// Tells the progress now and then.
struct Teller {
    quiet: bool,
    started: Instant,
    told: Instant,
}

impl Teller {
    fn new(quiet: bool) -> Self {
        let started = Instant::now();
        Self {
            quiet,
            started,
            told: started,
        }
    }

    fn tell(&mut self, progress: AuditProgress) {
        if self.quiet || self.told.elapsed() < TOLD_EVERY {
            return;
        }
        self.told = Instant::now();
        let rate = progress.receipts as f64 / self.started.elapsed().as_secs_f64();
        complain(format_args!(
            "{} of {} receipts, {rate:.0}/s",
            progress.receipts, progress.of
        ));
    }
}
