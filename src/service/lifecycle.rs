//! The steps of a key's life: generate, rotate, revoke. Each is one transaction
//! of the change and its receipt.

use std::sync::Arc;
use std::time::Instant;

use super::approvals::{already_used, spend};
use super::keys_in_doubt::{LooseEnd, UnsettledKey};
use super::pipeline::{RefusedSubject, hsm_failure, store_away};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::KeyType;
use crate::domain::approval::{ApprovalOperation, Grant};
use crate::domain::error::{Dependency, KmsError};
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, KeyState, RevocationReason, StoredKey};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::lifecycle_permit::{
    GeneratePermit, check_usage_fits, generation_subject, lifecycle_subject, permit_generation,
    permit_revocation, permit_rotation,
};
use crate::domain::policy::{AccessPolicy, AccessPolicyChoice};
use crate::domain::receipt::{KmsContext, ReceiptAlgorithm, ReceiptOperation, SignedReceipt};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::{Change, CommitError, Conflict, Transaction};

/// A key to be made.
pub struct GenerateKeyRequest {
    /// Where it will live.
    pub scope: Scope,
    /// What kind of key.
    pub key_type: KeyType,
    /// What for.
    pub key_usage: KeyUsageSet,
    /// The alias of its line.
    pub key_alias: Option<KeyAlias>,
    /// What its maker chose of its policy.
    pub access_policy: AccessPolicyChoice,
}

/// A key that was made.
pub struct Generated {
    /// Its metadata.
    pub record: KeyRecord,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// A key that was replaced.
pub struct Rotated {
    /// The old key, in its grace period.
    pub old: KeyRecord,
    /// The new one.
    pub new: KeyRecord,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

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

/// Why a step was not taken, and what is left to do about it.
enum Failure {
    /// Refused: the refusal gets its receipt.
    Refused(KmsError),
    /// The store or the ledger failed, so there is nowhere to put a receipt.
    NotKept(KmsError),
    /// The key changed since it was looked up: its new state decides.
    KeyChanged,
}

impl From<KmsError> for Failure {
    fn from(refusal: KmsError) -> Self {
        Self::Refused(refusal)
    }
}

/// How often a step starts over because its key changed meanwhile; see
/// `pipeline::MAX_ATTEMPTS`.
const MAX_ATTEMPTS: usize = 8;

impl KmsService {
    /// Makes a key.
    ///
    /// # Errors
    /// [`KmsError::InvalidRequest`] for a usage that does not fit the type and an
    /// alias that is taken; [`KmsError::Unauthorized`]; [`KmsError::DependencyUnavailable`].
    pub async fn generate_key(
        &self,
        context: &RequestContext,
        request: GenerateKeyRequest,
    ) -> Result<Generated, KmsError> {
        let failure = match self.try_generate(context, &request).await {
            Ok(generated) => return Ok(generated),
            Err(failure) => failure,
        };
        let about = RefusedSubject {
            key_type: Some(request.key_type),
            ..RefusedSubject::default()
        };
        let operation = ReceiptOperation::KeyGenerated;
        Err(match failure {
            Failure::Refused(refusal) => {
                self.refuse(context, &request.scope, operation, about, refusal)
                    .await
            }
            Failure::NotKept(error) => error,
            Failure::KeyChanged => KmsError::internal("a new key cannot have changed"),
        })
    }

    async fn try_generate(
        &self,
        context: &RequestContext,
        request: &GenerateKeyRequest,
    ) -> Result<Generated, Failure> {
        let scope = &request.scope;
        context.caller.authorize(scope)?;
        check_usage_fits(request.key_type, request.key_usage)?;
        let subject = generation_subject(scope, request.key_type, request.key_usage);
        let consent = self.consent(context, &subject).await?;
        let permit = permit_generation(scope, request.key_type, request.key_usage, &consent)?;
        if let Some(alias) = &request.key_alias {
            // Only to spare the work: the transaction decides.
            self.refuse_taken_alias(scope, alias).await?;
        }
        let policy = self
            .policy
            .key_defaults
            .complete(request.access_policy.clone(), context.caller.module());
        let made = self
            .make_key(context, &permit, request.key_usage, policy)
            .await?;
        let record = KeyRecord {
            key_alias: request.key_alias.clone(),
            ..made.record
        };
        let grants = consent.grants();
        let operation = ReceiptOperation::KeyGenerated;
        let receipt = self.lifecycle_receipt(context, operation, &record, grants)?;
        let receipt_id = receipt.receipt_id;
        let new_key = StoredKey {
            record: record.clone(),
            handle: made.unsettled.new_handle().cloned(),
        };
        let mut changes = vec![Change::InsertKey(new_key)];
        changes.extend(spend(grants));
        self.keep_step(changes, receipt, made.unsettled).await?;
        Ok(Generated { record, receipt_id })
    }

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

