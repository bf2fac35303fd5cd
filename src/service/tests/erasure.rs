//! Revoked keys: when their secret goes, that it can be brought back until then, and
//! that it goes for good whatever happens in the middle.

use super::life::{assert_inactive, assert_revoked, before};
use super::*;
use crate::domain::error::InactiveReason;
use crate::domain::key::KeyRecord;

const WEEK: Period = Period::days(7);

/// A bench on a backend that keeps the secrets itself.
fn bench_with_token() -> Bench {
    let iam = Arc::new(PlatformIam::development(Arc::new(SystemClock)));
    bench_on(HsmBackendName::Pkcs11, iam, false)
}

impl Bench {
    async fn restore(&self, key_id: KeyId) -> Result<KeyRecord, KmsError> {
        let key = KeyRef::Id(key_id);
        let restored = self.service.restore_key(&context(), &scope(), &key).await;
        restored.map(|changed| changed.record)
    }

    async fn erase_due(&self, key_id: KeyId) -> Result<(), KmsError> {
        let key = self.stored(key_id).await;
        self.service.erase_due_key(&context(), key).await
    }

    /// The operations of the newest receipts.
    async fn told(&self, number: usize) -> Vec<String> {
        let receipts = self.newest_receipts(number).await.into_iter();
        let operation =
            |receipt: serde_json::Value| receipt["operation"].as_str().map(str::to_owned);
        receipts.filter_map(operation).collect()
    }
}

#[tokio::test]
async fn a_compromised_secret_goes_at_once_and_any_other_after_the_wait() {
    let reasons = [
        RevocationReason::Compromised,
        RevocationReason::Retired,
        RevocationReason::PolicyViolation,
    ];
    for backend in [HsmBackendName::Software, HsmBackendName::Pkcs11] {
        for (reason, wait) in reasons
            .into_iter()
            .flat_map(|reason| [Period::seconds(0), WEEK].map(|wait| (reason, wait)))
        {
            let what = format!("{backend} {reason} {wait}");
            let iam = Arc::new(PlatformIam::development(Arc::new(SystemClock)));
            let mut bench = bench_on(backend, iam, false);
            bench.service.policy.key_defaults.erase_after = wait;
            let key_id = bench.pair(None).await.key_id;
            let signed = bench.sign(key_id).await.expect("active");
            let revoked = bench.revoke(key_id, reason).await.expect("active");
            assert_eq!(revoked.key_state, KeyState::Destroyed, "{what}");
            assert_eq!(bench.record(key_id).await, revoked, "{what}");
            let at_once = reason == RevocationReason::Compromised || wait != WEEK;
            let wanted = (!at_once).then(|| bench.clock.now().plus(WEEK));
            assert_eq!(revoked.erase_at, wanted, "{what}");
            assert_eq!(bench.hsm.holds().is_empty(), at_once, "{what}");
            assert_eq!(bench.hsm.has_put_away(key_id), !at_once, "{what}");
            let handle = bench.stored(key_id).await.handle.clone();
            assert_eq!(handle.is_none(), at_once, "{what}");
            // In use it is no longer, from the first moment on.
            assert_revoked(bench.sign(key_id).await);
            assert_revoked(bench.verify(key_id, &signed.output).await);
            assert_revoked(bench.rotate(key_id, Rotation::Planned).await);
            assert_revoked(bench.revoke(key_id, RevocationReason::Retired).await);
            let counts = bench.service.key_counts();
            assert_eq!(counts.get(KeyType::Ed25519, KeyState::Destroyed), 1);
            assert_eq!(counts.get(KeyType::Ed25519, KeyState::Active), 0);
        }
    }
}

#[tokio::test]
async fn a_restored_key_reads_the_past_and_can_be_revoked_again() {
    for bench in [bench(), bench_with_token()] {
        let key = bench.pair(Some("line")).await;
        let signed = bench.sign(key.key_id).await.expect("active");
        assert_inactive(bench.restore(key.key_id).await, InactiveReason::NotRevoked);
        for _ in 0..2 {
            let revoked = bench.revoke(key.key_id, RevocationReason::Retired).await;
            let erase_at = revoked.expect("live").erase_at.expect("it waits");
            bench.clock.set(before(erase_at));
            let restored = bench.restore(key.key_id).await.expect("in time");
            assert_eq!(restored.key_state, KeyState::Archived);
            assert_eq!(restored.archived_at, Some(bench.clock.now()));
            assert_eq!(restored.revoked_at, None);
            assert_eq!(restored.revocation_reason, None);
            assert_eq!(restored.erase_at, None);
            let valid = bench.verify(key.key_id, &signed.output).await;
            assert!(valid.expect("it reads the past"));
            assert_inactive(bench.sign(key.key_id).await, InactiveReason::NotActive);
        }
        assert_eq!(bench.told(1).await, ["signature_created"]);
        let counts = bench.service.key_counts();
        assert_eq!(counts.get(KeyType::Ed25519, KeyState::Archived), 1);
        assert_eq!(counts.get(KeyType::Ed25519, KeyState::Destroyed), 0);
    }
}

#[tokio::test]
async fn what_waits_is_erased_in_its_time_and_comes_back_no_more() {
    for (bench, receipts) in [
        (bench(), &["key_revoked", "key_erased"][..]),
        (
            bench_with_token(),
            &["key_revoked", "key_erasure_begun", "key_erased"][..],
        ),
    ] {
        let key_id = bench.pair(None).await.key_id;
        let revoked = bench.revoke(key_id, RevocationReason::Retired).await;
        let erase_at = revoked.expect("active").erase_at.expect("it waits");
        bench.clock.set(before(erase_at));
        assert_inactive(bench.erase_due(key_id).await, InactiveReason::NotDue);
        bench.clock.set(erase_at);
        bench.erase_due(key_id).await.expect("due");
        assert_eq!(bench.told(receipts.len()).await, receipts);
        let erased = bench.stored(key_id).await;
        assert_eq!(erased.handle, None);
        assert_eq!(erased.record.erase_at, None);
        assert_eq!(erased.record.key_state, KeyState::Destroyed);
        assert!(bench.hsm.holds().is_empty());
        assert_revoked(bench.erase_due(key_id).await);
        bench.clock.step_back(Period::days(1));
        assert_revoked(bench.restore(key_id).await);
        let compromised = bench.revoke(key_id, RevocationReason::Compromised).await;
        assert_revoked(compromised);
    }
}

