//! `kms approve`: an approver's signature under one operation, or the public
//! half of an approver's key for the service's key set.
//!
//! Runs at the approver's desk and talks to no service.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use uuid::Uuid;

use crate::adapters::clock::SystemClock;
use crate::adapters::iam::{ApproverKey, Statement};
use crate::cli::words::one_of;
use crate::domain::algorithm::KeyType;
use crate::domain::approval::{ApprovalOperation, ApprovalSubject, ApprovalTarget};
use crate::domain::ids::{KeyId, TenantId};
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::lifecycle_permit::check_usage_fits;
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;
use crate::domain::time::{Period, Timestamp};
use crate::ports::clock::Clock as _;

/// Exit code for wrong arguments, as the parser of arguments has it.
const WRONG_ARGUMENTS: u8 = 2;

/// The longest name (`sub`, `kid`) that the service reads, in bytes.
const LONGEST_NAME: usize = 256;

/// What `kms approve` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The approver's private key: PKCS#8 PEM, Ed25519 or RSA.
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,
    /// Who approves: the name that the key has in the approvers' key set (sub).
    #[arg(long, value_name = "NAME")]
    approver: String,
    /// The key's name in the approvers' key set; its thumbprint (RFC 7638) where
    /// not given.
    #[arg(long)]
    kid: Option<String>,
    /// Prints the public key as an entry of approvals.jwks, and approves nothing.
    #[arg(long)]
    print_jwk: bool,
    /// What is approved: key_generate, key_rotate, key_rotate_emergency, key_archive,
    /// key_update, key_revoke, key_restore, key_use, trust_anchor_add or
    /// trust_anchor_remove.
    #[arg(
        long,
        required_unless_present = "print_jwk",
        hide_possible_values = true,
        value_parser = one_of::<ApprovalOperation>(ApprovalOperation::ALL.map(ApprovalOperation::as_str)),
    )]
    operation: Option<ApprovalOperation>,
    /// Where: the tenant.
    #[arg(long, value_name = "TENANT_ID", required_unless_present = "print_jwk")]
    tenant: Option<TenantId>,
    /// Where: dev, staging or prod.
    #[arg(long, required_unless_present = "print_jwk")]
    environment: Option<Environment>,
    /// Where: laptop, tenant, product or shared.
    #[arg(long, required_unless_present = "print_jwk")]
    plane: Option<Plane>,
    /// Which key, by its id: for every step in the life of one that is there, and for
    /// key_use.
    #[arg(long)]
    key_id: Option<KeyId>,
    /// Which type of key, for key_generate.
    #[arg(
        long,
        hide_possible_values = true,
        value_parser = one_of::<KeyType>(KeyType::ALL.map(KeyType::as_str)),
    )]
    key_type: Option<KeyType>,
    /// Which usage, for key_generate: one or more, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        hide_possible_values = true,
        value_parser = one_of::<KeyUsage>(KeyUsage::ALL.map(KeyUsage::as_str)),
    )]
    key_usage: Vec<KeyUsage>,
    /// Which certificate, for trust anchors: the SHA-256 of its DER in hex.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// How long the approval can be used: at most 15m.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    expires_in: Period,
}

/// Why nothing was approved.
struct Fault {
    code: u8,
    what: String,
}

impl Fault {
    fn arguments(flag: &str, what: impl Display) -> Self {
        Self {
            code: WRONG_ARGUMENTS,
            what: format!("{flag}: {what}"),
        }
    }

    fn failed(what: impl Display) -> Self {
        Self {
            code: 1,
            what: what.to_string(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::failed(format_args!("the output cannot be written: {error}"))
    }
}

/// Approves, or prints the public key. Exits with 2 for wrong arguments and with
/// 1 when the key cannot be used.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let token_id = Uuid::new_v4().to_string();
    let done = approve(
        arguments,
        SystemClock.now(),
        &token_id,
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    );
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            let _ = writeln!(io::stderr(), "error: {}", fault.what);
            ExitCode::from(fault.code)
        }
    }
}

fn approve(
    arguments: &Arguments,
    now: Timestamp,
    token_id: &str,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), Fault> {
    require_name("--approver", &arguments.approver)?;
    if let Some(kid) = &arguments.kid {
        require_name("--kid", kid)?;
    }
    let subject = match arguments.print_jwk {
        true => None,
        false => Some(subject(arguments)?),
    };
    if arguments.expires_in > ApproverKey::LONGEST_LIFE || arguments.expires_in < Period::seconds(1)
    {
        return Err(Fault::arguments("--expires-in", "from 1s to 15m"));
    }
    let key = signing_key(arguments)?;
    let kid = arguments.kid.as_deref().unwrap_or(key.thumbprint());
    let Some(subject) = subject else {
        writeln!(stdout, "{}", key.public_jwk(kid, &arguments.approver))?;
        writeln!(
            stderr,
            "This is the public key of {}. Add it to the list \"keys\" of the key set in \
             approvals.jwks.",
            arguments.approver
        )?;
        return Ok(());
    };
    let statement = Statement {
        approver: &arguments.approver,
        subject: &subject,
        kid,
        token_id,
        issued_at: now,
        expires_at: now.plus(arguments.expires_in),
    };
    let token = key
        .sign(&statement)
        .map_err(|fault| Fault::arguments("--signing-key", fault))?;
    writeln!(stderr, "{}", in_words(&statement, key.algorithm()))?;
    writeln!(stdout, "{token}")?;
    stdout.flush()?;
    Ok(())
}

