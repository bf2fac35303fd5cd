//! Taking in, listing and removing trust anchors.

use bytes::Bytes;

use super::anchors_in_doubt::{UnsettledChange, dismiss_if_gone};
use super::pipeline::{RefusedSubject, store_away};
use super::{KmsService, RequestContext};
use crate::domain::approval::{
    ApprovalOperation, ApprovalSubject, ApprovalTarget, Grant, approval_refused,
};
use crate::domain::error::{ApprovalFault, CertificateFault, KmsError, RequestFault};
use crate::domain::ids::{ReceiptId, TrustAnchorId};
use crate::domain::lifecycle_permit::{Consent, check_anchor_consent};
use crate::domain::receipt::{KmsContext, ReceiptOperation};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, TrustAnchor};
use crate::ports::data_plane::{AnchorQuery, Change, CommitError, Conflict, Transaction};

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

/// Which anchors to list.
pub struct ListTrustAnchorsRequest {
    /// Whose.
    pub scope: Scope,
    /// Only those after this one.
    pub after: Option<TrustAnchorId>,
    /// At most so many.
    pub limit: usize,
}

/// One page of anchors.
pub struct TrustAnchorListing {
    /// The anchors, oldest first.
    pub anchors: Vec<TrustAnchor>,
    /// Where the next page begins, if there is one.
    pub next: Option<TrustAnchorId>,
}

/// An anchor that was removed.
pub struct TrustAnchorRemoved {
    /// Its id.
    pub trust_anchor_id: TrustAnchorId,
    /// When.
    pub removed_at: Timestamp,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// Why a change was not made, and what is left to do about it.
enum Failure {
    /// Refused: the refusal gets its receipt.
    Refused(KmsError),
    /// The store or the ledger failed, so there is nowhere to put a receipt.
    NotKept(KmsError),
}

impl From<KmsError> for Failure {
    fn from(refusal: KmsError) -> Self {
        Self::Refused(refusal)
    }
}

impl KmsService {
    /// Takes in a trust anchor, which is in force before this answers.
    ///
    /// # Errors
    /// [`RequestFault::Certificate`] with the rule it breaks;
    /// [`KmsError::Unauthorized`]; [`KmsError::DependencyUnavailable`].
    pub async fn add_trust_anchor(
        &self,
        context: &RequestContext,
        request: AddTrustAnchorRequest,
    ) -> Result<TrustAnchorAdded, KmsError> {
        let operation = ReceiptOperation::TrustAnchorAdded;
        match self.try_add(context, &request).await {
            Ok(added) => Ok(added),
            Err(Failure::NotKept(away)) => Err(away),
            Err(Failure::Refused(refusal)) => {
                let about = RefusedSubject::default();
                let scope = &request.scope;
                Err(self.refuse(context, scope, operation, about, refusal).await)
            }
        }
    }

    /// One page of a scope's trust anchors.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::DependencyUnavailable`].
    pub async fn list_trust_anchors(
        &self,
        context: &RequestContext,
        request: ListTrustAnchorsRequest,
    ) -> Result<TrustAnchorListing, KmsError> {
        context.caller.authorize(&request.scope)?;
        let page = self
            .ports
            .data_plane
            .list_trust_anchors(AnchorQuery {
                scope: request.scope,
                after: request.after,
                limit: request.limit,
            })
            .await
            .map_err(store_away)?;
        let next = page
            .has_more
            .then(|| page.anchors.last().map(|anchor| anchor.trust_anchor_id))
            .flatten();
        Ok(TrustAnchorListing {
            anchors: page.anchors,
            next,
        })
    }

