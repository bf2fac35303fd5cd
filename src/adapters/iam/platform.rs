//! The client of identity and access management: who calls, by `callers`, and
//! who agreed, by `approvals`.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::approval::{Approval, ApprovalSubject, ApprovalToken, approval_refused};
use crate::domain::caller::{Caller, Credentials};
use crate::domain::error::{ApprovalFault, AuthorizationFault, KmsError};
use crate::ports::clock::Clock;
use crate::ports::iam::IamClient;

use super::approvals;
use super::callers::CallerRules;
use super::key_set_source::KeySetSource;

/// What every approval has at least in development, in bytes.
const SHORTEST_TOKEN: usize = 10;

/// What counts as an approval.
pub struct ApprovalRules {
    /// How it is verified.
    pub mode: ApprovalCheck,
    /// How many approvers it takes.
    pub quorum: u8,
}

/// How approvals are verified.
pub enum ApprovalCheck {
    /// Not at all: any ten characters count. For trying the service out.
    Development,
    /// By the signatures of the approvers whose keys these are.
    Signed(Arc<KeySetSource>),
}

/// Identities and approvals by the rules of the configuration.
pub struct PlatformIam {
    callers: CallerRules,
    approvals: ApprovalRules,
    clock: Arc<dyn Clock>,
}

impl PlatformIam {
    /// A client with these rules.
    pub fn new(callers: CallerRules, approvals: ApprovalRules, clock: Arc<dyn Clock>) -> Self {
        Self {
            callers,
            approvals,
            clock,
        }
    }

    /// A client that believes everybody and takes any ten characters: for a
    /// developer's own machine and for tests.
    pub fn development(clock: Arc<dyn Clock>) -> Self {
        let callers = CallerRules {
            tokens: None,
            require_token: false,
            believe_unidentified: true,
        };
        let approvals = ApprovalRules {
            mode: ApprovalCheck::Development,
            quorum: 1,
        };
        Self::new(callers, approvals, clock)
    }
}

#[async_trait]
impl IamClient for PlatformIam {
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, KmsError> {
        self.callers.identify(credentials, self.clock.now())
    }

    async fn verify_approval(
        &self,
        caller: &Caller,
        token: &ApprovalToken,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let quorum = self.approvals.quorum;
        match &self.approvals.mode {
            ApprovalCheck::Development => count_words(token.expose(), quorum)
                .map(|()| Approval::new(subject.clone(), Vec::new()))
                .map_err(approval_refused),
            ApprovalCheck::Signed(source) => {
                let keys = source.keys()?;
                let now = self.clock.now();
                approvals::verify(token.expose(), &keys, caller, subject, quorum, now).inspect_err(
                    |error| {
                        if is_unknown_key(error) {
                            source.want_refresh();
                        }
                    },
                )
            }
        }
    }
}

/// Without signatures one person is as good as another, so only the number counts.
fn count_words(token: &[u8], quorum: u8) -> Result<(), ApprovalFault> {
    let words = match quorum {
        1 => vec![token],
        _ => approvals::split(token)?,
    };
    if words.iter().any(|word| word.len() < SHORTEST_TOKEN) {
        return Err(ApprovalFault::TooShort);
    }
    let given = u8::try_from(words.len()).unwrap_or(approvals::MOST_TOKENS);
    if given < quorum {
        let needed = quorum;
        return Err(ApprovalFault::Quorum { needed, given });
    }
    Ok(())
}

fn is_unknown_key(error: &KmsError) -> bool {
    matches!(
        error,
        KmsError::Unauthorized(AuthorizationFault::Approval(ApprovalFault::UnknownKey))
    )
}

#[cfg(test)]
mod tests {
    use super::super::key_set_source::{KeySetOrigin, KeySetRole};
    use super::super::testing::Signer;
    use super::*;
    use crate::adapters::clock::SystemClock;
    use crate::domain::approval::{ApprovalOperation, ApprovalTarget};
    use crate::domain::error::AuthenticationFault;
    use crate::domain::ids::KeyId;
    use crate::domain::scope::{Environment, Plane, Scope};
    use crate::domain::secret::SecretBytes;
    use crate::telemetry::metrics::Metrics;

