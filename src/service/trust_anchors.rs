//! Taking in trust anchors.

use bytes::Bytes;

use super::approvals::{already_used, spend};
use super::pipeline::{RefusedSubject, store_away};
use super::{KmsService, RequestContext};
use crate::domain::approval::{ApprovalOperation, ApprovalSubject, ApprovalTarget, Grant};
use crate::domain::error::{CertificateFault, KmsError, RequestFault};
use crate::domain::ids::{ReceiptId, TrustAnchorId};
use crate::domain::lifecycle_permit::check_anchor_consent;
use crate::domain::receipt::{KmsContext, ReceiptOperation};
use crate::domain::scope::Scope;
use crate::domain::trust_anchor::{AnchorType, TrustAnchor};
use crate::ports::data_plane::{Change, CommitError, Conflict, Transaction};

/// A certificate to be taken in.
pub struct AddTrustAnchorRequest {
    /// Whose anchor.
    pub scope: Scope,
    /// DER or PEM.
    pub certificate: Bytes,
    /// What it is to be.
    pub anchor_type: AnchorType,
}

/// A certificate that was taken in.
pub struct TrustAnchorAdded {
    /// The anchor.
    pub anchor: TrustAnchor,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

impl KmsService {
    /// Takes in a trust anchor.
    ///
    /// # Errors
    /// [`RequestFault::Certificate`] with the rule it breaks;
    /// [`KmsError::Unauthorized`]; [`KmsError::DependencyUnavailable`].
    pub async fn add_trust_anchor(
        &self,
        context: &RequestContext,
        request: AddTrustAnchorRequest,
    ) -> Result<TrustAnchorAdded, KmsError> {
        let scope = &request.scope;
        let operation = ReceiptOperation::TrustAnchorAdded;
        let refusal = match self.inspect_anchor(context, &request).await {
            Ok((anchor, grants)) => match self.keep_anchor(context, anchor, &grants).await {
                Ok(added) => return Ok(added),
                Err(CommitError::Conflict(Conflict::DuplicateAnchor)) => {
                    RequestFault::Certificate(CertificateFault::Duplicate).into()
                }
                Err(CommitError::Conflict(Conflict::GrantSpent)) => already_used(),
                Err(CommitError::Conflict(other)) => return Err(KmsError::internal(other)),
                Err(CommitError::Unavailable(away)) => return Err(store_away(away)),
            },
            Err(refusal) => refusal,
        };
        let about = RefusedSubject::default();
        Err(self.refuse(context, scope, operation, about, refusal).await)
    }

    /// The anchor that would be taken in, and who agreed.
    async fn inspect_anchor(
        &self,
        context: &RequestContext,
        request: &AddTrustAnchorRequest,
    ) -> Result<(TrustAnchor, Vec<Grant>), KmsError> {
        context.caller.authorize(&request.scope)?;
        let now = self.ports.clock.now();
        let certificate = self
            .ports
            .trust_plane
            .inspect(&request.certificate, request.anchor_type, now)
            .map_err(RequestFault::Certificate)?;
        let subject = ApprovalSubject {
            operation: ApprovalOperation::TrustAnchorAdd,
            scope: request.scope.clone(),
            target: ApprovalTarget::Certificate {
                fingerprint: certificate.fingerprint.clone(),
            },
        };
        let consent = self.consent(context, &subject).await?;
        check_anchor_consent(&subject, &consent)?;
        let anchor = TrustAnchor {
            trust_anchor_id: TrustAnchorId::generate(),
            scope: request.scope.clone(),
            anchor_type: request.anchor_type,
            certificate,
            added_at: now,
            added_by: context.caller.module().clone(),
        };
        Ok((anchor, consent.grants().to_vec()))
    }

    async fn keep_anchor(
        &self,
        context: &RequestContext,
        anchor: TrustAnchor,
        grants: &[Grant],
    ) -> Result<TrustAnchorAdded, CommitError> {
        let receipt = self
            .sign_receipt(
                context,
                &anchor.scope,
                ReceiptOperation::TrustAnchorAdded,
                KmsContext {
                    key_id: Some(anchor.trust_anchor_id.to_string()),
                    algorithm: None,
                    key_size_bits: None,
                    success: true,
                    error_code: None,
                    approvals: grants.to_vec(),
                },
            )
            .map_err(|error| crate::ports::data_plane::Unavailable(Box::new(error)))?;
        let receipt_id = receipt.receipt_id;
        let mut changes = vec![Change::InsertTrustAnchor(anchor.clone())];
        changes.extend(spend(grants));
        self.ports
            .data_plane
            .commit(Transaction {
                key_use: None,
                changes,
                receipts: vec![receipt],
            })
            .await?;
        Ok(TrustAnchorAdded { anchor, receipt_id })
    }
}
