//! What can be the matter with a caller: who it is, what it may do, who agreed.

/// Why nobody knows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationFault {
    /// The connection has no client certificate, and here it needs one.
    #[error("a client certificate is required")]
    NoCertificate,
    /// The certificate ended while the connection stood.
    #[error("the client certificate has expired; connect again with a new one")]
    CertificateExpired,
    /// The trust anchor behind the certificate was taken out of force while the
    /// connection stood.
    #[error("the trust anchor behind the client certificate is no longer in force")]
    NoLongerVouchedFor,
    /// See [`TokenFault`].
    #[error("the bearer token is refused: {0}")]
    Token(#[from] TokenFault),
    /// `X-Module-Id` is no module's name.
    #[error("X-Module-Id must name a module, such as M21")]
    MalformedModuleHeader,
}

/// Which rule a bearer token (a JWT of M21) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// A token is required, and none came.
    #[error("send one in Authorization: Bearer")]
    Missing,
    /// More than one `Authorization` header, which is nobody in particular.
    #[error("there must be one Authorization header, not several")]
    Repeated,
    /// `Authorization` of another scheme.
    #[error("Authorization must be Bearer and a token")]
    NotBearer,
    /// A token came, and this service has no keys to check it with.
    #[error("this service is not set up for tokens (auth.jwks)")]
    NotExpected,
    /// Not a compact JWS with a JSON header and JSON claims.
    #[error("it is not a JWT")]
    Malformed,
    /// An algorithm that the key does not have, `none` and HMAC included.
    #[error("its alg is not the key's")]
    Algorithm,
    /// No key of that `kid`.
    #[error("no key with its kid is known")]
    UnknownKey,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    Signature,
    /// A claim is not there, or not of its type.
    #[error("it lacks the claim {0}")]
    ClaimMissing(&'static str),
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` is still to come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// `iss` is not the configured one.
    #[error("its issuer is not the one expected")]
    Issuer,
    /// `aud` does not name this service.
    #[error("its audience is not this service")]
    Audience,
    /// A claim says otherwise than the certificate.
    #[error("its {0} is not the client certificate's")]
    Inconsistent(&'static str),
    /// `module_id` is another module than the one in `X-Module-Id`.
    #[error("its module_id is not the module that X-Module-Id names")]
    OtherModule,
}

/// Why a known caller may not do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationFault {
    /// The request names another tenant, environment or plane than the caller's.
    #[error("the request's tenant, environment or plane is not the caller's")]
    ForeignScope,
    /// The caller is no auditor, or one that only a tenant's own authority vouches for.
    #[error(
        "only an auditor reads the receipts of every tenant: a module of auth.auditors that the \
         platform's own authorities vouch for"
    )]
    NotAnAuditor,
    /// See [`ApprovalFault`].
    #[error(transparent)]
    Approval(#[from] ApprovalFault),
}

/// Which rule an approval failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalFault {
    /// The operation needs one, and none came.
    #[error("this operation needs an approval: send approval_token or X-Approval-Token")]
    Missing,
    /// The token has fewer characters than any approval has.
    #[error("the approval token is shorter than ten characters")]
    TooShort,
    /// The approval is for another operation, scope or key.
    #[error("the approval is for something else")]
    WrongSubject,
    /// Not a compact JWS with a JSON header and JSON claims.
    #[error("the approval token is not a signed JWT")]
    Malformed,
    /// No approver's key has that `kid`.
    #[error("the approval token is not signed by a known approver's key")]
    UnknownKey,
    /// An algorithm that the key does not have, `none` and HMAC included.
    #[error("the approval token's alg is not the approver's key's")]
    Algorithm,
    /// The signature does not verify.
    #[error("the approval token's signature does not verify")]
    Signature,
    /// A claim is not there, or not of its type.
    #[error("the approval token lacks the claim {0}")]
    ClaimMissing(&'static str),
    /// `aud` is not `M33`.
    #[error("the approval token's audience is not M33")]
    Audience,
    /// `iss` and `sub` do not both name the key's owner.
    #[error("the approval token's iss and sub do not name the approver whose key signed it")]
    NotTheSigner,
    /// `exp` has passed.
    #[error("the approval token has expired")]
    Expired,
    /// `iat` or `nbf` is still to come.
    #[error("the approval token is not valid yet")]
    NotYetValid,
    /// `exp` is more than 15 minutes after `iat`.
    #[error("the approval token lives longer than 15 minutes")]
    LivesTooLong,
    /// A claim differs from the request.
    #[error("the approval token is for another {0}")]
    Mismatch(&'static str),
    /// The approver is the caller, by name.
    #[error("the approver must not be the caller")]
    SelfApproval,
    /// The approver is the caller, by key.
    #[error("the approver's key must not be the caller's own")]
    CallersKey,
    /// The `jti` has done its work.
    #[error("the approval token was used already")]
    AlreadyUsed,
    /// One person cannot be two.
    #[error("two of the approval tokens are from one approver")]
    SameApprover,
    /// Nor can one key.
    #[error("two of the approval tokens are signed with one key")]
    SameKey,
    /// Too few approvers.
    #[error("{needed} different approvers are needed, {given} agreed")]
    Quorum {
        /// How many it takes.
        needed: u8,
        /// How many there are.
        given: u8,
    },
    /// More tokens than anyone needs.
    #[error("at most {most} approval tokens are read")]
    TooMany {
        /// The limit.
        most: u8,
    },
}
