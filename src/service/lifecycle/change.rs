//! The steps that change a key's record alone: archiving it, giving it another alias or
//! policy, taking its revocation back.

use std::sync::Arc;

use super::{Failure, MAX_ATTEMPTS, kept_changing, refused_key};
use crate::domain::approval::ApprovalOperation;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, KeyUpdate, StoredKey};
use crate::domain::lifecycle_permit::{check_change_consent, lifecycle_subject};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::Change;
use crate::service::approvals::spend;
use crate::service::{KmsService, RequestContext};

/// A key whose record was changed.
pub struct KeyChanged {
    /// Its metadata now.
    pub record: KeyRecord,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// A step: what it takes, what its receipt says, and what it makes of a record.
struct Step<'a> {
    approval: ApprovalOperation,
    receipt: ReceiptOperation,
    take: &'a (dyn Fn(&KeyRecord, Timestamp) -> Result<KeyRecord, KmsError> + Sync),
}

impl KmsService {
    /// Archives a key before its time: it verifies and decrypts from here on.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::KeyInactive`], [`KmsError::KeyRevoked`],
    /// [`KmsError::Unauthorized`], [`KmsError::DependencyUnavailable`].
    pub async fn archive_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<KeyChanged, KmsError> {
        let step = Step {
            approval: ApprovalOperation::KeyArchive,
            receipt: ReceiptOperation::KeyArchived,
            take: &|record, now| record.archived(now),
        };
        self.change_key(context, scope, key, &step).await
    }

    /// Gives a key another alias, another policy, or both.
    ///
    /// # Errors
    /// As for [`KmsService::archive_key`]; [`KmsError::InvalidRequest`] for an alias
    /// that is taken.
    pub async fn update_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
        update: &KeyUpdate,
    ) -> Result<KeyChanged, KmsError> {
        let step = Step {
            approval: ApprovalOperation::KeyUpdate,
            receipt: ReceiptOperation::KeyUpdated,
            take: &|record, _| record.changed(update.clone()),
        };
        self.change_key(context, scope, key, &step).await
    }

    /// Takes a revocation back, while the secret waits for its erasure: the key is
    /// archived then.
    ///
    /// # Errors
    /// As for [`KmsService::archive_key`].
    pub async fn restore_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<KeyChanged, KmsError> {
        let step = Step {
            approval: ApprovalOperation::KeyRestore,
            receipt: ReceiptOperation::KeyRestored,
            take: &|record, now| record.restored(now),
        };
        self.change_key(context, scope, key, &step).await
    }

    async fn change_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
        step: &Step<'_>,
    ) -> Result<KeyChanged, KmsError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut found = None;
            match self.try_change(context, scope, key, step, &mut found).await {
                Ok(changed) => return Ok(changed),
                Err(Failure::KeyChanged) => {}
                Err(Failure::NotKept(error)) => return Err(error),
                Err(Failure::Refused(refusal)) => {
                    let about = refused_key(key, found.as_deref());
                    let receipt = step.receipt;
                    return Err(self.refuse(context, scope, receipt, about, refusal).await);
                }
            }
        }
        Err(kept_changing())
    }

    async fn try_change(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
        step: &Step<'_>,
        found: &mut Option<Arc<StoredKey>>,
    ) -> Result<KeyChanged, Failure> {
        let before = self.find_key(context, scope, key).await?;
        *found = Some(Arc::clone(&before));
        let record = (step.take)(&before.record, self.ports.clock.now())?;
        let subject = lifecycle_subject(step.approval, &before.record);
        let consent = self.consent(context, &subject).await?;
        check_change_consent(&subject, &consent)?;
        let grants = consent.grants();
        let receipt = self.lifecycle_receipt(context, step.receipt, &record, grants)?;
        let receipt_id = receipt.receipt_id;
        let mut changes = vec![Change::UpdateKey(record.clone())];
        changes.extend(spend(grants));
        self.keep(changes, vec![receipt]).await?;
        Ok(KeyChanged { record, receipt_id })
    }

    /// Archives a key whose grace period is over.
    ///
    /// # Errors
    /// [`KmsError::KeyInactive`] and [`KmsError::KeyRevoked`] from another state and
    /// before its time; [`KmsError::DependencyUnavailable`].
    pub(in crate::service) async fn archive_due_key(
        &self,
        context: &RequestContext,
        key: &StoredKey,
    ) -> Result<(), KmsError> {
        let now = self.ports.clock.now();
        key.record.require_grace_over(now)?;
        let archived = key.record.archived(now)?;
        self.keep_record(context, ReceiptOperation::KeyArchived, archived)
            .await
    }
}
