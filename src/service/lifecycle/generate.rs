//! Making keys.

use super::{Blueprint, Failure, alias_taken};
use crate::domain::algorithm::KeyType;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyAlias, KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, StoredKey};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::lifecycle_permit::{check_usage_fits, generation_subject, permit_generation};
use crate::domain::policy::AccessPolicyChoice;
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::time::Period;
use crate::ports::data_plane::Change;
use crate::service::approvals::spend;
use crate::service::pipeline::{RefusedSubject, store_away};
use crate::service::{KmsService, RequestContext};

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
    /// Its own schedule; its type's where there is none.
    pub rotation_period: Option<Period>,
}

/// A key that was made.
pub struct Generated {
    /// Its metadata.
    pub record: KeyRecord,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

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
        let blueprint = Blueprint {
            key_usage: request.key_usage,
            key_alias: request.key_alias.clone(),
            access_policy: policy,
            rotation_period: request.rotation_period,
            created_by: context.caller.module().clone(),
            predecessor: None,
        };
        let made = self.make_key(&permit, blueprint).await?;
        let record = made.record;
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
        self.keep_step(changes, vec![receipt], made.unsettled)
            .await?;
        Ok(Generated { record, receipt_id })
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
}
