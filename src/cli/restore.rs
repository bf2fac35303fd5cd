//! `kms restore`: makes a backup the store, where there is none, once the whole
//! ledger in it has been gone through.

mod known;
mod secrets;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use self::known::{KnownCheckpoints, move_aside};
use self::secrets::{Secrets, trusted_key};
use super::backup::store_file;
use super::fault::{Fault, exit, load_config};
use super::ledger::audit_folder;
use super::owner;
use super::rekey::secrets_by_kek;
use crate::adapters::data_plane::sqlite::restoration::Restoration;
use crate::adapters::data_plane::sqlite::snapshot::{self, StoreSummary, Thoroughness};
use crate::adapters::ledger::{AuditFailure, AuditProgress, AuditReport};
use crate::config::Config;
use crate::domain::ledger::VerifierKey;

/// How often the progress is said.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What `kms restore` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The backup, made by `kms backup`.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// A checkpoint of the ledger that you kept: one that is older is refused.
    #[arg(long, value_name = "CHECKPOINT_FILE")]
    since: Option<PathBuf>,
    /// Takes a backup that is older than --since or the data folder's
    /// ledger.checkpoint. The receipts after it are lost, and whoever kept a newer
    /// checkpoint will find the ledger inconsistent.
    #[arg(long)]
    allow_older: bool,
}

/// Restores. Exits with 1 where that is refused or fails, 2 for wrong arguments and
/// 64 for a faulty configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    exit(load_config(config_dir).and_then(|config| {
        restore(
            &config,
            arguments,
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )
    }))
}

fn restore(
    config: &Config,
    arguments: &Arguments,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), Fault> {
    let database = store_file(config)?;
    let from = &arguments.from;
    let known = KnownCheckpoints::read(&config.data_dir, arguments.since.as_deref())?;
    let mut restoration = begin(config, database)?;

    let backup = snapshot::look_at(from, Thoroughness::Pages).map_err(|f| Fault::caused(&f))?;
    let newer = known.newer_than(backup.receipts);
    if let Some(newest) = newer.first()
        && !arguments.allow_older
    {
        return Err(newest.refusal(from, backup.receipts));
    }
    let copy = restoration
        .copy_from(from)
        .map_err(|fault| Fault::caused(&fault))?;
    let secrets = Secrets::of(config);
    let trusted = trusted_key(&secrets, &backup);
    let report = verify(
        copy,
        from,
        trusted.as_slice(),
        &known,
        backup.receipts,
        stderr,
    )?;
    restoration
        .finish()
        .map_err(|fault| Fault::caused(&fault))?;
    // After that: until then the next try has to be held to it too.
    let superseded = match known.in_data_folder() {
        Some(file) if newer.iter().any(|one| one.path == file) => Some(move_aside(file)?),
        _ => None,
    };

    for one in &newer {
        writeln!(stderr, "warning: {}", one.warning(backup.receipts))?;
    }
    if let Some(file) = superseded {
        writeln!(
            stderr,
            "warning: the checkpoint that this ledger does not contain is now in {}",
            file.display()
        )?;
    }
    if trusted.is_none() {
        writeln!(
            stderr,
            "warning: the backup was held to the ledger's keys in it, which proves only that it \
             agrees with itself. Compare its newest key with the one you know: {}",
            report
                .keys
                .last()
                .map(ToString::to_string)
                .unwrap_or_default()
        )?;
    }
    let sealed = secrets_by_kek(from).map_err(|fault| Fault::caused(&fault))?;
    let sealed_under: Vec<String> = sealed.into_keys().flatten().collect();
    for warning in secrets.warnings(&backup, &sealed_under) {
        writeln!(stderr, "warning: {warning}")?;
    }
    warn_of_archives(database, &backup, stderr)?;
    writeln!(stdout, "restored: {}", database.display())?;
    writeln!(stdout, "ledger: {} receipts, verified", backup.receipts)?;
    if let Some(note) = &backup.newest_checkpoint {
        writeln!(stdout, "newest checkpoint:\n{note}")?;
    }
    stdout.flush()?;
    Ok(())
}

/// Makes the data folder, and sure that there is no store.
fn begin(config: &Config, database: &Path) -> Result<Restoration, Fault> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|error| {
            Fault::failed(format_args!(
                "the data folder {} (data_dir) cannot be made: {error}",
                config.data_dir.display()
            ))
        })?;
    owner::is_ours(&config.data_dir)?;
    Restoration::begin(database).map_err(|fault| Fault::caused(&fault))
}

/// Goes through all of the copy: its indexes, and every receipt of its ledger.
fn verify(
    copy: &Path,
    from: &Path,
    trusted: &[VerifierKey],
    known: &KnownCheckpoints,
    receipts: u64,
    stderr: &mut impl Write,
) -> Result<AuditReport, Fault> {
    snapshot::look_at(copy, Thoroughness::Indexes).map_err(|fault| Fault::caused(&fault))?;
    let mut said = Instant::now();
    let mut say = |progress: AuditProgress| {
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let AuditProgress { receipts, of } = progress;
            // Whoever does not listen misses nothing that lasts.
            let _ = writeln!(stderr, "verified {receipts} of {of} receipts");
        }
    };
    let contained = known.not_newer_than(receipts);
    let mut audit = |since: Option<&str>| audit_folder(copy, trusted, since, &mut say);
    let Some((first, others)) = contained.split_first() else {
        return audit(None).map_err(|failure| refused(from, &failure));
    };
    let report = audit(Some(&first.note)).map_err(|failure| first.refused(from, &failure))?;
    for other in others {
        audit(Some(&other.note)).map_err(|failure| other.refused(from, &failure))?;
    }
    Ok(report)
}

fn refused(from: &Path, failure: &AuditFailure) -> Fault {
    match failure {
        AuditFailure::Flawed { flaw, .. } => Fault::failed(format_args!(
            "the ledger in {} does not verify: {flaw}. Nothing was restored; take another backup",
            from.display()
        )),
        other => Fault::caused(other),
    }
}

fn warn_of_archives(
    database: &Path,
    backup: &StoreSummary,
    stderr: &mut impl Write,
) -> io::Result<()> {
    for file in backup.archives_of(database) {
        if !file.try_exists().unwrap_or(false) {
            writeln!(
                stderr,
                "warning: {} is not there, and the receipts in it are not found until it is: copy \
                 it from where it was backed up",
                file.display()
            )?;
        }
    }
    Ok(())
}
