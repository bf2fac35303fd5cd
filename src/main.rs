//! The `kms` binary: arguments to a command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    kms::cli::run(kms::cli::Arguments::parse())
}
