//! The steps of a key's life: generate, rotate, archive, revoke and what lies between.
//! Each is one transaction of the change and its receipt.

mod change;
mod generate;
mod revoke;
mod rotate;

use std::time::Instant;

use super::approvals::already_used;
use super::keys_in_doubt::{LooseEnd, UnsettledKey};
use super::pipeline::{RefusedSubject, hsm_failure, store_away};
use super::{KmsService, RequestContext};
use crate::domain::approval::Grant;
use crate::domain::error::{Dependency, KmsError};
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, ModuleId};
use crate::domain::key::{KeyRecord, KeyState, StoredKey, rotation_due};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::lifecycle_permit::GeneratePermit;
use crate::domain::policy::AccessPolicy;
use crate::domain::receipt::{KmsContext, ReceiptAlgorithm, ReceiptOperation, SignedReceipt};
use crate::domain::time::Period;
use crate::ports::data_plane::{Change, CommitError, Conflict, Transaction};

pub use change::KeyChanged;
pub use generate::{GenerateKeyRequest, Generated};
pub use revoke::{RevokeKeyRequest, Revoked};
pub use rotate::{Rotated, Rotation};

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
    /// Makes a key in the HSM and the record of it, active.
    async fn make_key(
        &self,
        permit: &GeneratePermit,
        blueprint: Blueprint<'_>,
    ) -> Result<MadeKey<'_>, Failure> {
        let key_id = KeyId::generate();
        let key_type = permit.key_type();
        let hsm = self.ports.hsm.for_new_keys();
        let algorithms = hsm.algorithms(key_type).map_err(hsm_failure)?;
        if algorithms.is_empty() {
            return Err(Failure::Refused(KmsError::field(
                "key_type",
                "a type that the HSM backend supports",
            )));
        }
        let announced = self.announce_key(key_id, hsm.name()).await?;
        let started = Instant::now();
        let generated = match hsm.generate(permit, key_id).await {
            Ok(generated) => generated,
            Err(failure) => {
                // Whatever it came to; a backend that is away is asked again later.
                if announced {
                    self.give_up_key(key_id, hsm.name()).await;
                }
                return Err(Failure::Refused(hsm_failure(failure)));
            }
        };
        self.metrics.observe_hsm("generate", started.elapsed());
        let created_at = self.ports.clock.now();
        let schedule = &self.policy.key_defaults.rotation_schedule;
        let lifetime = blueprint
            .rotation_period
            .unwrap_or_else(|| schedule.period(key_type));
        let valid_until = created_at.plus(lifetime);
        let predecessor = blueprint.predecessor;
        let record = KeyRecord {
            key_id,
            scope: permit.scope().clone(),
            key_type,
            key_usage: blueprint.key_usage,
            key_alias: blueprint.key_alias,
            key_state: KeyState::Active,
            version: 1,
            algorithms,
            backend: hsm.name(),
            public_key: generated.public_key.clone(),
            access_policy: blueprint.access_policy,
            created_at,
            created_by: blueprint.created_by,
            valid_until,
            rotation_period: blueprint.rotation_period,
            rotate_at: Some(rotation_due(key_id, valid_until, lifetime)),
            line_id: predecessor.map_or(key_id, |old| old.line_id),
            rotation_count: predecessor.map_or(0, |old| old.rotation_count.saturating_add(1)),
            predecessor_key_id: predecessor.map(|old| old.key_id),
            successor_key_id: None,
            rotated_at: None,
            grace_until: None,
            archived_at: None,
            revoked_at: None,
            revocation_reason: None,
            erase_at: None,
        };
        let unsettled = self.unsettled_key(&record.scope, key_id, LooseEnd::Made(generated));
        Ok(MadeKey { record, unsettled })
    }

    /// Keeps a step in a key's life, and answers what is left to do in the backend.
    async fn keep_step(
        &self,
        changes: Vec<Change>,
        receipts: Vec<SignedReceipt>,
        unsettled: UnsettledKey<'_>,
    ) -> Result<Option<LooseEnd>, Failure> {
        let key_id = unsettled.key_id();
        match self.keep(changes, receipts).await {
            Ok(()) => Ok(unsettled.settled()),
            // Kept or not: the key stays in doubt until the store tells.
            Err(away @ Failure::NotKept(_)) => Err(away),
            Err(failure) => {
                if let Some(LooseEnd::Made(generated)) = unsettled.settled()
                    && let Some(key_id) = key_id
                {
                    self.unmake(key_id, generated.backend).await;
                }
                Err(failure)
            }
        }
    }

    /// Keeps a step of the service's own, which nobody had to approve.
    async fn keep_record(
        &self,
        context: &RequestContext,
        operation: ReceiptOperation,
        record: KeyRecord,
    ) -> Result<(), KmsError> {
        let kept = match self.lifecycle_receipt(context, operation, &record, &[]) {
            Ok(receipt) => {
                self.keep(vec![Change::UpdateKey(record)], vec![receipt])
                    .await
            }
            Err(failure) => Err(failure),
        };
        kept.map_err(|failure| match failure {
            Failure::Refused(error) | Failure::NotKept(error) => error,
            Failure::KeyChanged => kept_changing(),
        })
    }

    async fn keep(
        &self,
        changes: Vec<Change>,
        receipts: Vec<SignedReceipt>,
    ) -> Result<(), Failure> {
        let transaction = Transaction {
            key_use: None,
            changes,
            receipts,
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
            Err(CommitError::Conflict(Conflict::GivenUp)) => Err(Failure::Refused(
                KmsError::unavailable(Dependency::Hsm, Conflict::GivenUp),
            )),
            Err(CommitError::Conflict(
                other @ (Conflict::DuplicateAnchor | Conflict::AnchorGone),
            )) => Err(Failure::NotKept(KmsError::internal(other))),
            Err(CommitError::Unavailable(away)) => Err(Failure::NotKept(store_away(away))),
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

/// What a new key is to be, beside its type and scope.
struct Blueprint<'a> {
    key_usage: KeyUsageSet,
    key_alias: Option<KeyAlias>,
    access_policy: AccessPolicy,
    rotation_period: Option<Period>,
    created_by: ModuleId,
    /// The key it replaces, whose line it goes on.
    predecessor: Option<&'a KeyRecord>,
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
