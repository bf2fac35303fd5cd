//! Dual authorization: whether a second person agreed.

use super::pipeline::store_away;
use super::{KmsService, RequestContext};
use crate::domain::approval::{Approval, ApprovalSubject, Grant, approval_refused};
use crate::domain::error::{ApprovalFault, KmsError};
use crate::domain::lifecycle_permit::Consent;
use crate::ports::data_plane::Change;

impl KmsService {
    /// The consent to a subject: an approval where the configuration asks for
    /// one, else its word that none is needed.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`] with the rule that failed;
    /// [`KmsError::DependencyUnavailable`].
    pub(super) async fn consent(
        &self,
        context: &RequestContext,
        subject: &ApprovalSubject,
    ) -> Result<Consent, KmsError> {
        if self.policy.approvals.requires(subject.operation) {
            self.verify_approval(context, subject)
                .await
                .map(Consent::Approved)
        } else {
            Ok(Consent::NotRequired)
        }
    }

    /// The approval that came with the request, verified for this subject and not
    /// known to be used.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`] with the rule that failed;
    /// [`KmsError::DependencyUnavailable`].
    pub(super) async fn verify_approval(
        &self,
        context: &RequestContext,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let verified = self.verify_unseen_approval(context, subject).await;
        match &verified {
            Ok(_) => self.metrics.count_approval(true),
            Err(KmsError::Unauthorized(_)) => self.metrics.count_approval(false),
            // Nobody could tell whether it is good.
            Err(_) => {}
        }
        verified
    }

    async fn verify_unseen_approval(
        &self,
        context: &RequestContext,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let token = context
            .approval
            .as_ref()
            .ok_or_else(|| approval_refused(ApprovalFault::Missing))?;
        let approval = self
            .ports
            .iam
            .verify_approval(&context.caller, token, subject)
            .await?;
        for grant in approval.grants() {
            let is_spent = self.ports.data_plane.is_grant_spent(&grant.token_id).await;
            // Only to spare the work: the transaction decides.
            if is_spent.map_err(store_away)? {
                return Err(already_used());
            }
        }
        Ok(approval)
    }
}

/// What spends these grants in the transaction of the deed they were given for.
/// A refusal spends none: its approvers have agreed to nothing that happened.
pub(super) fn spend(grants: &[Grant]) -> impl Iterator<Item = Change> {
    grants.iter().cloned().map(Change::SpendGrant)
}

/// The refusal of whoever comes second with an approval.
pub(super) fn already_used() -> KmsError {
    approval_refused(ApprovalFault::AlreadyUsed)
}
