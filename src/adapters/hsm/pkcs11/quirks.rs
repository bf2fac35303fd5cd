//! What modules do differently from the standard, each in its one place.

use std::sync::{RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use super::fault::{CallFault, TokenError};
use super::library::Library;

/// How long anybody waits for a turn. Whoever has it may hang.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The turn to make or destroy objects of the token. SoftHSM 2.6 reads its folder of
/// objects anew while another thread writes there, and then one of the two fails with
/// `CKR_GENERAL_ERROR`; and it makes Ed25519 pairs in a way that several threads at
/// once disturb. Hardware does such work one after the other anyway.
///
/// # Errors
/// [`CallFault::Answered`] after two seconds.
pub(super) fn turn_to_write(library: &Library) -> Result<RwLockWriteGuard<'_, ()>, CallFault> {
    wait_for(|| library.objects.try_write())
}

/// The turn to look for objects of the token.
///
/// # Errors
/// As for [`turn_to_write`].
pub(super) fn turn_to_look(library: &Library) -> Result<RwLockReadGuard<'_, ()>, CallFault> {
    wait_for(|| library.objects.try_read())
}

fn wait_for<G>(turn: impl Fn() -> TryLockResult<G>) -> Result<G, CallFault> {
    // The standard library's locks know no deadline.
    let until = Instant::now() + LONGEST_WAIT;
    loop {
        match turn() {
            Ok(turn) => return Ok(turn),
            // It guards an order and no data.
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => {
                let late = CallFault::TokenAway(TokenError::Late).into_answer();
                return Err(CallFault::Answered(late));
            }
        }
    }
}

/// Whether a failed decryption may be about the ciphertext. The standard has
/// `CKR_ENCRYPTED_DATA_INVALID` for that, and `CKR_ENCRYPTED_DATA_LEN_RANGE`; SoftHSM
/// answers `CKR_GENERAL_ERROR` to a wrong tag, others `CKR_FUNCTION_FAILED` or
/// `CKR_SIGNATURE_INVALID`, which only the first two of may be anything else too.
pub(super) fn speaks_of_ciphertext(error: &Error) -> Ciphertext {
    let Error::Pkcs11(returned, Function::Decrypt | Function::DecryptFinal) = error else {
        return Ciphertext::NotMeant;
    };
    match returned {
        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::SignatureInvalid => Ciphertext::Refused,
        RvError::GeneralError | RvError::FunctionFailed => Ciphertext::PerhapsRefused,
        _ => Ciphertext::NotMeant,
    }
}

/// What a failed decryption says of the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ciphertext {
    /// It does not open.
    Refused,
    /// It does not open, or the token is unwell.
    PerhapsRefused,
    /// The failure is another one.
    NotMeant,
}
