//! The commands of the `kms` binary, one file each.

mod approve;
mod backup;
pub mod check_config;
mod dev_pki;
mod fault;
mod health;
mod hsm;
mod ledger;
mod openapi;
mod rekey;
mod restore;
mod serve;
mod service_manager;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code for a faulty configuration (`EX_USAGE` of sysexits.h).
const FAULTY_CONFIGURATION: u8 = 64;

/// The ZeroUI key management service (M33).
#[derive(Parser)]
#[command(name = "kms", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// The folder with default.toml and ENVIRONMENT.toml; `config` in the
    /// current folder where it exists.
    #[arg(long, global = true, value_name = "DIR")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service (the default).
    Serve,
    /// Prints the configuration in effect with secrets masked, or every fault in it.
    CheckConfig,
    /// Asks a running service how it is.
    Health(health::Arguments),
    /// Signs an approval of one operation, and prints the token. Signs with EdDSA
    /// or, where the key is RSA, with PS256.
    Approve(Box<approve::Arguments>),
    /// Makes certificates and keys for trying production mode at home.
    DevPki(dev_pki::DevPki),
    /// Writes a snapshot of the store to a file, beside a running service too.
    Backup(backup::Arguments),
    /// Makes a backup the store, where there is none, once its whole ledger verifies.
    Restore(restore::Arguments),
    /// Looks at the HSM.
    Hsm {
        #[command(subcommand)]
        command: hsm::HsmCommand,
    },
    /// Gives the software HSM a new key-encryption key, beside a running service too.
    Rekey(rekey::Arguments),
    /// Prints the OpenAPI document of the HTTP interface.
    Openapi,
    /// Looks at the evidence ledger.
    Ledger {
        #[command(subcommand)]
        command: ledger::LedgerCommand,
    },
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(arguments.config),
        Command::CheckConfig => check_config::run(arguments.config),
        Command::Health(wanted) => health::run(arguments.config, &wanted),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::DevPki(wanted) => dev_pki::run(&wanted),
        Command::Backup(wanted) => backup::run(arguments.config, &wanted),
        Command::Restore(wanted) => restore::run(arguments.config, &wanted),
        Command::Hsm { command } => hsm::run(&command, arguments.config),
        Command::Rekey(wanted) => rekey::run(arguments.config, &wanted),
        Command::Openapi => openapi::run(),
        Command::Ledger { command } => ledger::run(command, arguments.config),
    }
}