#[tokio::test]
async fn a_key_that_waits_is_erased_at_once_when_it_turns_out_to_be_compromised() {
    for bench in [bench(), bench_with_token()] {
        let key_id = bench.pair(None).await.key_id;
        let retired = bench.revoke(key_id, RevocationReason::Retired).await;
        assert!(retired.expect("active").erase_at.is_some());
        assert_eq!(bench.hsm.holds().len(), 1);
        let compromised = bench.revoke(key_id, RevocationReason::Compromised).await;
        let compromised = compromised.expect("it can be hurried");
        assert_eq!(compromised.erase_at, None);
        assert_eq!(
            compromised.revocation_reason,
            Some(RevocationReason::Compromised)
        );
        assert!(bench.hsm.holds().is_empty());
        assert_eq!(bench.stored(key_id).await.handle, None);
        assert_revoked(bench.restore(key_id).await);
    }
}

#[tokio::test]
async fn a_hurry_that_was_not_kept_leaves_a_key_that_can_be_restored() {
    let bench = bench();
    let key_id = bench.pair(None).await.key_id;
    let signed = bench.sign(key_id).await.expect("active");
    let retired = bench.revoke(key_id, RevocationReason::Retired).await;
    retired.expect("active");
    // The store does not say whether it was kept; the next probe finds out.
    bench.store.next(Next::Fail);
    let hurried = bench.revoke(key_id, RevocationReason::Compromised).await;
    assert!(is_away(&hurried.expect_err("failed"), Dependency::Store));
    bench.service.probe_health().await;
    assert_eq!(bench.hsm.holds().len(), 1);
    bench.restore(key_id).await.expect("it still waits");
    let valid = bench.verify(key_id, &signed.output).await;
    assert!(valid.expect("the secret is there"));
}

#[tokio::test]
async fn a_token_that_is_away_gets_its_key_erased_when_it_is_back() {
    let bench = bench_with_token();
    let key_id = bench.pair(None).await.key_id;
    bench.hsm.set_away(true);
    let revoked = bench.revoke(key_id, RevocationReason::Compromised).await;
    let revoked = revoked.expect("the store has it");
    // Not erased yet, and said so; but never to come back.
    assert_eq!(revoked.erase_at, revoked.revoked_at);
    assert_revoked(bench.sign(key_id).await);
    bench.clock.step_back(Period::seconds(60));
    assert_revoked(bench.restore(key_id).await);
    assert!(is_away(
        &bench.erase_due(key_id).await.expect_err("away"),
        Dependency::Hsm
    ));
    assert_eq!(bench.hsm.holds().len(), 1);
    bench.hsm.set_away(false);
    bench.erase_due(key_id).await.expect("back");
    assert!(bench.hsm.holds().is_empty());
    assert_eq!(bench.record(key_id).await.erase_at, None);
    assert_eq!(bench.told(1).await, ["key_erased"]);
}

#[tokio::test]
async fn an_erasure_that_was_cut_short_goes_on_and_no_clock_brings_the_key_back() {
    let bench = bench_with_token();
    let key_id = bench.pair(None).await.key_id;
    let revoked = bench.revoke(key_id, RevocationReason::Retired).await;
    let erase_at = revoked.expect("active").erase_at.expect("it waits");
    bench.clock.set(erase_at);
    // Cut short before the token has erased it, and after.
    bench.hsm.set_away(true);
    assert!(bench.erase_due(key_id).await.is_err());
    // To before its revocation, even.
    bench.clock.step_back(Period::days(8));
    assert_revoked(bench.restore(key_id).await);
    bench.hsm.set_away(false);
    bench.store.next(Next::Fail);
    assert!(bench.erase_due(key_id).await.is_err());
    assert!(bench.hsm.holds().is_empty());
    assert_revoked(bench.restore(key_id).await);
    bench
        .erase_due(key_id)
        .await
        .expect("erasing twice is no error");
    assert_eq!(bench.record(key_id).await.erase_at, None);
}

#[tokio::test]
async fn a_restoration_in_the_middle_of_an_erasure_keeps_the_secret() {
    for bench in [bench(), bench_with_token()] {
        let key_id = bench.pair(None).await.key_id;
        let signed = bench.sign(key_id).await.expect("active");
        let revoked = bench.revoke(key_id, RevocationReason::Retired).await;
        let revoked = revoked.expect("active");
        let erase_at = revoked.erase_at.expect("it waits");
        let waiting = bench.stored(key_id).await;
        let restored = revoked.restored(before(erase_at)).expect("in time");
        let receipt = crate::domain::receipt::tests::receipt();
        bench.store.next(Next::After(Transaction {
            key_use: None,
            changes: vec![Change::UpdateKey(restored)],
            receipts: vec![bench.ledger.sign(receipt).expect("signed")],
        }));
        bench.clock.set(erase_at);
        let erased = bench.service.erase_due_key(&context(), waiting).await;
        assert!(erased.is_err());
        assert_eq!(bench.hsm.holds().len(), 1);
        let valid = bench.verify(key_id, &signed.output).await;
        assert!(valid.expect("it was restored in time"));
    }
}
