//! The end of the road: signing receipts and making them durable.

use super::Work;
use super::attempt::Attempt;
use crate::domain::algorithm::KeyType;
use crate::domain::error::{Dependency, KmsError};
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::key::KeyRecord;
use crate::domain::key_usage::KeyUsage;
use crate::domain::permit::KeyOperation;
use crate::domain::receipt::{
    KmsContext, Receipt, ReceiptAlgorithm, ReceiptOperation, SignedReceipt,
};
use crate::domain::scope::Scope;
use crate::ports::data_plane::{CommitError, Conflict, KeyUseMark, Transaction};
use crate::service::approvals::spend;
use crate::service::pipeline::KeyChoice;
use crate::service::{KmsService, RequestContext};

/// How many receipts are signed before others get their turn on the async worker:
/// about 90 µs' worth.
const RECEIPTS_AT_A_TIME: usize = 10;

/// Why an attempt left no receipt.
pub(super) enum NotKept {
    /// A condition no longer held.
    Conflict(Conflict),
    /// The store or the ledger's key is away, as the caller learns it.
    Away(KmsError),
}

impl KmsService {
    /// Signs the receipts of an attempt and keeps them, with the uses where they were
    /// counted and with the grants where any succeeded.
    pub(super) async fn keep_attempt<O: KeyOperation, W: Work<O>>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<O::Algorithm>,
        attempt: &mut Attempt<W::Output>,
    ) -> Result<Vec<ReceiptId>, NotKept> {
        let number = attempt.receipts();
        let _room = self.receipts_under_way.room_for(number).await;
        let scope = context.caller.accountable_scope(&choice.scope);
        let mut receipts = Vec::with_capacity(number);
        for place in 0..number {
            if place > 0 && place % RECEIPTS_AT_A_TIME == 0 {
                // Others get their turn: a thousand signatures take 7 ms.
                tokio::task::yield_now().await;
            }
            let kms_context = Self::use_context::<O, W>(&choice.key, attempt, place);
            let receipt = self.sign_receipt(context, &scope, W::RECEIPT, kms_context);
            receipts.push(receipt.map_err(NotKept::Away)?);
        }
        let receipt_ids = receipts.iter().map(|receipt| receipt.receipt_id).collect();
        let key_use = attempt
            .counted
            .take()
            .zip(attempt.key.as_ref())
            .map(|(reservation, key)| KeyUseMark {
                key_id: key.record.key_id,
                version: key.record.version,
                reservation,
                took_long: takes_long::<O>(&key.record),
            });
        let transaction = Transaction {
            key_use,
            changes: spend(attempt.acted_on()).collect(),
            receipts,
        };
        match self.ports.data_plane.commit(transaction).await {
            Ok(()) => Ok(receipt_ids),
            Err(CommitError::Conflict(conflict)) => Err(NotKept::Conflict(conflict)),
            Err(CommitError::Unavailable(away)) => Err(NotKept::Away(KmsError::unavailable(
                Dependency::Ledger,
                away,
            ))),
        }
    }

    fn use_context<O: KeyOperation, W: Work<O>>(
        wanted: &KeyRef,
        attempt: &Attempt<W::Output>,
        place: usize,
    ) -> KmsContext {
        let record = attempt.key.as_ref().map(|key| &key.record);
        let result = attempt.result(place);
        KmsContext {
            key_id: Some(
                record.map_or_else(|| wanted.to_string(), |record| record.key_id.to_string()),
            ),
            algorithm: attempt.algorithm.map(ReceiptAlgorithm::Algorithm),
            key_size_bits: record.map(|record| record.key_type.size_bits()),
            success: result.is_ok_and(W::succeeded),
            error_code: result.err().map(KmsError::code),
            approvals: match result {
                Ok(_) => attempt.grants.clone(),
                // Nothing was done that anybody agreed to.
                Err(_) => Vec::new(),
            },
        }
    }

    /// Signs a receipt of what has just happened.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] when the ledger's key cannot be used.
    pub(in crate::service) fn sign_receipt(
        &self,
        context: &RequestContext,
        scope: &Scope,
        operation: ReceiptOperation,
        kms_context: KmsContext,
    ) -> Result<SignedReceipt, KmsError> {
        self.ports
            .ledger
            .sign(Receipt {
                receipt_id: ReceiptId::generate(),
                ts: self.ports.clock.now(),
                scope: scope.clone(),
                operation,
                context: kms_context,
                requesting_module: context.caller.module().clone(),
                request_id: context.request_id,
            })
            .map_err(|error| KmsError::unavailable(Dependency::Ledger, error))
    }

    /// Leaves the receipt of a refusal, and gives the refusal back.
    pub(in crate::service) async fn refuse(
        &self,
        context: &RequestContext,
        scope: &Scope,
        operation: ReceiptOperation,
        about: RefusedSubject<'_>,
        refusal: KmsError,
    ) -> KmsError {
        let kms_context = KmsContext {
            key_id: about.id,
            algorithm: about
                .record
                .map(|record| record.key_type)
                .or(about.key_type)
                .map(ReceiptAlgorithm::KeyType),
            key_size_bits: about
                .record
                .map(|record| record.key_type)
                .or(about.key_type)
                .map(KeyType::size_bits),
            success: false,
            error_code: Some(refusal.code()),
            approvals: Vec::new(),
        };
        let scope = context.caller.accountable_scope(scope);
        let receipt = match self.sign_receipt(context, &scope, operation, kms_context) {
            Ok(receipt) => receipt,
            Err(away) => return away,
        };
        let transaction = Transaction {
            receipts: vec![receipt],
            ..Transaction::default()
        };
        match self.ports.data_plane.commit(transaction).await {
            Ok(()) => refusal,
            Err(CommitError::Unavailable(away)) => KmsError::unavailable(Dependency::Ledger, away),
            Err(CommitError::Conflict(conflict)) => KmsError::internal(conflict),
        }
    }
}

/// Whether a use of this key is long work. Whoever keeps the key, its public half is used
/// in this process.
fn takes_long<O: KeyOperation>(key: &KeyRecord) -> bool {
    O::USAGE != KeyUsage::Verify && (key.backend.keeps_keys() || key.key_type == KeyType::Rsa2048)
}

/// What a refused step in a key's life was about, as far as it is known.
#[derive(Default)]
pub(in crate::service) struct RefusedSubject<'a> {
    /// The id or reference in the request.
    pub(in crate::service) id: Option<String>,
    /// The key, where it was found.
    pub(in crate::service) record: Option<&'a KeyRecord>,
    /// The type of a key that was to be made.
    pub(in crate::service) key_type: Option<KeyType>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::HsmBackendName;
    use crate::domain::key::tests::active_key;
    use crate::domain::permit::{Encrypt, Sign, Verify};

    #[test]
    fn rsa_signatures_and_calls_to_a_token_take_long_and_verifying_never_does() {
        let mut key = active_key();
        for (backend, key_type, takes) in [
            (HsmBackendName::Software, KeyType::Ed25519, false),
            (HsmBackendName::Software, KeyType::Aes256, false),
            (HsmBackendName::Software, KeyType::Rsa2048, true),
            (HsmBackendName::Pkcs11, KeyType::Ed25519, true),
            (HsmBackendName::Pkcs11, KeyType::Aes256, true),
        ] {
            (key.backend, key.key_type) = (backend, key_type);
            assert_eq!(takes_long::<Sign>(&key), takes, "{backend} {key_type}");
            assert_eq!(takes_long::<Encrypt>(&key), takes, "{backend} {key_type}");
            assert!(!takes_long::<Verify>(&key), "{backend} {key_type}");
        }
    }
}
