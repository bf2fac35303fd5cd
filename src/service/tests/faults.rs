//! Every call of the store that a use case makes goes wrong once in every way: it
//! fails, it is done and fails, it is never answered. Whatever happens, nothing is
//! given out without a durable receipt, nothing is half done, and the next attempt
//! succeeds.

mod cases;

use std::collections::BTreeSet;

use self::cases::{Case, TOKENS, prepared};
use super::store::Fault;
use super::*;
use crate::domain::error::ErrorCode;

/// What an answer comes to.
fn outcome<T>(answer: &Result<T, KmsError>) -> Option<ErrorCode> {
    answer.as_ref().err().map(KmsError::code)
}

/// Lets every call of the store that these make go wrong in every way.
async fn hold(cases: &[Case]) {
    for case in cases {
        let sound = prepared().await;
        sound.bench.store.count_calls(None);
        let usual = outcome(&sound.ask(*case).await);
        let calls = sound.bench.store.counted_calls();
        assert!(!calls.is_empty(), "{case:?} asks the store");
        for place in 0..calls.len() {
            for fault in Fault::ALL {
                hold_one(*case, usual, &calls, place, fault).await;
            }
        }
    }
}

async fn hold_one(
    case: Case,
    usual: Option<ErrorCode>,
    calls: &[&str],
    place: usize,
    fault: Fault,
) {
    let what = format!("{case:?}: {fault:?} at {place} of {calls:?}");
    let prepared = prepared().await;
    let bench = &prepared.bench;
    let before = bench.all_kept(&TOKENS).await;
    before.assert_whole(&what);

    bench.store.count_calls(Some((place, fault)));
    let answer = tokio::select! {
        answer = prepared.ask(case) => Some(answer),
        // Whoever waits gives up in the end.
        () = bench.store.stalled() => None,
    };
    bench.store.counted_calls();
    let after = bench.all_kept(&TOKENS).await;
    after.assert_whole(&what);
    after.assert_usable(bench, &what);
    match &answer {
        None => assert!(matches!(fault, Fault::Stall | Fault::DoAndStall), "{what}"),
        Some(Err(error)) => assert!(
            is_away(error, Dependency::Store) || is_away(error, Dependency::Ledger),
            "{what}: {error:?}"
        ),
        Some(Ok(receipt_id)) => {
            // The anchor is kept with its receipt, and the last look at it is only
            // for somebody who removed it meanwhile.
            assert!(
                case == Case::AddAnchor && calls[..place].contains(&"commit"),
                "{what}"
            );
            let receipt_id = receipt_id.expect("a receipt").to_string();
            let is_its = |receipt: &serde_json::Value| receipt["receipt_id"] == receipt_id;
            assert!(after.receipts.iter().any(is_its), "{what}");
        }
    }
    let new = after.receipts.get(before.receipts.len()..);
    let new = new.expect("no receipt is lost");
    let code = |receipt: &serde_json::Value| receipt["kms_context"]["error_code"].clone();
    let done = new.iter().filter(|receipt| code(receipt).is_null()).count();
    let wanted = match (case, done) {
        (_, 0) => 0..=1,
        // The old key is replaced, and archived.
        (Case::RotateInEmergency, _) => 2..=2,
        _ => 1..=1,
    };
    assert!(wanted.contains(&new.len()), "{what}: {}", new.len());
    let again = outcome(&prepared.ask(case).await);
    if new.iter().any(|receipt| code(receipt).is_null()) {
        // It was done, and whoever asks again learns that.
        let failures = [ErrorCode::DependencyUnavailable, ErrorCode::InternalError];
        assert!(
            again.is_none_or(|code| !failures.contains(&code)),
            "{what}: {again:?}"
        );
    } else {
        for receipt in new {
            let is_usual = usual.is_some_and(|usual| code(receipt) == usual.as_str());
            assert!(
                is_usual || code(receipt) == "DEPENDENCY_UNAVAILABLE",
                "{what}"
            );
        }
        assert_eq!(again, usual, "the next attempt, {what}");
    }
    bench.service.probe_health().await;
    let settled = bench.all_kept(&TOKENS).await;
    settled.assert_whole(&what);
    settled.assert_no_orphan(bench, &what);
    let in_force = bench.in_force().into_iter().map(|id| id.to_string());
    assert_eq!(in_force.collect::<BTreeSet<_>>(), settled.anchors, "{what}");
}

#[tokio::test]
async fn a_step_in_a_keys_life_is_taken_with_its_receipt_or_not_at_all() {
    hold(&[
        Case::Generate,
        Case::GenerateUnapproved,
        Case::Rotate,
        Case::RotateUnknown,
        Case::RotateInEmergency,
        Case::Archive,
        Case::ArchiveUnapproved,
        Case::Update,
        Case::UpdateTakenAlias,
        Case::Revoke,
        Case::RevokeCompromised,
        Case::RevokeAgain,
        Case::Hurry,
        Case::Restore,
        Case::RestoreLiving,
    ])
    .await;
}

#[tokio::test]
async fn a_use_is_counted_with_its_receipt_or_given_back() {
    hold(&[
        Case::Sign,
        Case::SignApproved,
        Case::SignUnknown,
        Case::Verify,
        Case::VerifyBadSignature,
        Case::Encrypt,
        Case::Decrypt,
        Case::DecryptBadTag,
    ])
    .await;
}

#[tokio::test]
async fn an_anchor_comes_and_goes_with_its_receipt_or_not_at_all() {
    hold(&[
        Case::AddAnchor,
        Case::AddAnchorTwice,
        Case::RemoveAnchor,
        Case::RemoveUnknownAnchor,
    ])
    .await;
}

#[tokio::test]
async fn a_read_that_fails_is_no_answer() {
    hold(&[
        Case::ShowKey,
        Case::ShowKeyByAlias,
        Case::ShowVersions,
        Case::ListKeys,
        Case::ListAnchors,
        Case::ShowReceipt,
        Case::ListReceipts,
        Case::HashTile,
        Case::EntryTile,
        Case::Consistency,
        Case::EarlierConsistency,
        Case::LedgerKeys,
        Case::HoldToCheckpoint,
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_the_store_fails_reports_it_and_the_next_is_well() {
    let prepared = prepared().await;
    let (service, store) = (&prepared.bench.service, &prepared.bench.store);
    store.count_calls(None);
    assert_eq!(service.probe_health().await.status, HealthStatus::Healthy);
    for place in 0..store.counted_calls().len() {
        for fault in Fault::ALL {
            store.count_calls(Some((place, fault)));
            let report = service.probe_health().await;
            store.counted_calls();
            assert_eq!(
                report.status,
                HealthStatus::Unhealthy,
                "{fault:?} at {place}"
            );
            assert_eq!(service.probe_health().await.status, HealthStatus::Healthy);
        }
    }
}