    /// Makes a key in the HSM and the record of it, active and without alias.
    async fn make_key(
        &self,
        context: &RequestContext,
        permit: &GeneratePermit,
        key_usage: KeyUsageSet,
        access_policy: AccessPolicy,
    ) -> Result<MadeKey<'_>, Failure> {
        let key_id = KeyId::generate();
        let key_type = permit.key_type();
        let hsm = &self.ports.hsm;
        let algorithms = hsm.algorithms(key_type);
        if algorithms.is_empty() {
            return Err(Failure::Refused(KmsError::field(
                "key_type",
                "a type that the HSM backend supports",
            )));
        }
        let started = Instant::now();
        let generated = hsm.generate(permit, key_id).await.map_err(hsm_failure)?;
        self.metrics.observe_hsm("generate", started.elapsed());
        let created_at = self.ports.clock.now();
        let lifetime = self.policy.key_defaults.rotation_schedule.period(key_type);
        let record = KeyRecord {
            key_id,
            scope: permit.scope().clone(),
            key_type,
            key_usage,
            key_alias: None,
            key_state: KeyState::Active,
            version: 1,
            algorithms,
            backend: hsm.name(),
            public_key: generated.public_key.clone(),
            access_policy,
            created_at,
            created_by: context.caller.module().clone(),
            valid_until: created_at.plus(lifetime),
            rotation_count: 0,
            predecessor_key_id: None,
            successor_key_id: None,
            rotated_at: None,
            grace_until: None,
            archived_at: None,
            revoked_at: None,
            revocation_reason: None,
        };
        let unsettled = self.unsettled_key(&record.scope, key_id, LooseEnd::Made(generated));
        Ok(MadeKey { record, unsettled })
    }

    /// Keeps a step in a key's life, and answers what is left to do in the backend.
    async fn keep_step(
        &self,
        changes: Vec<Change>,
        receipt: SignedReceipt,
        unsettled: UnsettledKey<'_>,
    ) -> Result<Option<LooseEnd>, Failure> {
        match self.keep(changes, receipt).await {
            Ok(()) => Ok(unsettled.settled()),
            // Kept or not: the key stays in doubt until the store tells.
            Err(away @ Failure::NotKept(_)) => Err(away),
            Err(failure) => {
                if let Some(LooseEnd::Made(generated)) = unsettled.settled() {
                    self.discard(generated).await;
                }
                Err(failure)
            }
        }
    }

    async fn keep(&self, changes: Vec<Change>, receipt: SignedReceipt) -> Result<(), Failure> {
        let transaction = Transaction {
            key_use: None,
            changes,
            receipts: vec![receipt],
        };
        match self.ports.data_plane.commit(transaction).await {
            Ok(()) => Ok(()),
            Err(CommitError::Conflict(Conflict::KeyChanged)) => Err(Failure::KeyChanged),
            Err(CommitError::Conflict(Conflict::AliasTaken)) => {
                Err(Failure::Refused(alias_taken()))
            }
            Err(CommitError::Conflict(Conflict::GrantSpent)) => {
                Err(Failure::Refused(already_used()))
            }
            Err(CommitError::Conflict(
                other @ (Conflict::DuplicateAnchor | Conflict::AnchorGone),
            )) => Err(Failure::NotKept(KmsError::internal(other))),
            Err(CommitError::Unavailable(away)) => Err(Failure::NotKept(store_away(away))),
        }
    }

    async fn refuse_taken_alias(&self, scope: &Scope, alias: &KeyAlias) -> Result<(), KmsError> {
        let holder = self
            .ports
            .data_plane
            .find_key(scope, &KeyRef::Alias(alias.clone()))
            .await
            .map_err(store_away)?;
        match holder {
            Some(_) => Err(alias_taken()),
            None => Ok(()),
        }
    }

    fn lifecycle_receipt(
        &self,
        context: &RequestContext,
        operation: ReceiptOperation,
        record: &KeyRecord,
        approvals: &[Grant],
    ) -> Result<SignedReceipt, Failure> {
        let kms_context = KmsContext {
            key_id: Some(record.key_id.to_string()),
            algorithm: Some(ReceiptAlgorithm::KeyType(record.key_type)),
            key_size_bits: Some(record.key_type.size_bits()),
            success: true,
            error_code: None,
            approvals: approvals.to_vec(),
        };
        self.sign_receipt(context, &record.scope, operation, kms_context)
            .map_err(Failure::NotKept)
    }
}

struct MadeKey<'a> {
    record: KeyRecord,
    /// The key itself, which leaves the backend unless it is kept.
    unsettled: UnsettledKey<'a>,
}

fn refused_key<'a>(key: &KeyRef, found: Option<&'a StoredKey>) -> RefusedSubject<'a> {
    let record = found.map(|found| &found.record);
    RefusedSubject {
        id: Some(record.map_or_else(|| key.to_string(), |record| record.key_id.to_string())),
        record,
        key_type: None,
    }
}

fn alias_taken() -> KmsError {
    KmsError::field(
        "key_alias",
        "an alias that no other active key of this scope bears",
    )
}

fn kept_changing() -> KmsError {
    KmsError::unavailable(Dependency::Store, "the key kept changing meanwhile")
}
