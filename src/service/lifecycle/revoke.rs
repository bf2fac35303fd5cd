//! Revoking keys, and erasing the secrets of those that were.
//!
//! A key is refused from the moment its revocation is kept. Its secret goes at once where
//! it is compromised, and later otherwise, so that a mistake can be taken back. Where
//! the store has the secret (the handle is all there is of it) the record and the
//! secret go in one transaction. Where the backend keeps it, three steps stand in the
//! ledger: the key no longer comes back, the backend's copy goes, and that it is gone;
//! whoever finds the first or the second left over goes on from there.

use std::sync::Arc;

use super::{Failure, MAX_ATTEMPTS, kept_changing, refused_key};
use crate::domain::approval::ApprovalOperation;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, RevocationReason, StoredKey};
use crate::domain::lifecycle_permit::{
    ErasePermit, lifecycle_subject, permit_erasure, permit_revocation,
};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::Change;
use crate::service::approvals::spend;
use crate::service::keys_in_doubt::LooseEnd;
use crate::service::pipeline::hsm_failure;
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
    /// Revokes a key: it is refused from here on, and its secret erased at once or
    /// later; the metadata stays.
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
        key.record.require_revocable(request.reason)?;
        let subject = lifecycle_subject(ApprovalOperation::KeyRevoke, &key.record);
        let consent = self.consent(context, &subject).await?;
        let permit = permit_revocation(Arc::clone(&key), request.reason, &consent)?;
        let revoked_at = self.ports.clock.now();
        let erase_at = self.erasure_time(&key.record, request.reason, revoked_at);
        let record = key.record.revoked(request.reason, revoked_at, erase_at)?;
        let grants = consent.grants();
        let operation = ReceiptOperation::KeyRevoked;
        let receipt = self.lifecycle_receipt(context, operation, &record, grants)?;
        let receipt_id = receipt.receipt_id;
        let mut changes = vec![Change::UpdateKey(record.clone())];
        changes.extend(spend(grants));
        let record = match erase_at {
            None => {
                let end = LooseEnd::Revoking(permit);
                let unsettled = self.unsettled_key(&record.scope, record.key_id, end);
                let end = self.keep_step(changes, vec![receipt], unsettled).await?;
                // The store has forgotten the handle, so the key is unusable already;
                // what is left is what the backend has in memory.
                if let Some(LooseEnd::Revoking(permit)) = end {
                    self.erase(record.key_id, &permit).await;
                }
                record
            }
            Some(_) => {
                self.keep(changes, vec![receipt]).await?;
                match record.erasure_has_begun() {
                    // Revoked it is; what is left comes of itself where this fails.
                    true => {
                        let handle = key.handle.clone();
                        self.finish_erasure(context, StoredKey { record, handle })
                            .await
                    }
                    false => {
                        if let Ok(hsm) = self.ports.hsm.holding(record.backend) {
                            hsm.put_away(record.key_id);
                        }
                        record
                    }
                }
            }
        };
        Ok(Revoked {
            record,
            revoked_at,
            receipt_id,
        })
    }

    /// When the secret of a key that is revoked now goes; `None` where it goes with the
    /// record.
    fn erasure_time(
        &self,
        record: &KeyRecord,
        reason: RevocationReason,
        revoked_at: Timestamp,
    ) -> Option<Timestamp> {
        let after = self.policy.key_defaults.erase_after;
        let waits = reason != RevocationReason::Compromised && !after.as_duration().is_zero();
        match (waits, record.backend.keeps_keys()) {
            (true, _) => Some(revoked_at.plus(after)),
            (false, true) => Some(revoked_at),
            (false, false) => None,
        }
    }

    /// Erases the secret of a destroyed key whose time has come.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] where it is gone; [`KmsError::KeyInactive`] before its time;
    /// [`KmsError::DependencyUnavailable`], and it is tried again then.
    pub(in crate::service) async fn erase_due_key(
        &self,
        context: &RequestContext,
        key: Arc<StoredKey>,
    ) -> Result<(), KmsError> {
        let now = self.ports.clock.now();
        let permit = permit_erasure(Arc::clone(&key), now)?;
        let record = &key.record;
        if !record.backend.keeps_keys() {
            self.keep_record(context, ReceiptOperation::KeyErased, record.erased()?)
                .await?;
            self.erase(record.key_id, &permit).await;
            return Ok(());
        }
        let begun = match record.erasure_has_begun() {
            true => record.clone(),
            false => {
                let begun = record.erasure_begun()?;
                self.keep_record(context, ReceiptOperation::KeyErasureBegun, begun.clone())
                    .await?;
                begun
            }
        };
        self.erase_in_backend(context, &permit, begun).await?;
        Ok(())
    }

    /// Erases the secret of a key that was just revoked, if the backend is there.
    async fn finish_erasure(&self, context: &RequestContext, key: StoredKey) -> KeyRecord {
        let record = key.record.clone();
        let erased = async {
            let permit = permit_erasure(Arc::new(key), self.ports.clock.now())?;
            self.erase_in_backend(context, &permit, record.clone())
                .await
        };
        match erased.await {
            Ok(erased) => erased,
            Err(error) => {
                tracing::warn!(
                    key_id = %record.key_id,
                    error = &error as &dyn std::error::Error,
                    "a revoked key waits for its HSM to erase it"
                );
                record
            }
        }
    }

    async fn erase_in_backend(
        &self,
        context: &RequestContext,
        permit: &ErasePermit,
        record: KeyRecord,
    ) -> Result<KeyRecord, KmsError> {
        let hsm = self
            .ports
            .hsm
            .holding(record.backend)
            .map_err(hsm_failure)?;
        hsm.erase(permit).await.map_err(hsm_failure)?;
        let erased = record.erased()?;
        self.keep_record(context, ReceiptOperation::KeyErased, erased.clone())
            .await?;
        Ok(erased)
    }
}
