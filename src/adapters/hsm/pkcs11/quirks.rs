//! What modules do differently from the standard, each in its one place.

use std::time::Instant;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use super::fault::{CallFault, TokenError};
use super::library::Library;
use super::turns::{NoTurn, Turn};

/// The turn to make or destroy objects of the token. SoftHSM 2.6 reads its folder of
/// objects anew while another thread writes there, and then one of the two fails with
/// `CKR_GENERAL_ERROR`; and it makes Ed25519 pairs in a way that several threads at
/// once disturb. Hardware does such work one after the other anyway.
///
/// # Errors
/// [`CallFault::Answered`] when it does not come by `due`.
pub(super) fn turn_to_write(library: &Library, due: Instant) -> Result<Turn<'_>, CallFault> {
    library.objects.write(due).map_err(late)
}

/// The turn to look for objects of the token.
///
/// # Errors
/// As for [`turn_to_write`].
pub(super) fn turn_to_look(library: &Library, due: Instant) -> Result<Turn<'_>, CallFault> {
    library.objects.look(due).map_err(late)
}

fn late(_: NoTurn) -> CallFault {
    CallFault::Answered(CallFault::TokenAway(TokenError::Late).into_answer())
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
