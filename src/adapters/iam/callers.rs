//! Who calls: by the client certificate, and by the token of the identity
//! service where one is brought or required.

use std::sync::Arc;

use crate::domain::caller::{Caller, Credentials, Reach};
use crate::domain::error::{AuthenticationFault, KmsError, TokenFault};
use crate::domain::ids::{ModuleId, TenantId};
use crate::domain::peer::PeerIdentity;
use crate::domain::scope::Environment;
use crate::domain::secret::SecretBytes;
use crate::domain::time::Timestamp;

use super::claims::{ClaimFault, Claims};
use super::key_set_source::KeySetSource;
use super::token::{self, JwsFault};

/// The module of a development caller that names none.
const DEFAULT_MODULE: &str = "M21";

/// How tokens of the identity service are judged.
pub struct TokenRules {
    /// The keys that sign them.
    pub keys: Arc<KeySetSource>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must name.
    pub audience: Option<String>,
}

/// How callers are identified.
pub struct CallerRules {
    /// How tokens are judged; `None` where this service is not set up for any.
    pub tokens: Option<TokenRules>,
    /// Whether every request needs one.
    pub require_token: bool,
    /// Whether a caller without a certificate is believed: on a developer's own
    /// machine, over plain HTTP, and nowhere else.
    pub believe_unidentified: bool,
}

impl From<JwsFault> for TokenFault {
    fn from(fault: JwsFault) -> Self {
        match fault {
            JwsFault::Malformed => Self::Malformed,
            JwsFault::Algorithm => Self::Algorithm,
            JwsFault::UnknownKey => Self::UnknownKey,
            JwsFault::Signature => Self::Signature,
        }
    }
}

impl From<ClaimFault> for TokenFault {
    fn from(fault: ClaimFault) -> Self {
        match fault {
            ClaimFault::Missing(claim) => Self::ClaimMissing(claim),
            ClaimFault::Expired => Self::Expired,
            ClaimFault::NotYetValid => Self::NotYetValid,
        }
    }
}

/// What a verified token says of its bearer. Texts as they came: a value that is
/// no module's or tenant's name is nobody's.
struct Bearer {
    subject: String,
    module: Option<ModuleId>,
    tenant_id: Option<TenantId>,
    environment: Option<Environment>,
}

impl CallerRules {
    /// Establishes who calls.
    ///
    /// # Errors
    /// [`KmsError::Unauthenticated`] with the rule that failed;
    /// [`KmsError::DependencyUnavailable`] while a token cannot be checked.
    pub(super) fn identify(
        &self,
        credentials: Credentials,
        now: Timestamp,
    ) -> Result<Caller, KmsError> {
        let Credentials {
            peer,
            bearer,
            claimed_module,
        } = credentials;
        match peer {
            // What the caller says of its module is not asked: its certificate does.
            Some(peer) => self.identify_peer(peer, bearer.as_ref(), now),
            None if self.believe_unidentified => {
                self.believe(claimed_module.as_deref(), bearer.as_ref(), now)
            }
            None => Err(AuthenticationFault::NoCertificate.into()),
        }
    }

    fn identify_peer(
        &self,
        peer: Arc<PeerIdentity>,
        token: Option<&SecretBytes>,
        now: Timestamp,
    ) -> Result<Caller, KmsError> {
        if now >= peer.not_after {
            return Err(AuthenticationFault::CertificateExpired.into());
        }
        if token.is_some() && self.tokens.is_none() {
            return Err(refused(TokenFault::NotExpected));
        }
        let Some(bearer) = self.bearer(token, now)? else {
            return Ok(Caller::of_peer(peer, None));
        };
        let scope = peer.spiffe_id.scope();
        for (claim, is_so) in [
            (
                "module_id",
                bearer.module.as_ref() == Some(peer.spiffe_id.module()),
            ),
            (
                "tenant_id",
                bearer.tenant_id.as_ref() == Some(&scope.tenant_id),
            ),
            ("environment", bearer.environment == Some(scope.environment)),
        ] {
            if !is_so {
                return Err(refused(TokenFault::Inconsistent(claim)));
            }
        }
        Ok(Caller::of_peer(peer, Some(bearer.subject)))
    }

    /// A caller without a certificate, believed. A token that can be checked is
    /// not taken on faith: it decides module, tenant and environment. There is no
    /// plane in it, so every plane of them is within reach.
    fn believe(
        &self,
        claimed_module: Option<&str>,
        token: Option<&SecretBytes>,
        now: Timestamp,
    ) -> Result<Caller, KmsError> {
        let claimed: Option<ModuleId> = claimed_module
            .map(str::parse)
            .transpose()
            .map_err(|_| AuthenticationFault::MalformedModuleHeader)?;
        // Without keys a token says nothing, as it did before there were any.
        let Some(bearer) = self.bearer(token, now)? else {
            return Ok(Caller::new(
                claimed.unwrap_or_else(default_module),
                Reach::AnyScope,
            ));
        };
        let missing = |claim| refused(TokenFault::ClaimMissing(claim));
        let module = bearer.module.ok_or_else(|| missing("module_id"))?;
        if claimed.is_some_and(|claimed| claimed != module) {
            return Err(refused(TokenFault::OtherModule));
        }
        let reach = Reach::Tenant {
            tenant_id: bearer.tenant_id.ok_or_else(|| missing("tenant_id"))?,
            environment: bearer.environment.ok_or_else(|| missing("environment"))?,
        };
        Ok(Caller::of_token(module, reach, bearer.subject))
    }

    /// What the token says, where there is one and this service has keys.
    fn bearer(
        &self,
        token: Option<&SecretBytes>,
        now: Timestamp,
    ) -> Result<Option<Bearer>, KmsError> {
        match (&self.tokens, token) {
            (Some(rules), Some(token)) => rules.verify(token, now).map(Some),
            (_, None) if self.require_token => Err(refused(TokenFault::Missing)),
            (_, _) => Ok(None),
        }
    }
}

impl TokenRules {
    fn verify(&self, token: &SecretBytes, now: Timestamp) -> Result<Bearer, KmsError> {
        let keys = self.keys.keys()?;
        let verified = token::verify(token.expose(), &keys).map_err(|fault| {
            if fault == JwsFault::UnknownKey {
                self.keys.want_refresh();
            }
            refused(fault.into())
        })?;
        self.judge(&verified.claims, now).map_err(refused)
    }

    /// The claims, in this order: what must be there, the times, issuer and
    /// audience.
    fn judge(&self, claims: &Claims, now: Timestamp) -> Result<Bearer, TokenFault> {
        let bearer = Bearer {
            subject: claims.text("sub")?.to_owned(),
            module: claims.text("module_id")?.parse().ok(),
            tenant_id: claims.text("tenant_id")?.parse().ok(),
            environment: claims.text("environment")?.parse().ok(),
        };
        claims.require_not_expired(now)?;
        claims.require_begun(now)?;
        if let Some(issuer) = &self.issuer
            && claims.text("iss")? != issuer
        {
            return Err(TokenFault::Issuer);
        }
        if let Some(audience) = &self.audience
            && !claims.texts("aud")?.contains(&audience.as_str())
        {
            return Err(TokenFault::Audience);
        }
        Ok(bearer)
    }
}

fn refused(fault: TokenFault) -> KmsError {
    AuthenticationFault::Token(fault).into()
}

fn default_module() -> ModuleId {
    DEFAULT_MODULE
        .parse()
        .expect("the default module is a module's name")
}

#[cfg(test)]
mod tests;
