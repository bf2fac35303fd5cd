//! The one error of the service.
//!
//! Variants say what happened, in types; [`KmsError::code`] says which of the
//! public codes that is. Which HTTP status a code becomes is for the HTTP room.

mod caller;

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use super::algorithm::Algorithm;
use super::ids::KeyId;
use super::key::KeyState;

pub use self::caller::{ApprovalFault, AuthenticationFault, AuthorizationFault, TokenFault};

/// The public error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request itself is wrong.
    InvalidRequest,
    /// Nobody knows who calls.
    Unauthenticated,
    /// The caller may not do this here, or nobody approved it.
    Unauthorized,
    /// The key's own policy forbids it.
    PolicyViolation,
    /// No such key in that scope.
    KeyNotFound,
    /// The key's state forbids it.
    KeyInactive,
    /// The key is destroyed.
    KeyRevoked,
    /// Too much in too little time.
    RateLimited,
    /// A fault of ours.
    InternalError,
    /// Something this service stands on is away.
    DependencyUnavailable,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Unauthorized,
        Self::PolicyViolation,
        Self::KeyNotFound,
        Self::KeyInactive,
        Self::KeyRevoked,
        Self::RateLimited,
        Self::InternalError,
        Self::DependencyUnavailable,
    ];

    /// The code on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::PolicyViolation => "POLICY_VIOLATION",
            Self::KeyNotFound => "KEY_NOT_FOUND",
            Self::KeyInactive => "KEY_INACTIVE",
            Self::KeyRevoked => "KEY_REVOKED",
            Self::RateLimited => "RATE_LIMITED",
            Self::InternalError => "INTERNAL_ERROR",
            Self::DependencyUnavailable => "DEPENDENCY_UNAVAILABLE",
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// See [`RequestFault`].
    #[error(transparent)]
    InvalidRequest(#[from] RequestFault),
    /// See [`AuthenticationFault`].
    #[error(transparent)]
    Unauthenticated(#[from] AuthenticationFault),
    /// See [`AuthorizationFault`].
    #[error(transparent)]
    Unauthorized(#[from] AuthorizationFault),
    /// See [`PolicyFault`].
    #[error(transparent)]
    PolicyViolation(#[from] PolicyFault),
    /// No such key in that tenant, environment and plane.
    #[error("no such key in this tenant, environment and plane")]
    KeyNotFound,
    /// The state of the key forbids the operation.
    #[error("the key is {key_state}: {reason}")]
    KeyInactive {
        /// The state it is in.
        key_state: KeyState,
        /// The key that took its place, where there is one.
        successor_key_id: Option<KeyId>,
        /// What exactly stands in the way.
        reason: InactiveReason,
    },
    /// The key was revoked and its secret erased.
    #[error("the key is destroyed")]
    KeyRevoked,
    /// The key has been used as often today as its policy allows.
    #[error("the key has reached its limit of {limit} uses a day (UTC)")]
    DailyLimitReached {
        /// Uses a day that the policy allows.
        limit: u64,
        /// Until the next UTC midnight.
        retry_after: Duration,
    },
    /// The caller asks faster than its share.
    #[error("too many requests: {requests_per_second} a second are this caller's share")]
    TooManyRequests {
        /// Requests a second that are sustained.
        requests_per_second: u32,
        /// Requests that may come at once after a pause.
        burst: u32,
        /// Until the next request is let in.
        retry_after: Duration,
    },
    /// A fault of ours, with its cause for the log.
    #[error("internal error")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
    /// Something this service stands on is away; nothing was given out.
    #[error("{} is unavailable", dependency.as_str())]
    DependencyUnavailable {
        /// What is away.
        dependency: Dependency,
        /// The cause, for the log only.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl KmsError {
    /// The public code of this error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidRequest(_) => ErrorCode::InvalidRequest,
            Self::Unauthenticated(_) => ErrorCode::Unauthenticated,
            Self::Unauthorized(_) => ErrorCode::Unauthorized,
            Self::PolicyViolation(_) => ErrorCode::PolicyViolation,
            Self::KeyNotFound => ErrorCode::KeyNotFound,
            Self::KeyInactive { .. } => ErrorCode::KeyInactive,
            Self::KeyRevoked => ErrorCode::KeyRevoked,
            Self::DailyLimitReached { .. } | Self::TooManyRequests { .. } => ErrorCode::RateLimited,
            Self::Internal(_) => ErrorCode::InternalError,
            Self::DependencyUnavailable { .. } => ErrorCode::DependencyUnavailable,
        }
    }

    /// A fault in one field, named.
    pub fn field(field: &'static str, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidRequest(RequestFault::Fields(vec![FieldFault {
            field: Cow::Borrowed(field),
            problem: FieldProblem::Invalid,
            expected: expected.into(),
        }]))
    }

    /// A fault of ours.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// A dependency that is away, with the cause for the log.
    pub fn unavailable(
        dependency: Dependency,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::DependencyUnavailable {
            dependency,
            source: Some(cause.into()),
        }
    }
}

/// What can be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// The backend that holds the keys.
    Hsm,
    /// The store of keys and anchors.
    Store,
    /// The store of receipts.
    Ledger,
    /// The identity service, or rather its keys and the approvers'.
    Iam,
    /// Room for one more request.
    Load,
    /// Time: the request took longer than the service allows.
    Deadline,
    /// The service itself, which starts or stops.
    Service,
}

impl Dependency {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::Hsm,
        Self::Store,
        Self::Ledger,
        Self::Iam,
        Self::Load,
        Self::Deadline,
        Self::Service,
    ];

    /// The name in `details.dependency`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hsm => "hsm",
            Self::Store => "store",
            Self::Ledger => "ledger",
            Self::Iam => "iam",
            Self::Load => "load",
            Self::Deadline => "deadline",
            Self::Service => "service",
        }
    }
}