    /// Removes a trust anchor. Before this answers it vouches for nobody, and what
    /// lives by it is told.
    ///
    /// # Errors
    /// [`RequestFault::UnknownTrustAnchor`], for one of another scope too;
    /// [`KmsError::Unauthorized`]; [`KmsError::DependencyUnavailable`].
    pub async fn remove_trust_anchor(
        &self,
        context: &RequestContext,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<TrustAnchorRemoved, KmsError> {
        let operation = ReceiptOperation::TrustAnchorRemoved;
        match self.try_remove(context, scope, trust_anchor_id).await {
            Ok(removed) => Ok(removed),
            Err(Failure::NotKept(away)) => Err(away),
            Err(Failure::Refused(refusal)) => {
                let about = RefusedSubject {
                    id: Some(trust_anchor_id.to_string()),
                    ..RefusedSubject::default()
                };
                Err(self.refuse(context, scope, operation, about, refusal).await)
            }
        }
    }

    async fn try_add(
        &self,
        context: &RequestContext,
        request: &AddTrustAnchorRequest,
    ) -> Result<TrustAnchorAdded, Failure> {
        context.caller.authorize(&request.scope)?;
        let now = self.ports.clock.now();
        let certificate = self
            .ports
            .trust_plane
            .inspect(&request.certificate, request.anchor_type, now)
            .map_err(|fault| KmsError::from(RequestFault::Certificate(fault)))?;
        let anchor = TrustAnchor {
            trust_anchor_id: TrustAnchorId::generate(),
            scope: request.scope.clone(),
            anchor_type: request.anchor_type,
            certificate,
            added_at: now,
            added_by: context.caller.module().clone(),
        };
        let consent = self
            .anchor_consent(context, ApprovalOperation::TrustAnchorAdd, &anchor)
            .await?;
        let (receipt_id, unsettled) = self
            .keep_anchor_change(
                context,
                ReceiptOperation::TrustAnchorAdded,
                &anchor,
                Change::InsertTrustAnchor(anchor.clone()),
                consent.grants(),
            )
            .await?;
        let ports = &self.ports;
        let (store, trust_plane) = (ports.data_plane.as_ref(), ports.trust_plane.as_ref());
        trust_plane.admit(&anchor);
        // Somebody may have found it in the list and removed it since. What the
        // store cannot tell now, it tells the next probe.
        let id = anchor.trust_anchor_id;
        if let Ok(_is_kept) = dismiss_if_gone(store, trust_plane, &anchor.scope, id).await {
            unsettled.settled();
        }
        Ok(TrustAnchorAdded { anchor, receipt_id })
    }

    async fn try_remove(
        &self,
        context: &RequestContext,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<TrustAnchorRemoved, Failure> {
        context.caller.authorize(scope)?;
        let anchor = self
            .ports
            .data_plane
            .find_trust_anchor(scope, trust_anchor_id)
            .await
            .map_err(store_away)?
            .ok_or_else(|| KmsError::from(RequestFault::UnknownTrustAnchor))?;
        let consent = self
            .anchor_consent(context, ApprovalOperation::TrustAnchorRemove, &anchor)
            .await?;
        let removed_at = self.ports.clock.now();
        let removal = Change::RemoveTrustAnchor {
            scope: scope.clone(),
            trust_anchor_id,
        };
        let (receipt_id, unsettled) = self
            .keep_anchor_change(
                context,
                ReceiptOperation::TrustAnchorRemoved,
                &anchor,
                removal,
                consent.grants(),
            )
            .await?;
        self.ports.trust_plane.dismiss(trust_anchor_id);
        unsettled.settled();
        Ok(TrustAnchorRemoved {
            trust_anchor_id,
            removed_at,
            receipt_id,
        })
    }

    async fn anchor_consent(
        &self,
        context: &RequestContext,
        operation: ApprovalOperation,
        anchor: &TrustAnchor,
    ) -> Result<Consent, KmsError> {
        let subject = ApprovalSubject {
            operation,
            scope: anchor.scope.clone(),
            target: ApprovalTarget::Certificate {
                fingerprint: anchor.certificate.fingerprint.clone(),
            },
        };
        let consent = self.consent(context, &subject).await?;
        check_anchor_consent(&subject, &consent)?;
        Ok(consent)
    }

    /// Keeps a change with its receipt, and spends what allowed it. What is in
    /// force has to follow.
    async fn keep_anchor_change(
        &self,
        context: &RequestContext,
        operation: ReceiptOperation,
        anchor: &TrustAnchor,
        change: Change,
        grants: &[Grant],
    ) -> Result<(ReceiptId, UnsettledChange<'_>), Failure> {
        let kms_context = KmsContext {
            key_id: Some(anchor.trust_anchor_id.to_string()),
            algorithm: None,
            key_size_bits: None,
            success: true,
            error_code: None,
            approvals: grants.to_vec(),
        };
        let receipt = self
            .sign_receipt(context, &anchor.scope, operation, kms_context)
            .map_err(Failure::NotKept)?;
        let receipt_id = receipt.receipt_id;
        let mut changes = vec![change];
        changes.extend(grants.iter().cloned().map(Change::SpendGrant));
        let transaction = Transaction {
            key_use: None,
            changes,
            receipts: vec![receipt],
        };
        let is_removal = operation == ReceiptOperation::TrustAnchorRemoved;
        let unsettled = self.unsettled_change(&anchor.scope, anchor.trust_anchor_id, is_removal);
        let refusal = match self.ports.data_plane.commit(transaction).await {
            Ok(()) => return Ok((receipt_id, unsettled)),
            Err(CommitError::Unavailable(away)) => return Err(Failure::NotKept(store_away(away))),
            Err(CommitError::Conflict(Conflict::DuplicateAnchor)) => {
                RequestFault::Certificate(CertificateFault::Duplicate).into()
            }
            Err(CommitError::Conflict(Conflict::AnchorGone)) => {
                RequestFault::UnknownTrustAnchor.into()
            }
            Err(CommitError::Conflict(Conflict::GrantSpent)) => {
                approval_refused(ApprovalFault::AlreadyUsed)
            }
            Err(CommitError::Conflict(
                other @ (Conflict::KeyChanged | Conflict::AliasTaken | Conflict::GivenUp),
            )) => KmsError::internal(other),
        };
        unsettled.settled();
        Err(Failure::Refused(refusal))
    }
}
