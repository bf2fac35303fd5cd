//! `kms diagnose`: whether what the service stands on is as it should be, and how to
//! mend what is not. Beside a running service or before one starts.
//!
//! It changes nothing, makes no file, and takes no lock and no port of a service's, so
//! that it never stands in the way of one that starts meanwhile.

mod data_dir;
mod kek;
mod listeners;
mod machine;
mod material;
mod processes;
mod report;
mod store;
mod token;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::processes::Process;
use self::report::Report;
use super::FAULTY_CONFIGURATION;
use super::fault::Fault;
use crate::adapters::clock::SystemClock;
use crate::adapters::data_plane::sqlite::look::lock_file;
use crate::config::{Config, Source, StoreUrl};
use crate::ports::clock::Clock as _;

/// What `kms diagnose` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// Prints the findings as one JSON document.
    #[arg(long)]
    json: bool,
}

/// Looks, and prints what it finds. Exits with 0 where all is well, 1 where something
/// has to be mended, and 64 for a faulty configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    let mut report = Report::default();
    let code = match Config::load(&Source::from_process(config_dir)) {
        Err(faults) => {
            report.bad(
                "configuration",
                faults,
                "set what each line names; the rest is looked at once it is right",
            );
            ExitCode::from(FAULTY_CONFIGURATION)
        }
        Ok(loaded) => {
            let config = loaded.config;
            report.good(
                "configuration",
                format_args!("the environment is {}", config.environment),
            );
            for warning in config.warnings() {
                report.note("configuration", warning);
            }
            look(&config, &mut report);
            match report.is_well() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
    };
    match report.print(&mut io::stdout().lock(), arguments.json) {
        Ok(()) => code,
        Err(error) => super::fault::exit(Err(Fault::from(error))),
    }
}

fn look(config: &Config, report: &mut Report) {
    let now = SystemClock.now();
    let served_by = match &config.store.url {
        StoreUrl::Sqlite(path) => processes::holder(&lock_file(path)),
        StoreUrl::Memory | StoreUrl::Postgres(_) => None,
    };
    report.good("service", running(served_by.as_ref()));
    data_dir::look(config, report);
    material::look(config, now, report);
    let newest_receipt = store::look(config, served_by.is_some(), report);
    token::look(config, report);
    listeners::look(config, served_by.as_ref(), report);
    machine::clock(now, newest_receipt, report);
    machine::entropy(report);
    machine::limits(config, served_by.as_ref(), report);
}

fn running(served_by: Option<&Process>) -> String {
    match served_by {
        Some(process) => format!("runs as process {}", process.id),
        None => "does not run, as far as can be seen from here".to_owned(),
    }
}
