//! `IamClient` (M21): who calls, and who agreed.

use async_trait::async_trait;

use crate::domain::approval::{Approval, ApprovalSubject, ApprovalToken};
use crate::domain::caller::{Caller, Credentials};
use crate::domain::error::KmsError;

/// The client of identity and access management.
#[async_trait]
pub trait IamClient: Send + Sync + 'static {
    /// Establishes who calls from what the request brought along.
    ///
    /// # Errors
    /// [`KmsError::Unauthenticated`] when nobody can be told;
    /// [`KmsError::DependencyUnavailable`] when nobody can be asked.
    async fn authenticate(&self, credentials: Credentials) -> Result<Caller, KmsError>;

    /// Verifies that a second person, or as many as the quorum asks for, agreed
    /// to exactly this subject. That each agreement counts once is not seen
    /// here: whoever acts on the approval spends its grants.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`] with the rule that failed;
    /// [`KmsError::DependencyUnavailable`] when nobody can be asked.
    async fn verify_approval(
        &self,
        caller: &Caller,
        token: &ApprovalToken,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError>;
}