fn require_name(flag: &str, name: &str) -> Result<(), Fault> {
    let is_name =
        !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if is_name {
        Ok(())
    } else {
        Err(Fault::arguments(
            flag,
            "expected a name of 1 to 256 bytes without control characters",
        ))
    }
}

fn signing_key(arguments: &Arguments) -> Result<ApproverKey, Fault> {
    let path = arguments.signing_key.display();
    let pem = std::fs::read(&arguments.signing_key)
        .map(SecretBytes::new)
        .map_err(|error| Fault::failed(format_args!("--signing-key: {path}: {error}")))?;
    ApproverKey::from_pem(&pem)
        .map_err(|fault| Fault::failed(format_args!("--signing-key: {path}: {fault}")))
}

/// What is approved, from exactly the flags that the operation takes.
fn subject(arguments: &Arguments) -> Result<ApprovalSubject, Fault> {
    let missing = |flag| Fault::arguments(flag, "this is needed");
    let operation = arguments.operation.ok_or_else(|| missing("--operation"))?;
    let scope = Scope {
        tenant_id: arguments
            .tenant
            .clone()
            .ok_or_else(|| missing("--tenant"))?,
        environment: arguments
            .environment
            .ok_or_else(|| missing("--environment"))?,
        plane: arguments.plane.ok_or_else(|| missing("--plane"))?,
    };
    let (needed, target): (&[&str], _) = match operation {
        ApprovalOperation::KeyGenerate => (&["--key-type", "--key-usage"], Target::NewKey),
        ApprovalOperation::KeyRotate
        | ApprovalOperation::KeyRotateEmergency
        | ApprovalOperation::KeyArchive
        | ApprovalOperation::KeyUpdate
        | ApprovalOperation::KeyRevoke
        | ApprovalOperation::KeyRestore
        | ApprovalOperation::KeyUse => (&["--key-id"], Target::Key),
        ApprovalOperation::TrustAnchorAdd | ApprovalOperation::TrustAnchorRemove => {
            (&["--fingerprint"], Target::Certificate)
        }
    };
    for (flag, is_given) in [
        ("--key-id", arguments.key_id.is_some()),
        ("--key-type", arguments.key_type.is_some()),
        ("--key-usage", !arguments.key_usage.is_empty()),
        ("--fingerprint", arguments.fingerprint.is_some()),
    ] {
        let is_needed = needed.contains(&flag);
        if is_needed != is_given {
            let word = if is_needed { "needs" } else { "does not take" };
            return Err(Fault::arguments(
                flag,
                format_args!("{operation} {word} this"),
            ));
        }
    }
    let target = match target {
        Target::Key => ApprovalTarget::Key(arguments.key_id.ok_or_else(|| missing("--key-id"))?),
        Target::NewKey => {
            let key_type = arguments.key_type.ok_or_else(|| missing("--key-type"))?;
            let key_usage = KeyUsageSet::of(arguments.key_usage.iter().copied())
                .ok_or_else(|| missing("--key-usage"))?;
            if check_usage_fits(key_type, key_usage).is_err() {
                let what = format_args!("a key of type {key_type} has no such usage").to_string();
                return Err(Fault::arguments("--key-usage", what));
            }
            ApprovalTarget::NewKey {
                key_type,
                key_usage,
            }
        }
        Target::Certificate => ApprovalTarget::Certificate {
            fingerprint: fingerprint(arguments.fingerprint.as_deref().unwrap_or_default())?,
        },
    };
    Ok(ApprovalSubject {
        operation,
        scope,
        target,
    })
}

/// Which flags say what an approval is about.
enum Target {
    Key,
    NewKey,
    Certificate,
}

/// 32 bytes in lower-case hex, from any of the forms that tools print.
fn fingerprint(text: &str) -> Result<String, Fault> {
    let hex = text.replace(':', "").to_ascii_lowercase();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(hex)
    } else {
        Err(Fault::arguments(
            "--fingerprint",
            "expected the SHA-256 of the certificate's DER: 64 hexadecimal digits",
        ))
    }
}

/// What the approver reads before handing the token on.
fn in_words(statement: &Statement<'_>, algorithm: &str) -> String {
    let subject = statement.subject;
    let target = match &subject.target {
        ApprovalTarget::Key(key_id) => format!("the key {key_id}"),
        ApprovalTarget::NewKey {
            key_type,
            key_usage,
        } => {
            let usages: Vec<&str> = key_usage.iter().map(KeyUsage::as_str).collect();
            format!("a new {key_type} key to {}", usages.join(", "))
        }
        ApprovalTarget::Certificate { fingerprint } => format!("the certificate {fingerprint}"),
    };
    let Scope {
        tenant_id,
        environment,
        plane,
    } = &subject.scope;
    format!(
        "{} approves {} of {target}\n  in tenant {tenant_id}, environment {environment}, plane \
         {plane}\n  until {}\n  once, as jti {}\n  signed with {algorithm} and the key {}",
        statement.approver,
        subject.operation,
        statement.expires_at,
        statement.token_id,
        statement.kid,
    )
}

#[cfg(test)]
mod tests;
