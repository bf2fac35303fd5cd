//! Who calls, once somebody has found out.

use std::sync::Arc;

use super::error::{AuthorizationFault, KmsError};
use super::ids::ModuleId;
use super::peer::PeerIdentity;
use super::scope::Scope;
use super::secret::SecretBytes;

/// What a request brought along to say who sent it. Nothing here is believed
/// until the IAM port has made a [`Caller`] of it, but for the peer, whose
/// certificate was validated before the first byte of the request.
#[derive(Default)]
pub struct Credentials {
    /// The owner of the connection's client certificate, where it has one.
    pub peer: Option<Arc<PeerIdentity>>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<SecretBytes>,
    /// The text of `X-Module-Id`.
    pub claimed_module: Option<String>,
}

/// A caller whose identity has been established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    module: ModuleId,
    reach: Reach,
    peer: Option<Arc<PeerIdentity>>,
    subject: Option<String>,
}

/// Which scopes a caller may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its own, and no other.
    Scope(Scope),
    /// Whichever the request names.
    AnyScope,
}

impl Caller {
    /// A caller of this module with this reach. For the IAM adapters, which are
    /// the ones to know.
    pub fn new(module: ModuleId, reach: Reach) -> Self {
        Self {
            module,
            reach,
            peer: None,
            subject: None,
        }
    }

    /// The caller that a certificate names, and the subject (`sub`) of its token
    /// where it brought one.
    pub fn of_peer(peer: Arc<PeerIdentity>, subject: Option<String>) -> Self {
        Self {
            module: peer.spiffe_id.module().clone(),
            reach: Reach::Scope(peer.spiffe_id.scope().clone()),
            peer: Some(peer),
            subject,
        }
    }

    /// The module that calls.
    pub fn module(&self) -> &ModuleId {
        &self.module
    }

    /// The owner of the client certificate, where there is one.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.as_deref()
    }

    /// Who the caller's token says it is (`sub`), where there is one.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The scope in whose part of the ledger a refusal belongs: the caller's own
    /// where it has one, so that nobody writes into another tenant's.
    pub fn accountable_scope<'a>(&'a self, requested: &'a Scope) -> &'a Scope {
        match &self.reach {
            Reach::Scope(own) => own,
            Reach::AnyScope => requested,
        }
    }
    /// Whether this caller may speak for that scope.
    ///
    /// # Errors
    /// [`AuthorizationFault::ForeignScope`] when it may not.
    pub fn authorize(&self, scope: &Scope) -> Result<(), KmsError> {
        match &self.reach {
            Reach::AnyScope => Ok(()),
            Reach::Scope(own) if own == scope => Ok(()),
            Reach::Scope(_) => Err(AuthorizationFault::ForeignScope.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::scope::{Environment, Plane};

    #[test]
    fn a_caller_with_a_scope_reaches_that_scope_only() {
        let own = Scope {
            tenant_id: "a".parse().expect("valid"),
            environment: Environment::Prod,
            plane: Plane::Tenant,
        };
        let module: ModuleId = "M21".parse().expect("valid");
        let caller = Caller::new(module.clone(), Reach::Scope(own.clone()));
        assert!(caller.authorize(&own).is_ok());
        let foreign = [
            Scope {
                tenant_id: "b".parse().expect("valid"),
                ..own.clone()
            },
            Scope {
                environment: Environment::Dev,
                ..own.clone()
            },
            Scope {
                plane: Plane::Laptop,
                ..own
            },
        ];
        for scope in foreign {
            assert!(caller.authorize(&scope).is_err(), "{scope:?}");
            assert!(
                Caller::new(module.clone(), Reach::AnyScope)
                    .authorize(&scope)
                    .is_ok()
            );
        }
    }
}
