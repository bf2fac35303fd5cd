//! Dual authorization: whether a second person agreed.

use super::{KmsService, RequestContext};
use crate::domain::approval::{Approval, ApprovalSubject, approval_refused};
use crate::domain::error::{ApprovalFault, KmsError};
use crate::domain::lifecycle_permit::Consent;

impl KmsService {
    /// The consent to a subject: an approval where the configuration asks for
    /// one, else its word that none is needed.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`] with the rule that failed.
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

    /// The approval that came with the request, verified for this subject.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`] with the rule that failed.
    pub(super) async fn verify_approval(
        &self,
        context: &RequestContext,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let token = context
            .approval
            .as_ref()
            .ok_or_else(|| approval_refused(ApprovalFault::Missing))?;
        self.ports
            .iam
            .verify_approval(&context.caller, token, subject)
            .await
    }
}
