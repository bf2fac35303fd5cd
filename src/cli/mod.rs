//! The commands of the `kms` binary, one file each.

mod approve;
mod backup;
pub mod check_config;
mod client;
mod completions;
mod dev_pki;
#[cfg(target_os = "linux")]
mod diagnose;
mod fault;
mod health;
mod hsm;
mod ledger;
mod openapi;
mod owner;
mod rekey;
mod restore;
mod serve;
mod service_manager;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::client::Wanted;

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
    /// Writes a snapshot of the store, beside a running service too.
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
    /// Looks at all that the service stands on, beside a running one too, and says how
    /// to mend what is not right. Changes nothing.
    #[cfg(target_os = "linux")]
    Diagnose(diagnose::Arguments),
    /// Works with keys of a running service.
    Key {
        #[command(subcommand)]
        command: client::KeyCommand,
    },
    /// Signs with a key of a running service, and prints the signature in base64.
    #[command(after_help = client::EXIT_CODES)]
    Sign(Box<client::Sign>),
    /// Checks a signature with a key of a running service. Exits with 3 where it does
    /// not verify.
    #[command(after_help = client::EXIT_CODES)]
    Verify(Box<client::Verify>),
    /// Encrypts with a key of a running service, and writes what decrypting needs.
    #[command(after_help = client::EXIT_CODES)]
    Encrypt(Box<client::Encrypt>),
    /// Decrypts what `kms encrypt` wrote, with a running service.
    #[command(after_help = client::EXIT_CODES)]
    Decrypt(Box<client::Decrypt>),
    /// Prints a script that makes a shell complete these commands.
    Completions {
        /// Which shell.
        shell: completions::Shell,
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
        #[cfg(target_os = "linux")]
        Command::Diagnose(wanted) => diagnose::run(arguments.config, &wanted),
        Command::Key { command } => client::run(&Wanted::Key(&command)),
        Command::Sign(wanted) => client::run(&Wanted::Sign(&wanted)),
        Command::Verify(wanted) => client::run(&Wanted::Verify(&wanted)),
        Command::Encrypt(wanted) => client::run(&Wanted::Encrypt(&wanted)),
        Command::Decrypt(wanted) => client::run(&Wanted::Decrypt(&wanted)),
        Command::Completions { shell } => completions::run(shell),
    }
}
