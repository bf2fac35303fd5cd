//! `kms ledger archive`: moves old receipts out of the store, to files that the
//! service goes on answering from.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::DATABASE;
use crate::adapters::data_plane::sqlite::archive::{self, ArchiveSummary, Progress};
use crate::cli::backup::store_file;
use crate::cli::fault::{Fault, exit, load_config};
use crate::cli::owner;
use crate::domain::time::Timestamp;

/// How often the progress is said.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What `kms ledger archive` is told.
#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Receipts of before this time are moved: RFC 3339, or a date, which begins at
    /// midnight UTC.
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    before: Timestamp,
    /// The folder with kms.db; that of the configuration where not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Moves receipts. Exits with 1 where that fails, and 64 for a faulty configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    exit(database(config_dir, arguments).and_then(|database| {
        owner::is_ours(&database)?;
        let mut said = Instant::now();
        let mut say = |progress: Progress| {
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                // Whoever does not listen misses nothing that lasts.
                let _ = writeln!(io::stderr(), "{}", in_words(progress));
            }
        };
        let summary = archive::run(&database, arguments.before, &mut say)
            .map_err(|fault| Fault::caused(&fault))?;
        report(
            &database,
            arguments.before,
            &summary,
            &mut io::stdout().lock(),
        )?;
        Ok(())
    }))
}

fn database(config_dir: Option<PathBuf>, arguments: &Arguments) -> Result<PathBuf, Fault> {
    match &arguments.data_dir {
        Some(folder) => Ok(folder.join(DATABASE)),
        None => store_file(&load_config(config_dir)?).map(Path::to_owned),
    }
}

fn in_words(progress: Progress) -> String {
    match progress {
        Progress::Written(place) => format!("written to the archive: up to receipt {place}"),
        Progress::Checked(place) => format!("read back and checked: up to receipt {place}"),
        Progress::Removed(place) => format!("removed from the store: up to receipt {place}"),
    }
}

fn report(
    database: &Path,
    before: Timestamp,
    summary: &ArchiveSummary,
    stdout: &mut impl Write,
) -> io::Result<()> {
    if summary.archives.is_empty() {
        writeln!(
            stdout,
            "nothing to move: from receipt {} on, no whole bundle of 256 is older than {before}",
            summary.kept_from
        )?;
    }
    for (file, first, end) in &summary.archives {
        writeln!(
            stdout,
            "{}: {} receipts, from {first} to before {end}",
            file.display(),
            end - first
        )?;
    }
    writeln!(
        stdout,
        "{}: {} receipts fewer; {} bytes of it are free for new ones",
        database.display(),
        summary.removed,
        summary.free_bytes
    )?;
    if !summary.archives.is_empty() {
        writeln!(
            stdout,
            "Back these files up: from now on they alone hold their receipts."
        )?;
    }
    stdout.flush()
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let is_date = text.len() == "2026-03-01".len();
    let time = if is_date {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    time.parse().map_err(|_| {
        "expected a time such as 2026-03-01T12:00:00Z (RFC 3339), or a date such as 2026-03-01"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_at_midnight_utc() {
        let read = |text| instant(text).map(|time| time.to_string());
        let midnight = Ok("2026-03-01T00:00:00.000000Z".to_owned());
        assert_eq!(read("2026-03-01"), midnight);
        assert_eq!(read("2026-03-01T00:00:00Z"), midnight);
        assert_eq!(read("2026-03-01T01:00:00+01:00"), midnight);
        for other in [
            "",
            "2026-02-30",
            "yesterday",
            "2026-03-01 ",
            "2026-03-01T00:00:00",
        ] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
