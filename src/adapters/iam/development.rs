//! Identities and approvals for development: everybody without a certificate is
//! believed.
//!
//! Not to be reached from a network; the configuration allows it in the
//! environment `development` only.

use async_trait::async_trait;

use crate::domain::approval::{Approval, ApprovalSubject, ApprovalToken, approval_refused};
use crate::domain::caller::{Caller, Credentials, Reach};
use crate::domain::error::{ApprovalFault, AuthenticationFault, KmsError};
use crate::domain::ids::ModuleId;
use crate::ports::iam::IamClient;

/// The module of a caller that names none.
const DEFAULT_MODULE: &str = "M21";

/// What every approval token has at least, in bytes.
const SHORTEST_TOKEN: usize = 10;

/// Takes callers at their word.
pub struct DevelopmentIam {
    default_module: ModuleId,
}

impl DevelopmentIam {
    /// A client that believes.
    pub fn new() -> Self {
        Self {
            default_module: DEFAULT_MODULE
                .parse()
                .expect("the default module is a module's name"),
        }
    }
}

impl Default for DevelopmentIam {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl IamClient for DevelopmentIam {
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, KmsError> {
        if let Some(peer) = credentials.peer {
            return Ok(Caller::of_peer(peer, None));
        }
        let module = match credentials.claimed_module {
            None => self.default_module.clone(),
            Some(name) => name
                .parse()
                .map_err(|_| AuthenticationFault::MalformedModuleHeader)?,
        };
        Ok(Caller::new(module, Reach::AnyScope))
    }

    async fn verify_approval(
        &self,
        _caller: &Caller,
        token: &ApprovalToken,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        if token.len() < SHORTEST_TOKEN {
            return Err(approval_refused(ApprovalFault::TooShort));
        }
        Ok(Approval::new(subject.clone(), Vec::new()))
    }
}
