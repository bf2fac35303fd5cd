//! Signed approvals: which rule each token has to pass, and all of them together.
//!
//! What is reported is the first rule that fails, in this order: the number of
//! tokens; then token by token its form, algorithm, key and signature, audience,
//! names, times, id, subject, that the approver is not the caller, and that no
//! token before it has its id, approver or key; at last the quorum.

use crate::domain::algorithm::KeyType;
use crate::domain::approval::{Approval, ApprovalSubject, ApprovalTarget, Grant, approval_refused};
use crate::domain::caller::Caller;
use crate::domain::error::{ApprovalFault, KmsError};
use crate::domain::ids::KeyId;
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::peer::PublicKeyNumbers;
use crate::domain::time::{Period, Timestamp};

use super::claims::{ClaimFault, Claims, LEEWAY};
use super::key_set::KeySet;
use super::token::{self, JwsFault};

/// The most tokens that are read: as many as the largest quorum.
pub(super) const MOST_TOKENS: u8 = 8;

/// Who approvals are made for: this service.
pub(super) const AUDIENCE: &str = "M33";

/// The longest that an approval may live.
pub(super) const LONGEST_LIFE: Period = Period::seconds(15 * 60);

/// The longest `jti`, in bytes.
const LONGEST_TOKEN_ID: usize = 128;

impl From<JwsFault> for ApprovalFault {
    fn from(fault: JwsFault) -> Self {
        match fault {
            JwsFault::Malformed => Self::Malformed,
            JwsFault::Algorithm => Self::Algorithm,
            JwsFault::UnknownKey => Self::UnknownKey,
            JwsFault::Signature => Self::Signature,
        }
    }
}

impl From<ClaimFault> for ApprovalFault {
    fn from(fault: ClaimFault) -> Self {
        match fault {
            ClaimFault::Missing(claim) => Self::ClaimMissing(claim),
            ClaimFault::Expired => Self::Expired,
            ClaimFault::NotYetValid => Self::NotYetValid,
        }
    }
}

/// The tokens of one request, apart. They are joined by commas; a space beside
/// one is what joining headers leaves.
///
/// # Errors
/// [`ApprovalFault::TooMany`].
pub(super) fn split(tokens: &[u8]) -> Result<Vec<&[u8]>, ApprovalFault> {
    let tokens: Vec<&[u8]> = tokens
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .take(usize::from(MOST_TOKENS) + 1)
        .collect();
    if tokens.len() > usize::from(MOST_TOKENS) {
        return Err(ApprovalFault::TooMany { most: MOST_TOKENS });
    }
    Ok(tokens)
}

/// Verifies that as many approvers as the quorum asks for agreed to the subject.
///
/// # Errors
/// [`KmsError::Unauthorized`] with the first rule that failed.
pub(super) fn verify(
    tokens: &[u8],
    keys: &KeySet,
    caller: &Caller,
    subject: &ApprovalSubject,
    quorum: u8,
    now: Timestamp,
) -> Result<Approval, KmsError> {
    let judge = Judge {
        keys,
        caller,
        subject,
        now,
    };
    judge
        .all(tokens, quorum)
        .map(|grants| Approval::new(subject.clone(), grants))
        .map_err(approval_refused)
}

/// What a token is held to.
struct Judge<'a> {
    keys: &'a KeySet,
    caller: &'a Caller,
    subject: &'a ApprovalSubject,
    now: Timestamp,
}

/// One token that passed, and the key it was signed with.
struct Word<'k> {
    grant: Grant,
    key: &'k PublicKeyNumbers,
}

