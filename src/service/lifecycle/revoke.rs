//! Revoking keys.

use std::sync::Arc;

use super::{Failure, MAX_ATTEMPTS, kept_changing, refused_key};
use crate::domain::approval::ApprovalOperation;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, RevocationReason, StoredKey};
use crate::domain::lifecycle_permit::{lifecycle_subject, permit_revocation};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::Change;
use crate::service::approvals::spend;
use crate::service::keys_in_doubt::LooseEnd;
use crate::service::{KmsService, RequestContext};

/// A key to be revoked.
pub struct RevokeKeyRequest {
    /// Where it lives.
    pub scope: Scope,
    /// Which.
    pub key: KeyRef,
    /// Why.
    pub reason: RevocationReason,
}

/// A key that was revoked.
pub struct Revoked {
    /// What is left of it.
    pub record: KeyRecord,
    /// When.
    pub revoked_at: Timestamp,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

impl KmsService {
    /// Revokes a key and erases its secret; the metadata stays.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::KeyRevoked`], [`KmsError::Unauthorized`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn revoke_key(
        &self,
        context: &RequestContext,
        request: RevokeKeyRequest,
    ) -> Result<Revoked, KmsError> {
        let operation = ReceiptOperation::KeyRevoked;
        for _ in 0..MAX_ATTEMPTS {
            let mut found = None;
            match self.try_revoke(context, &request, &mut found).await {
                Ok(revoked) => return Ok(revoked),
                Err(Failure::KeyChanged) => {}
                Err(Failure::NotKept(error)) => return Err(error),
                Err(Failure::Refused(refusal)) => {
                    let about = refused_key(&request.key, found.as_deref());
                    return Err(self
                        .refuse(context, &request.scope, operation, about, refusal)
                        .await);
                }
            }
        }
        Err(kept_changing())
    }

    async fn try_revoke(
        &self,
        context: &RequestContext,
        request: &RevokeKeyRequest,
        found: &mut Option<Arc<StoredKey>>,
    ) -> Result<Revoked, Failure> {
        let key = self.find_key(context, &request.scope, &request.key).await?;
        *found = Some(Arc::clone(&key));
        key.record.require_reading()?;
        let subject = lifecycle_subject(ApprovalOperation::KeyRevoke, &key.record);
        let consent = self.consent(context, &subject).await?;
        let permit = permit_revocation(Arc::clone(&key), &consent)?;
        let revoked_at = self.ports.clock.now();
        let record = key.record.revoked(request.reason, revoked_at)?;
        let grants = consent.grants();
        let operation = ReceiptOperation::KeyRevoked;
        let receipt = self.lifecycle_receipt(context, operation, &record, grants)?;
        let receipt_id = receipt.receipt_id;
        let mut changes = vec![Change::UpdateKey(record.clone())];
        changes.extend(spend(grants));
        let end = LooseEnd::Revoking(permit);
        let unsettled = self.unsettled_key(&record.scope, record.key_id, end);
        let end = self.keep_step(changes, receipt, unsettled).await?;
        // The store has forgotten the handle, so the key is unusable already;
        // what is left is the backend's own copy.
        if let Some(LooseEnd::Revoking(permit)) = end {
            self.erase(record.key_id, &permit).await;
        }
        Ok(Revoked {
            record,
            revoked_at,
            receipt_id,
        })
    }
}
