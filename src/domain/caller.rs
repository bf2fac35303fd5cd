//! Who calls, once somebody has found out.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::{AuthorizationFault, KmsError};
use super::ids::{ModuleId, TenantId};
use super::peer::{PeerIdentity, VouchedBy};
use super::scope::{Environment, Scope};
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
    /// Every plane of one tenant's environment: what a token says, which names no
    /// plane.
    Tenant {
        /// The tenant.
        tenant_id: TenantId,
        /// The environment.
        environment: Environment,
    },
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

    /// The caller that a token names, where no certificate does.
    pub fn of_token(module: ModuleId, reach: Reach, subject: String) -> Self {
        Self {
            subject: Some(subject),
            ..Self::new(module, reach)
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
    pub fn accountable_scope<'a>(&'a self, requested: &'a Scope) -> Cow<'a, Scope> {
        match &self.reach {
            Reach::Scope(own) => Cow::Borrowed(own),
            Reach::Tenant {
                tenant_id,
                environment,
            } => Cow::Owned(Scope {
                tenant_id: tenant_id.clone(),
                environment: *environment,
                plane: requested.plane,
            }),
            Reach::AnyScope => Cow::Borrowed(requested),
        }
    }

    /// Whether this caller may read what belongs to every tenant: it is one of these
    /// modules, and not on the word of a tenant, whose anchors vouch for any module
    /// of the tenant's.
    ///
    /// # Errors
    /// [`AuthorizationFault::NotAnAuditor`].
    pub fn authorize_audit(&self, auditors: &[ModuleId]) -> Result<(), KmsError> {
        let is_trusted = self
            .peer()
            .is_none_or(|peer| peer.vouched_by == VouchedBy::Platform);
        if is_trusted && auditors.contains(&self.module) {
            Ok(())
        } else {
            Err(AuthorizationFault::NotAnAuditor.into())
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
            Reach::Tenant {
                tenant_id,
                environment,
            } if *tenant_id == scope.tenant_id && *environment == scope.environment => Ok(()),
            Reach::Scope(_) | Reach::Tenant { .. } => Err(AuthorizationFault::ForeignScope.into()),
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

    #[test]
    fn an_auditor_is_a_module_of_the_list_that_no_tenant_made_up() {
        let module = |name: &str| name.parse::<ModuleId>().expect("valid");
        let auditors = [module("M27"), module("M90")];
        let peer = |name: &str, vouched_by| {
            let uri = format!("spiffe://d/tenant/acme/env/prod/plane/tenant/module/{name}");
            let peer = PeerIdentity {
                spiffe_id: crate::domain::peer::SpiffeId::parse(&uri).expect("a name"),
                public_key: None,
                not_after: "2100-01-01T00:00:00Z".parse().expect("valid"),
                vouched_by,
            };
            Caller::of_peer(Arc::new(peer), None)
        };
        for (caller, may) in [
            (peer("M27", VouchedBy::Platform), true),
            (peer("M27", VouchedBy::Tenant), false),
            (peer("M21", VouchedBy::Platform), false),
            (Caller::new(module("M90"), Reach::AnyScope), true),
            (Caller::new(module("M21"), Reach::AnyScope), false),
        ] {
            assert_eq!(caller.authorize_audit(&auditors).is_ok(), may, "{caller:?}");
            assert!(caller.authorize_audit(&[]).is_err());
        }
    }

    #[test]
    fn a_caller_with_a_tenant_reaches_every_plane_of_it_and_answers_for_no_other() {
        let own = Scope {
            tenant_id: "a".parse().expect("valid"),
            environment: Environment::Prod,
            plane: Plane::Tenant,
        };
        let reach = Reach::Tenant {
            tenant_id: own.tenant_id.clone(),
            environment: own.environment,
        };
        let caller = Caller::of_token("M21".parse().expect("valid"), reach, "s".to_owned());
        let laptop = Scope {
            plane: Plane::Laptop,
            ..own.clone()
        };
        assert!(caller.authorize(&own).is_ok() && caller.authorize(&laptop).is_ok());
        let foreign = [
            Scope {
                tenant_id: "b".parse().expect("valid"),
                ..own.clone()
            },
            Scope {
                environment: Environment::Dev,
                ..own.clone()
            },
        ];
        for scope in foreign {
            assert!(caller.authorize(&scope).is_err(), "{scope:?}");
            assert_eq!(*caller.accountable_scope(&scope), own);
        }
    }
}
