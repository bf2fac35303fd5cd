//! What a failed call says about the session, the token and the key, and so what
//! there is to do about it.

use std::fmt;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use crate::ports::hsm::{HsmError, HsmFault};

/// A call that failed.
#[derive(Debug)]
pub(super) enum CallFault {
    /// The library no longer knows the session, or no longer that it is logged in.
    /// Nothing was done (PKCS#11 v3.1 §5.1.3): a new login helps.
    SessionLost(TokenError),
    /// The token does not answer, or is not there.
    TokenAway(TokenError),
    /// Something went wrong in the token that may be this session's own.
    Unclear(TokenError),
    /// The object that was found before is no longer under its handle.
    StaleHandle(TokenError),
    /// The token does not take the PIN, and is not asked again with it.
    PinRefused(TokenError),
    /// There is an answer, and it is no.
    Answered(HsmError),
}

impl CallFault {
    /// The same fault of a call whose earlier steps have left something behind: it was
    /// not without effect, whatever the token says of the last step.
    pub(super) fn after_an_effect(self) -> Self {
        match self {
            Self::SessionLost(error) => Self::TokenAway(error),
            other => other,
        }
    }

    /// The fault as those who called learn it.
    pub(super) fn into_answer(self) -> HsmError {
        match self {
            Self::SessionLost(error)
            | Self::TokenAway(error)
            | Self::Unclear(error)
            | Self::StaleHandle(error)
            | Self::PinRefused(error) => HsmError::Unavailable(Box::new(error)),
            Self::Answered(error) => error,
        }
    }
}

impl From<HsmFault> for CallFault {
    fn from(fault: HsmFault) -> Self {
        Self::Answered(HsmError::Fault(fault))
    }
}

impl From<Error> for CallFault {
    fn from(error: Error) -> Self {
        use RvError as Rv;
        let Error::Pkcs11(returned, function) = error else {
            return Self::Unclear(TokenError::Library(error));
        };
        let error = TokenError::Returned(function, returned);
        match returned {
            Rv::SessionClosed
            | Rv::SessionHandleInvalid
            | Rv::UserNotLoggedIn
            | Rv::CryptokiNotInitialized => Self::SessionLost(error),
            Rv::DeviceError
            | Rv::DeviceRemoved
            | Rv::TokenNotPresent
            | Rv::TokenNotRecognized
            | Rv::SlotIdInvalid => Self::TokenAway(error),
            Rv::KeyHandleInvalid | Rv::ObjectHandleInvalid => Self::StaleHandle(error),
            Rv::PinIncorrect
            | Rv::PinInvalid
            | Rv::PinLenRange
            | Rv::PinExpired
            | Rv::PinLocked
            | Rv::UserPinNotInitialized => Self::PinRefused(error),
            Rv::MechanismInvalid
            | Rv::MechanismParamInvalid
            | Rv::KeyFunctionNotPermitted
            | Rv::KeyTypeInconsistent
            | Rv::KeySizeRange
            | Rv::DataInvalid
            | Rv::DataLenRange
            | Rv::ArgumentsBad
            | Rv::AttributeTypeInvalid
            | Rv::AttributeValueInvalid
            | Rv::TemplateIncomplete
            | Rv::TemplateInconsistent
            | Rv::TokenWriteProtected
            | Rv::ActionProhibited => {
                // The port's error has no room for the reason.
                tracing::error!(%error, "the token refused a valid operation");
                Self::Answered(HsmError::Fault(HsmFault::Refused))
            }
            _ => Self::Unclear(error),
        }
    }
}

/// What a call to the token came to, without anything that is secret: the names
/// of functions and return values only.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The function returned something else than `CKR_OK`.
    Returned(Function, RvError),
    /// It failed before or after the function.
    Library(Error),
    /// There is no token to call.
    Away(String),
    /// The call took longer than its deadline.
    Late,
    /// As many calls wait already as may.
    QueueFull,
    /// The service shuts down.
    Closed,
}

impl TokenError {
    /// The failed call's error, as it is.
    pub(super) fn of(error: Error) -> Self {
        match error {
            Error::Pkcs11(returned, function) => Self::Returned(function, returned),
            other => Self::Library(other),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(function, returned) => {
                write!(f, "C_{function:?} returned {}", return_value(*returned))
            }
            Self::Library(error) => write!(f, "the PKCS#11 module failed: {error}"),
            Self::Away(why) => f.write_str(why),
            Self::Late => f.write_str("the token did not answer in time"),
            Self::QueueFull => f.write_str("too many calls wait for the token"),
            Self::Closed => f.write_str("the token's sessions are closed"),
        }
    }
}

impl std::error::Error for TokenError {}

/// The standard's name of a return value, such as `CKR_DEVICE_ERROR`.
fn return_value(returned: RvError) -> String {
    let code = match returned {
        RvError::VendorDefined(code) => return format!("CKR_VENDOR_DEFINED ({code:#x})"),
        RvError::UnknownErrorCode(code) => return format!("the unknown value {code:#x}"),
        named => format!("{named:?}"),
    };
    code.chars().fold("CKR".to_owned(), |mut name, letter| {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(returned: RvError) -> CallFault {
        CallFault::from(Error::Pkcs11(returned, Function::Sign))
    }

    #[test]
    fn each_return_value_says_what_to_do() {
        use RvError as Rv;
        for lost in [
            Rv::SessionClosed,
            Rv::SessionHandleInvalid,
            Rv::UserNotLoggedIn,
            Rv::CryptokiNotInitialized,
        ] {
            assert!(matches!(fault(lost), CallFault::SessionLost(_)), "{lost:?}");
        }
        for away in [
            Rv::DeviceError,
            Rv::DeviceRemoved,
            Rv::TokenNotPresent,
            Rv::SlotIdInvalid,
        ] {
            assert!(matches!(fault(away), CallFault::TokenAway(_)), "{away:?}");
        }
        for pin in [Rv::PinIncorrect, Rv::PinLocked, Rv::PinExpired] {
            assert!(matches!(fault(pin), CallFault::PinRefused(_)), "{pin:?}");
        }
        for stale in [Rv::KeyHandleInvalid, Rv::ObjectHandleInvalid] {
            assert!(matches!(fault(stale), CallFault::StaleHandle(_)));
        }
        for unclear in [
            Rv::GeneralError,
            Rv::FunctionFailed,
            Rv::HostMemory,
            Rv::VendorDefined(0x8000_0001),
        ] {
            assert!(matches!(fault(unclear), CallFault::Unclear(_)));
        }
        assert!(matches!(
            fault(Rv::MechanismInvalid),
            CallFault::Answered(HsmError::Fault(HsmFault::Refused))
        ));
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_standard() {
        let error = TokenError::Returned(Function::GenerateKeyPair, RvError::DeviceError);
        assert_eq!(
            error.to_string(),
            "C_GenerateKeyPair returned CKR_DEVICE_ERROR"
        );
        let error = TokenError::Returned(Function::Login, RvError::VendorDefined(0x8000_0001));
        assert!(
            error
                .to_string()
                .ends_with("CKR_VENDOR_DEFINED (0x80000001)")
        );
    }
}
