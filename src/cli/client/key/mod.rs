//! `kms key …`: keys and the steps of their lives.

mod list;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::EXIT_CODES;
use super::connection::Connection;
use super::session::{Session, StandardInput, key_path};
use super::shown;
use crate::cli::fault::Fault;
use crate::cli::words::one_of;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, ModuleId};
use crate::domain::key::RevocationReason;
use crate::domain::key_usage::KeyUsage;
use crate::domain::time::Period;

/// What is done with keys.
#[derive(Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Makes a key.
    #[command(after_help = EXIT_CODES)]
    Generate(Box<Generate>),
    /// Lists the keys of a scope, all of them unless told otherwise.
    #[command(after_help = EXIT_CODES)]
    List(Box<list::List>),
    /// Shows a key's metadata.
    #[command(after_help = EXIT_CODES)]
    Show(Box<Named>),
    /// Makes a key's successor, which takes its place and its alias.
    #[command(after_help = EXIT_CODES)]
    Rotate(Box<Rotate>),
    /// Destroys a key. Its secret is erased at once where it is compromised, and later
    /// otherwise.
    #[command(after_help = EXIT_CODES)]
    Revoke(Box<Revoke>),
    /// Brings a revoked key back, as archived, while its secret is still there.
    #[command(after_help = EXIT_CODES)]
    Restore(Box<Restore>),
}

/// One key.
#[derive(Args)]
pub(in crate::cli) struct Named {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    #[command(flatten)]
    connection: Connection,
}

/// A restoration.
#[derive(Args)]
pub(in crate::cli) struct Restore {
    /// The key by its id; an alias is an active key's.
    #[arg(value_name = "KEY_ID")]
    key_id: KeyId,
    #[command(flatten)]
    connection: Connection,
}

/// A new key.
#[derive(Args)]
pub(in crate::cli) struct Generate {
    /// What kind of key: RSA-2048, Ed25519 or AES-256.
    #[arg(
        long = "type",
        value_name = "TYPE",
        hide_possible_values = true,
        value_parser = one_of::<KeyType>(KeyType::ALL.map(KeyType::as_str)),
    )]
    key_type: KeyType,
    /// What for: sign, verify, encrypt, decrypt; more than one separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        hide_possible_values = true,
        value_parser = one_of::<KeyUsage>(KeyUsage::ALL.map(KeyUsage::as_str)),
    )]
    usage: Vec<KeyUsage>,
    /// The alias of the key and of those that take its place.
    #[arg(long)]
    alias: Option<KeyAlias>,
    /// How long the key signs and encrypts before it is replaced; its type's period
    /// where it is not given.
    #[arg(long, value_name = "DURATION")]
    rotation_period: Option<Period>,
    /// The modules that may use the key, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    allowed_modules: Vec<ModuleId>,
    /// Every use of the key needs an approval.
    #[arg(long)]
    requires_approval: bool,
    /// How often the key may be used a UTC day.
    #[arg(long, value_name = "N")]
    max_usage_per_day: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// A rotation.
#[derive(Args)]
pub(in crate::cli) struct Rotate {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    /// Archives the old key at once, without its grace period.
    #[arg(long)]
    emergency: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A revocation.
#[derive(Args)]
pub(in crate::cli) struct Revoke {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    /// Why: compromised, retired or policy_violation.
    #[arg(
        long,
        hide_possible_values = true,
        value_parser = one_of::<RevocationReason>(RevocationReason::ALL.map(RevocationReason::as_str)),
    )]
    reason: RevocationReason,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct GenerateFields<'a> {
    key_type: KeyType,
    key_usage: &'a [KeyUsage],
    #[serde(skip_serializing_if = "Option::is_none")]
    key_alias: Option<&'a KeyAlias>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_period: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_policy: Option<PolicyFields<'a>>,
}

#[derive(Serialize)]
struct PolicyFields<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_modules: &'a [ModuleId],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    requires_approval: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_usage_per_day: Option<u64>,
}

#[derive(Serialize)]
struct RotateFields {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    emergency: bool,
}

#[derive(Serialize)]
struct RevokeFields {
    revocation_reason: RevocationReason,
}

#[derive(Serialize)]
struct NoFields {}

/// Does it, and prints what came of it.
pub(super) fn run(command: &KeyCommand) -> Result<(), Fault> {
    match command {
        KeyCommand::Generate(wanted) => generate(wanted),
        KeyCommand::List(wanted) => list::run(wanted),
        KeyCommand::Show(named) => {
            let answer = open(&named.connection)?.get(&key_path(&named.key_ref), &[])?;
            shown::print(answer.expose(), named.connection.json)
        }
        KeyCommand::Rotate(wanted) => {
            let fields = RotateFields {
                emergency: wanted.emergency,
            };
            step(&wanted.connection, &wanted.key_ref, "rotate", &fields)
        }
        KeyCommand::Revoke(wanted) => {
            let fields = RevokeFields {
                revocation_reason: wanted.reason,
            };
            step(&wanted.connection, &wanted.key_ref, "revoke", &fields)
        }
        KeyCommand::Restore(wanted) => {
            let key = KeyRef::Id(wanted.key_id);
            step(&wanted.connection, &key, "restore", &NoFields {})
        }
    }
}

fn open(connection: &Connection) -> Result<Session, Fault> {
    Session::open(connection, StandardInput::IsFree)
}

fn generate(wanted: &Generate) -> Result<(), Fault> {
    let policy = PolicyFields {
        allowed_modules: &wanted.allowed_modules,
        requires_approval: wanted.requires_approval,
        max_usage_per_day: wanted.max_usage_per_day,
    };
    let is_given = wanted.requires_approval
        || !wanted.allowed_modules.is_empty()
        || wanted.max_usage_per_day.is_some();
    let fields = GenerateFields {
        key_type: wanted.key_type,
        key_usage: &wanted.usage,
        key_alias: wanted.alias.as_ref(),
        rotation_period: wanted.rotation_period,
        access_policy: is_given.then_some(policy),
    };
    let answer = open(&wanted.connection)?.change("keys", &fields)?;
    shown::print(answer.expose(), wanted.connection.json)
}

fn step(
    connection: &Connection,
    key: &KeyRef,
    step: &str,
    fields: &impl Serialize,
) -> Result<(), Fault> {
    let path = format!("{}/{step}", key_path(key));
    let answer = open(connection)?.change(&path, fields)?;
    shown::print(answer.expose(), connection.json)
}
