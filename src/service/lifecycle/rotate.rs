//! Replacing keys.

use std::sync::Arc;

use super::{Failure, MAX_ATTEMPTS, kept_changing, refused_key};
use crate::domain::approval::ApprovalOperation;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, StoredKey};
use crate::domain::lifecycle_permit::{lifecycle_subject, permit_rotation};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::ports::data_plane::Change;
use crate::service::approvals::spend;
use crate::service::{KmsService, RequestContext};

/// A key that was replaced.
pub struct Rotated {
    /// The old key, in its grace period.
    pub old: KeyRecord,
    /// The new one.
    pub new: KeyRecord,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

impl KmsService {
    /// Replaces an active key by a new one of the same type, usage, policy and
    /// alias. Of two at once one wins; the other finds the key replaced.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::KeyInactive`], [`KmsError::KeyRevoked`],
    /// [`KmsError::Unauthorized`], [`KmsError::DependencyUnavailable`].
    pub async fn rotate_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Rotated, KmsError> {
        let operation = ReceiptOperation::KeyRotated;
        for _ in 0..MAX_ATTEMPTS {
            let mut found = None;
            match self.try_rotate(context, scope, key, &mut found).await {
                Ok(rotated) => return Ok(rotated),
                Err(Failure::KeyChanged) => {}
                Err(Failure::NotKept(error)) => return Err(error),
                Err(Failure::Refused(refusal)) => {
                    let about = refused_key(key, found.as_deref());
                    return Err(self.refuse(context, scope, operation, about, refusal).await);
                }
            }
        }
        Err(kept_changing())
    }

    async fn try_rotate(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
        found: &mut Option<Arc<StoredKey>>,
    ) -> Result<Rotated, Failure> {
        let old = self.find_key(context, scope, key).await?;
        *found = Some(Arc::clone(&old));
        old.record.require_active()?;
        let subject = lifecycle_subject(ApprovalOperation::KeyRotate, &old.record);
        let consent = self.consent(context, &subject).await?;
        let permit = permit_rotation(&old.record, &consent)?;
        let made = self
            .make_key(
                context,
                &permit,
                old.record.key_usage,
                old.record.access_policy.clone(),
            )
            .await?;
        let replaced = old.record.replaced_by(
            made.record.key_id,
            made.record.created_at,
            self.policy.key_defaults.rotation_grace_period,
        )?;
        let new = KeyRecord {
            key_alias: old.record.key_alias.clone(),
            rotation_count: old.record.rotation_count.saturating_add(1),
            predecessor_key_id: Some(old.record.key_id),
            ..made.record
        };
        let grants = consent.grants();
        let operation = ReceiptOperation::KeyRotated;
        let receipt = self.lifecycle_receipt(context, operation, &replaced, grants)?;
        let receipt_id = receipt.receipt_id;
        // The old key first: it gives up the alias that the new one takes.
        let mut changes = vec![
            Change::UpdateKey(replaced.clone()),
            Change::InsertKey(StoredKey {
                record: new.clone(),
                handle: made.unsettled.new_handle().cloned(),
            }),
        ];
        changes.extend(spend(grants));
        self.keep_step(changes, receipt, made.unsettled).await?;
        Ok(Rotated {
            old: replaced,
            new,
            receipt_id,
        })
    }
}
