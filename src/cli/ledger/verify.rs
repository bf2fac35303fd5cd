//! `kms ledger verify`: checks a whole ledger.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::{audit_folder, complain, database, failed, verifier_key, written};
use crate::adapters::ledger::{AuditFailure, AuditProgress, AuditReport, RemoteLedger, audit};
use crate::adapters::remote::RemoteOptions;
use crate::domain::ledger::VerifierKey;
use crate::domain::secret::SecretBytes;

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

    #[command(flatten)]
    service: Service,

    /// A key that signs or has signed the ledger (name+hash+key), as you have it
    /// from somewhere else: the newest that you know. May be given more than once;
    /// one of them has to be the ledger's.
    #[arg(long, value_name = "VKEY", value_parser = verifier_key)]
    public_key: Vec<VerifierKey>,

    /// A checkpoint that you kept: the ledger has to have grown out of it.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,

    /// Says nothing about the progress.
    #[arg(long)]
    quiet: bool,
}

/// How to speak with the service.
#[derive(Args)]
struct Service {
    /// The client's certificate with its chain, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["url", "key"])]
    cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["url", "cert"])]
    key: Option<PathBuf>,

    /// The authorities of the service's certificate, in PEM; the machine's where
    /// they are not named.
    #[arg(long, value_name = "FILE", requires = "url")]
    cacert: Option<PathBuf>,

    /// The module to ask as, without a certificate of a service in development.
    #[arg(long, value_name = "ID", default_value = "M27")]
    module: String,
}

/// Checks the ledger and prints what came of it.
pub(super) fn run(
    arguments: &Arguments,
    config_dir: Option<PathBuf>,
) -> Result<ExitCode, ExitCode> {
    let since = read(arguments.since.as_deref())?
        .map(String::from_utf8)
        .transpose()
        .map_err(|_| failed(&AuditFailure::SinceMalformed))?;
    let (trusted, since) = (arguments.public_key.as_slice(), since.as_deref());
    let mut teller = Teller::new(arguments.quiet);
    let mut progress = |progress| teller.tell(progress);
    let audited = match &arguments.url {
        Some(url) => {
            let options = arguments.service.options()?;
            RemoteLedger::connect(url, &options)
                .map_err(AuditFailure::from)
                .and_then(|mut ledger| audit(&mut ledger, trusted, since, &mut progress))
        }
        None => {
            let database = database(arguments.data_dir.as_deref(), config_dir)?;
            audit_folder(&database, trusted, since, progress)
        }
    };
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

impl Service {
    fn options(&self) -> Result<RemoteOptions, ExitCode> {
        let identity = match (read(self.cert.as_deref())?, read(self.key.as_deref())?) {
            (Some(certificate), Some(key)) => {
                let key = SecretBytes::new(key);
                let pem = [certificate.as_slice(), key.expose()].join(&b"\n"[..]);
                Some(SecretBytes::new(pem))
            }
            _ => None,
        };
        Ok(RemoteOptions {
            // A certificate says who asks.
            module: identity.is_none().then(|| self.module.clone()),
            identity,
            authorities: read(self.cacert.as_deref())?,
            ..RemoteOptions::default()
        })
    }
}

fn read(path: Option<&Path>) -> Result<Option<Vec<u8>>, ExitCode> {
    let read = path.map(|path| {
        fs::read(path).map_err(|error| {
            complain(format_args!("{}: {error}", path.display()));
            ExitCode::FAILURE
        })
    });
    read.transpose()
}

fn warn_of_own_keys(report: &AuditReport) {
    let first = report.keys.first().map(ToString::to_string);
    complain(format_args!(
        "warning: no --public-key was given, so the keys were taken from the ledger itself, which \
         proves only that it agrees with itself. Its first key, to compare with one that you have \
         from elsewhere: {}",
        first.unwrap_or_default()
    ));
}

fn print(report: &AuditReport, out: &mut impl Write) -> io::Result<()> {
    let size = report.checkpoint.size;
    writeln!(out, "verified: {} receipts", size - report.by_tree_alone)?;
    if report.by_tree_alone > 0 {
        writeln!(
            out,
            "verified by the tree alone: {} receipts that are not there to be read: {}",
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
