//! Replacing keys.

use std::sync::Arc;

use super::{Blueprint, Failure, MAX_ATTEMPTS, kept_changing, refused_key};
use crate::domain::approval::{ApprovalOperation, Grant};
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyRef, ModuleId, ReceiptId};
use crate::domain::key::{KeyRecord, StoredKey};
use crate::domain::lifecycle_permit::{
    GeneratePermit, lifecycle_subject, permit_rotation, permit_scheduled_rotation,
};
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

/// How a key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The old key reads on, and can be called back from, for a grace period.
    Planned,
    /// The old key is archived at once.
    Emergency,
}

impl Rotation {
    fn approval(self) -> ApprovalOperation {
        match self {
            Self::Planned => ApprovalOperation::KeyRotate,
            Self::Emergency => ApprovalOperation::KeyRotateEmergency,
        }
    }
}

impl KmsService {
    /// Replaces an active key by a new one of the same type, usage, policy, schedule and
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
        rotation: Rotation,
    ) -> Result<Rotated, KmsError> {
        let operation = ReceiptOperation::KeyRotated;
        for _ in 0..MAX_ATTEMPTS {
            let mut found = None;
            match self
                .try_rotate(context, scope, key, rotation, &mut found)
                .await
            {
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
        rotation: Rotation,
        found: &mut Option<Arc<StoredKey>>,
    ) -> Result<Rotated, Failure> {
        let old = self.find_key(context, scope, key).await?;
        *found = Some(Arc::clone(&old));
        old.record.require_active()?;
        let subject = lifecycle_subject(rotation.approval(), &old.record);
        let consent = self.consent(context, &subject).await?;
        let permit = permit_rotation(&old.record, rotation.approval(), &consent)?;
        let creator = context.caller.module().clone();
        self.replace_key(context, &old, &permit, creator, rotation, consent.grants())
            .await
    }

    /// Replaces a key whose time has come.
    ///
    /// # Errors
    /// [`KmsError::KeyInactive`] and [`KmsError::KeyRevoked`] from another state and
    /// before its time; [`KmsError::DependencyUnavailable`].
    pub(in crate::service) async fn rotate_due_key(
        &self,
        context: &RequestContext,
        old: &StoredKey,
    ) -> Result<(), KmsError> {
        let permit = permit_scheduled_rotation(&old.record, self.ports.clock.now())?;
        // The successor is whose the line is.
        let creator = old.record.created_by.clone();
        let rotated = self
            .replace_key(context, old, &permit, creator, Rotation::Planned, &[])
            .await;
        match rotated {
            Ok(_) => Ok(()),
            Err(Failure::KeyChanged) => Err(kept_changing()),
            Err(Failure::Refused(error) | Failure::NotKept(error)) => Err(error),
        }
    }

    async fn replace_key(
        &self,
        context: &RequestContext,
        old: &StoredKey,
        permit: &GeneratePermit,
        created_by: ModuleId,
        rotation: Rotation,
        grants: &[Grant],
    ) -> Result<Rotated, Failure> {
        let blueprint = Blueprint {
            key_usage: old.record.key_usage,
            key_alias: old.record.key_alias.clone(),
            access_policy: old.record.access_policy.clone(),
            rotation_period: old.record.rotation_period,
            created_by,
            predecessor: Some(&old.record),
        };
        let made = self.make_key(permit, blueprint).await?;
        let (successor, now) = (made.record.key_id, made.record.created_at);
        let grace = self.policy.key_defaults.rotation_grace_period;
        let replaced = match rotation {
            Rotation::Planned => old.record.replaced_by(successor, now, grace)?,
            Rotation::Emergency => old.record.replaced_at_once(successor, now)?,
        };
        let rotated = ReceiptOperation::KeyRotated;
        let receipt = self.lifecycle_receipt(context, rotated, &replaced, grants)?;
        let receipt_id = receipt.receipt_id;
        let mut receipts = vec![receipt];
        if rotation == Rotation::Emergency {
            let archived = ReceiptOperation::KeyArchived;
            receipts.push(self.lifecycle_receipt(context, archived, &replaced, &[])?);
        }
        let new = made.record;
        // The old key first: it gives up the alias that the new one takes.
        let mut changes = vec![
            Change::UpdateKey(replaced.clone()),
            Change::InsertKey(StoredKey {
                record: new.clone(),
                handle: made.unsettled.new_handle().cloned(),
            }),
        ];
        changes.extend(spend(grants));
        self.keep_step(changes, receipts, made.unsettled).await?;
        Ok(Rotated {
            old: replaced,
            new,
            receipt_id,
        })
    }
}
