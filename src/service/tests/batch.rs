//! Batches when something happens in the middle of them: all or nothing is kept.

use super::approvals::{TrustingIam, approved};
use super::hsm::BatchFault;
use super::*;
use crate::domain::batch::Batch;
use crate::domain::error::{ApprovalFault, AuthorizationFault, ErrorCode};

/// Messages to sign.
fn messages(number: usize) -> Batch<Bytes> {
    Batch::new(vec![Bytes::from_static(b"data"); number]).expect("some")
}

impl Bench {
    /// A key that may be used five times a day, maybe not without an approval.
    async fn key_for_five(&self, requires_approval: bool) -> KeyId {
        let request = GenerateKeyRequest {
            scope: scope(),
            key_type: KeyType::Ed25519,
            key_usage: KeyUsageSet::of([KeyUsage::Sign]).expect("not empty"),
            key_alias: None,
            access_policy: AccessPolicyChoice {
                requires_approval: Some(requires_approval),
                max_usage_per_day: Some(5),
                ..AccessPolicyChoice::default()
            },
            rotation_period: None,
        };
        let made = self.service.generate_key(&context(), request).await;
        made.expect("made").record.key_id
    }

    async fn sign_batch(
        &self,
        context: &RequestContext,
        key_id: KeyId,
        number: usize,
    ) -> Result<UsedBatch<Vec<u8>>, KmsError> {
        self.service
            .sign_batch(context, &choice(key_id), messages(number))
            .await
    }

    async fn used(&self, key_id: KeyId) -> u64 {
        let count = self.store.usage_count(key_id).await.expect("memory");
        count.used
    }
}

/// The codes of what came of each.
fn codes(used: &UsedBatch<Vec<u8>>) -> Vec<Option<ErrorCode>> {
    let codes = used.uses.iter();
    codes
        .map(|one| one.outcome.as_ref().err().map(KmsError::code))
        .collect()
}

#[tokio::test]
async fn a_batch_is_kept_with_one_commit_and_its_limit_is_exact() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    bench.store.count_calls(None);
    let signed = bench.sign_batch(&context(), key_id, 7).await;
    let signed = signed.expect("signed");
    let limited = Some(ErrorCode::RateLimited);
    let wanted = [None, None, None, None, None, limited, limited];
    assert_eq!(codes(&signed), wanted);
    let calls = bench.store.counted_calls();
    let commits = calls.iter().filter(|name| **name == "commit").count();
    assert_eq!(commits, 1, "{calls:?}");
    assert_eq!(bench.service.ledger_size(), 8);
    let ids: Vec<ReceiptId> = signed.uses.iter().map(|one| one.receipt_id).collect();
    let leaves = bench.store.leaves(&scope(), &ids).await;
    let places: Vec<u64> = leaves.iter().map(|leaf| leaf.leaf_index).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.used(key_id).await, 5);
}

#[tokio::test]
async fn a_key_revoked_while_it_signs_a_batch_gives_no_signature_out() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    let (revocation, _) = bench.revocation(key_id).await;
    bench.store.next(Next::After(revocation));
    let refusal = bench.sign_batch(&context(), key_id, 3).await.err();
    assert!(matches!(refusal, Some(KmsError::KeyRevoked)), "{refusal:?}");
    // The key's making, its revocation, and one refusal of all.
    assert_eq!(bench.service.ledger_size(), 3);
    assert_eq!(bench.used(key_id).await, 0, "the uses were given back");
}

#[tokio::test]
async fn a_batch_whose_receipts_cannot_be_kept_gives_nothing_out_and_is_given_back() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    bench.store.next(Next::Fail);
    let failure = bench.sign_batch(&context(), key_id, 3).await.err();
    assert!(is_away(&failure.expect("failed"), Dependency::Ledger));
    assert_eq!(bench.service.ledger_size(), 1);
    assert_eq!(bench.used(key_id).await, 0);
    *bench.ledger.broken.lock().unwrap() = true;
    let failure = bench.sign_batch(&context(), key_id, 3).await.err();
    assert!(is_away(&failure.expect("failed"), Dependency::Ledger));
    assert_eq!(bench.used(key_id).await, 0);
}

/// Guards the items past the end: a result that is missing is no item past the limit.
#[tokio::test]
async fn an_hsm_that_answers_less_than_it_was_asked_has_failed() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    bench.hsm.fail_batches(BatchFault::OneTooFew);
    let failure = bench.sign_batch(&context(), key_id, 3).await.err();
    assert!(
        matches!(failure, Some(KmsError::Internal(_))),
        "{failure:?}"
    );
    assert_eq!(bench.service.ledger_size(), 2);
    assert_eq!(bench.used(key_id).await, 0);
}

#[tokio::test]
async fn a_key_that_the_hsm_has_lost_goes_into_quarantine_with_a_batch_too() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    bench.hsm.fail_batches(BatchFault::Missing);
    let failure = bench.sign_batch(&context(), key_id, 3).await.err();
    assert!(is_away(&failure.expect("failed"), Dependency::Hsm));
    assert!(bench.service.quarantine.holds(key_id));
    // One receipt says so, and nothing was used.
    assert_eq!(bench.service.ledger_size(), 2);
    assert_eq!(bench.used(key_id).await, 0);
}

#[tokio::test]
async fn a_batch_whose_approval_was_spent_meanwhile_gives_nothing_out() {
    let bench = bench_with(Arc::new(TrustingIam), false);
    let key_id = bench.key_for_five(true).await;
    bench.somebody_spends("1");
    let refusal = bench.sign_batch(&approved("1"), key_id, 3).await.err();
    let already_used = AuthorizationFault::Approval(ApprovalFault::AlreadyUsed);
    assert!(
        matches!(&refusal, Some(KmsError::Unauthorized(fault)) if *fault == already_used),
        "{refusal:?}"
    );
    // The key, somebody's deed, one refusal.
    assert_eq!(bench.service.ledger_size(), 3);
    assert_eq!(bench.used(key_id).await, 0);
    let signed = bench.sign_batch(&approved("2"), key_id, 5).await;
    assert_eq!(codes(&signed.expect("signed")), [None; 5]);
    // Past the limit nothing is done, and so no approval is spent.
    let late = bench.sign_batch(&approved("3"), key_id, 2).await;
    assert_eq!(
        codes(&late.expect("an answer")),
        [Some(ErrorCode::RateLimited); 2]
    );
    let is_spent = bench.store.is_grant_spent("3").await.expect("memory");
    assert!(!is_spent);
}

/// Guards single uses: behind the receipts of however many batches, each would wait
/// for all of them.
#[tokio::test]
async fn a_batch_waits_for_the_receipts_of_others_and_a_single_use_does_not() {
    let bench = bench();
    let key_id = bench.key_for_five(false).await;
    let others = bench.service.receipts_under_way.room_for(2_000).await;
    let asking = context();
    let mut batch = Box::pin(bench.sign_batch(&asking, key_id, 2));
    tokio::select! {
        biased;
        _ = &mut batch => panic!("there is no room"),
        alone = bench.sign(key_id) => assert!(alone.is_ok()),
    }
    drop(others);
    assert_eq!(codes(&batch.await.expect("signed")), [None, None]);
}
