//! The commands that work with a running service over its API: `kms key …`, and
//! `kms sign`, `verify`, `encrypt` and `decrypt`.
//!
//! They ask as anybody else does, and know nothing of the service's inside.

mod connection;
mod data;
mod decrypt;
mod encrypt;
mod key;
mod session;
mod shown;
mod sign;
mod verify;

use std::process::ExitCode;

pub(super) use self::decrypt::Decrypt;
pub(super) use self::encrypt::Encrypt;
pub(super) use self::key::KeyCommand;
pub(super) use self::sign::Sign;
pub(super) use self::verify::Verify;

use super::fault::{Fault, exit};

/// What stands at the end of each command's help.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong arguments or settings
  3  the signature does not verify (kms verify)
  4  refused by the service
  5  the service is away or busy: again later makes sense

Every option of the connection can be a variable too, such as KMS_CLIENT_URL or
KMS_CLIENT_TOKEN_FILE, or a field of a profile. KMS_CLIENT_TOKEN and
KMS_CLIENT_APPROVAL hold the token and the approval themselves. A flag counts more
than a variable, and that more than the profile.";

/// Exit code for a signature that does not verify.
const NOT_VERIFIED: u8 = 3;

/// One command with its arguments.
pub(super) enum Wanted<'a> {
    Key(&'a KeyCommand),
    Sign(&'a Sign),
    Verify(&'a Verify),
    Encrypt(&'a Encrypt),
    Decrypt(&'a Decrypt),
}

/// Does it; the exit code is one of [`EXIT_CODES`].
pub(super) fn run(wanted: &Wanted<'_>) -> ExitCode {
    let done: Result<bool, Fault> = match wanted {
        Wanted::Key(command) => key::run(command).map(|()| true),
        Wanted::Sign(wanted) => sign::run(wanted).map(|()| true),
        Wanted::Verify(wanted) => verify::run(wanted),
        Wanted::Encrypt(wanted) => encrypt::run(wanted).map(|()| true),
        Wanted::Decrypt(wanted) => decrypt::run(wanted).map(|()| true),
    };
    match done {
        Ok(false) => ExitCode::from(NOT_VERIFIED),
        Ok(true) => ExitCode::SUCCESS,
        Err(fault) => exit(Err(fault)),
    }
}