impl<'a> Judge<'a> {
    fn all(&self, tokens: &[u8], quorum: u8) -> Result<Vec<Grant>, ApprovalFault> {
        let mut words: Vec<Word<'a>> = Vec::new();
        for token in split(tokens)? {
            let word = self.one(token)?;
            for other in &words {
                if other.grant.token_id == word.grant.token_id {
                    return Err(ApprovalFault::AlreadyUsed);
                }
                if other.grant.approver == word.grant.approver {
                    return Err(ApprovalFault::SameApprover);
                }
                if other.key == word.key {
                    return Err(ApprovalFault::SameKey);
                }
            }
            words.push(word);
        }
        // At most eight, by `split`.
        let given = u8::try_from(words.len()).unwrap_or(MOST_TOKENS);
        if given < quorum {
            let needed = quorum;
            return Err(ApprovalFault::Quorum { needed, given });
        }
        Ok(words.into_iter().map(|word| word.grant).collect())
    }

    fn one(&self, token: &[u8]) -> Result<Word<'a>, ApprovalFault> {
        let verified = token::verify(token, self.keys)?;
        let claims = &verified.claims;
        if !claims.texts("aud")?.contains(&AUDIENCE) {
            return Err(ApprovalFault::Audience);
        }
        let (issuer, approver) = (claims.text("iss")?, claims.text("sub")?);
        let owner = verified.key.owner();
        if issuer != approver || owner.is_some_and(|owner| owner != approver) {
            return Err(ApprovalFault::NotTheSigner);
        }
        let (issued_at, expires_at) = (claims.instant("iat")?, claims.instant("exp")?);
        if expires_at > issued_at.plus(LONGEST_LIFE) {
            return Err(ApprovalFault::LivesTooLong);
        }
        claims.require_not_expired(self.now)?;
        claims.require_begun(self.now)?;
        let token_id = claims.text("jti")?;
        if token_id.len() > LONGEST_TOKEN_ID {
            return Err(ApprovalFault::ClaimMissing("jti"));
        }
        self.require_subject(claims)?;
        let is_caller = self.caller.subject() == Some(approver)
            || self
                .caller
                .peer()
                .is_some_and(|peer| peer.spiffe_id.as_str() == approver);
        if is_caller {
            return Err(ApprovalFault::SelfApproval);
        }
        let callers_key = self.caller.peer().and_then(|peer| peer.public_key.as_ref());
        if callers_key == Some(verified.key.numbers()) {
            return Err(ApprovalFault::CallersKey);
        }
        Ok(Word {
            grant: Grant {
                approver: approver.to_owned(),
                token_id: token_id.to_owned(),
                usable_until: expires_at.plus(LEEWAY),
            },
            key: verified.key.numbers(),
        })
    }

    fn require_subject(&self, claims: &Claims) -> Result<(), ApprovalFault> {
        let scope = &self.subject.scope;
        for (name, expected) in [
            ("operation", self.subject.operation.as_str()),
            ("tenant_id", scope.tenant_id.as_str()),
            ("environment", scope.environment.as_str()),
            ("plane", scope.plane.as_str()),
        ] {
            require(name, claims.text(name)? == expected)?;
        }
        match &self.subject.target {
            ApprovalTarget::Key(key_id) => {
                let named: Option<KeyId> = claims.text("key_id")?.parse().ok();
                require("key_id", named == Some(*key_id))
            }
            ApprovalTarget::NewKey {
                key_type,
                key_usage,
            } => {
                let named: Option<KeyType> = claims.text("key_type")?.parse().ok();
                require("key_type", named == Some(*key_type))?;
                require("key_usage", usage(claims)? == Some(*key_usage))
            }
            ApprovalTarget::Certificate { fingerprint } => {
                require("fingerprint", claims.text("fingerprint")? == fingerprint)
            }
        }
    }
}

fn require(claim: &'static str, is_so: bool) -> Result<(), ApprovalFault> {
    if is_so {
        Ok(())
    } else {
        Err(ApprovalFault::Mismatch(claim))
    }
}

/// The claim `key_usage` as a set; `None` for what no key has.
fn usage(claims: &Claims) -> Result<Option<KeyUsageSet>, ApprovalFault> {
    let usages: Option<Vec<KeyUsage>> = claims
        .texts("key_usage")?
        .into_iter()
        .map(|usage| usage.parse().ok())
        .collect();
    Ok(usages.and_then(KeyUsageSet::of))
}

#[cfg(test)]
mod tests;