    fn subject() -> ApprovalSubject {
        ApprovalSubject {
            operation: ApprovalOperation::KeyRotate,
            scope: Scope {
                tenant_id: "t".parse().expect("valid"),
                environment: Environment::Dev,
                plane: Plane::Tenant,
            },
            target: ApprovalTarget::Key(KeyId::generate()),
        }
    }

    async fn judged(quorum: u8, token: &str) -> Result<Approval, KmsError> {
        let mut iam = PlatformIam::development(Arc::new(SystemClock));
        iam.approvals.quorum = quorum;
        let caller = iam.authenticate(Credentials::default()).await?;
        let token = SecretBytes::from(token.to_owned());
        iam.verify_approval(&caller, &token, &subject()).await
    }

    #[tokio::test]
    async fn development_believes_the_module_header_and_defaults_to_m21() {
        let iam = PlatformIam::development(Arc::new(SystemClock));
        for (claimed, module) in [(None, "M21"), (Some("M27"), "M27"), (Some("EPC-3"), "M23")] {
            let caller = iam
                .authenticate(Credentials {
                    claimed_module: claimed.map(str::to_owned),
                    ..Credentials::default()
                })
                .await
                .expect("believed");
            assert_eq!(caller.module().as_str(), module);
            assert!(caller.authorize(&subject().scope).is_ok());
        }
        let malformed = Credentials {
            claimed_module: Some("not a module".to_owned()),
            ..Credentials::default()
        };
        let refusal = iam.authenticate(malformed).await.err();
        assert!(matches!(
            refusal,
            Some(KmsError::Unauthenticated(
                AuthenticationFault::MalformedModuleHeader
            ))
        ));
    }

    #[tokio::test]
    async fn development_takes_any_ten_characters_and_no_fewer() {
        assert!(judged(1, "0123456789").await.is_ok());
        assert!(judged(1, "012345678").await.is_err());
        // One token may have commas in it, as it always could.
        assert!(judged(1, "a,b,c,d,e,f").await.is_ok());
    }

    #[tokio::test]
    async fn an_approval_of_an_unknown_key_asks_for_a_new_set() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("approvers.json");
        let known = Signer::ed25519("known", 1);
        std::fs::write(&path, Signer::set_text(&[&known])).expect("written");
        let source = Arc::new(KeySetSource::new(
            KeySetRole::Approvers,
            KeySetOrigin::File(path),
            Arc::new(SystemClock),
            Arc::new(Metrics::new("test").expect("names are unique")),
        ));
        let mut iam = PlatformIam::development(Arc::new(SystemClock));
        iam.approvals.mode = ApprovalCheck::Signed(Arc::clone(&source));
        let caller = iam.authenticate(Credentials::default()).await;
        let caller = caller.expect("believed");
        let judge = |signer: &Signer| {
            let token = SecretBytes::from(signer.token(&serde_json::json!({})));
            let (iam, caller) = (&iam, &caller);
            async move { iam.verify_approval(caller, &token, &subject()).await.err() }
        };
        assert!(matches!(
            judge(&known).await,
            Some(KmsError::DependencyUnavailable { .. })
        ));
        source.start().await.expect("a good file");
        assert!(judge(&known).await.is_some() && !source.is_missed());
        let unknown = judge(&Signer::ed25519("unknown", 2)).await;
        assert!(unknown.as_ref().is_some_and(is_unknown_key), "{unknown:?}");
        assert!(source.is_missed());
    }

    #[tokio::test]
    async fn development_counts_the_tokens_of_a_quorum() {
        assert!(judged(2, "0123456789,0123456789").await.is_ok());
        assert!(judged(2, "0123456789").await.is_err());
        assert!(judged(2, "0123456789,short").await.is_err());
        assert!(judged(2, &["0123456789"; 9].join(",")).await.is_err());
    }
}