/// What was wrong with a request itself.
#[derive(Debug, thiserror::Error)]
pub enum RequestFault {
    /// One or more fields are missing, unknown, ill-typed or out of range.
    #[error("the request has invalid fields: {}", field_names(.0))]
    Fields(Vec<FieldFault>),
    /// The body is not JSON.
    #[error("the body is not valid JSON: syntax error at line {line}, column {column}")]
    NotJson {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// The body is not declared as JSON.
    #[error("the body must be sent with Content-Type: application/json")]
    MediaType,
    /// The body did not arrive whole.
    #[error("the body could not be read to its end")]
    BodyIncomplete,
    /// The body is larger than the service takes.
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// No such path.
    #[error("no such path")]
    UnknownPath,
    /// The path exists, but not with this method.
    #[error("this path does not take this method")]
    UnknownMethod,
    /// No such receipt for this tenant, environment and plane.
    #[error("no such receipt in this tenant, environment and plane")]
    UnknownReceipt,
    /// The ledger has no such tile, or not yet.
    #[error("the ledger has no such tile, or not yet")]
    UnknownTile,
    /// No such trust anchor for this tenant, environment and plane.
    #[error("no such trust anchor in this tenant, environment and plane")]
    UnknownTrustAnchor,
    /// The ciphertext does not open, whatever the reason: wrong key, nonce,
    /// associated data, algorithm or a changed byte all look alike.
    #[error("the ciphertext could not be decrypted")]
    Undecryptable,
    /// The certificate cannot be a trust anchor.
    #[error("the certificate is not acceptable as a trust anchor: {0}")]
    Certificate(CertificateFault),
}

/// One field that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's name, as the caller wrote it.
    pub field: Cow<'static, str>,
    /// What was the matter.
    pub problem: FieldProblem,
    /// What would have been right. Never what came, which may be secret.
    pub expected: Cow<'static, str>,
}

/// What was the matter with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldProblem {
    /// Required, and not there.
    Missing,
    /// There, and not known.
    Unknown,
    /// There, and wrong.
    Invalid,
    /// There twice.
    Duplicate,
}

impl FieldProblem {
    /// Everything that can be.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Unknown, Self::Invalid, Self::Duplicate];

    /// The word in `details.errors`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Duplicate => "duplicate",
        }
    }
}

fn field_names(faults: &[FieldFault]) -> String {
    let names: Vec<&str> = faults.iter().map(|fault| fault.field.as_ref()).collect();
    names.join(", ")
}

/// Why a certificate cannot be a trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Neither DER nor PEM of exactly one certificate.
    #[error("it is not one X.509 certificate in DER or PEM")]
    Malformed,
    /// Basic constraints do not say CA (RFC 5280 §4.2.1.9).
    #[error("its basic constraints do not make it a CA")]
    NotACertificateAuthority,
    /// Key usage lacks keyCertSign (RFC 5280 §4.2.1.3).
    #[error("its key usage does not allow signing certificates")]
    CannotSignCertificates,
    /// No subject, and so nothing that an issuer could be named by (RFC 5280
    /// §4.1.2.6).
    #[error("its subject is empty")]
    NoSubject,
    /// A critical extension that is not processed (RFC 5280 §4.2).
    #[error("it has a critical extension that this service does not process")]
    UnsupportedExtension,
    /// Extended key usage without clientAuth (RFC 5280 §4.2.1.12).
    #[error("its extended key usage does not allow vouching for clients")]
    NotForClients,
    /// notBefore is in the future.
    #[error("it is not valid yet")]
    NotYetValid,
    /// notAfter is in the past.
    #[error("it has expired")]
    Expired,
    /// RSA below 2048 bits, or a key of another kind than RSA, ECDSA and Ed25519.
    #[error("its key is too weak or of an unsupported kind")]
    WeakKey,
    /// Signed with MD5 or SHA-1.
    #[error("it is signed with a broken hash")]
    WeakSignature,
    /// Self-issued, and its own signature does not verify.
    #[error("its self-signature does not verify")]
    BadSelfSignature,
    /// Type `root`, and not self-signed.
    #[error("an anchor of type root must be self-signed")]
    RootNotSelfSigned,
    /// Already there.
    #[error("it is already a trust anchor of this scope")]
    Duplicate,
}

/// What in a key's policy forbids a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// `key_usage` does not list the operation.
    #[error("the key's key_usage does not include {operation}")]
    Usage {
        /// The usage that would be needed.
        operation: &'static str,
    },
    /// `access_policy.allowed_modules` does not list the caller.
    #[error("the key's access_policy does not allow the calling module")]
    Module,
    /// The key has encrypted as many messages as random nonces allow
    /// (2^32, NIST SP 800-38D §8.3).
    #[error("the key has encrypted 2^32 messages and must be rotated")]
    EncryptionsExhausted,
}

/// What stands in the way when a key is not `active`, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InactiveReason {
    /// Only active keys sign, encrypt and rotate.
    #[error("only an active key can do this")]
    NotActive,
    /// `valid_until` has passed.
    #[error("its valid_until has passed, rotate it")]
    Expired,
    /// The schedule says later.
    #[error("its time has not come")]
    NotDue,
    /// Only a key that was revoked can be restored, or erased.
    #[error("the key is not revoked")]
    NotRevoked,
}

/// An algorithm that does not fit the key, as a field fault that lists what would.
pub fn algorithm_not_offered(offered: &[Algorithm]) -> KmsError {
    let names: Vec<&str> = offered.iter().map(|algorithm| algorithm.as_str()).collect();
    KmsError::field(
        "algorithm",
        format!("one that this key offers: {}", names.join(", ")),
    )
}
