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
mod service;
mod store;
mod token;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::report::Report;
use self::service::Service;
use super::FAULTY_CONFIGURATION;
use super::fault::Fault;
use crate::adapters::clock::SystemClock;
use crate::config::{Config, Source};
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
    let at_first = Service::of(config);
    at_first.tell(report);
    data_dir::look(config, report);
    material::look(config, SystemClock.now(), report);
    let newest_receipt = store::look(config, report);
    token::look(config, report);
    // An address or a token may have been waited for: whoever has started meanwhile
    // listens by right.
    let service = Service::of(config);
    if service != at_first {
        report.note(
            "service",
            format_args!("{} since this look began", service.in_words()),
        );
    }
    listeners::look(config, &service, report);
    machine::clock(newest_receipt, report);
    machine::entropy(report);
    machine::limits(config, &service, report);
}
