//! Receipts, pinned values, and the end.

use super::{Store, receipt_in, scope, stored_key};
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::ports::data_plane::{Change, CommitError, Transaction};
use crate::ports::ledger_store::KeptReceipt;

fn only(receipts: Vec<crate::domain::receipt::SignedReceipt>) -> Transaction {
    Transaction {
        receipts,
        ..Transaction::default()
    }
}

pub(super) async fn receipts_are_dense_over_concurrent_commits(store: Store) {
    let scope = scope("t");
    let commits: Vec<_> = (0..100)
        .map(|_| {
            let (store, receipt) = (store.clone(), receipt_in(&scope));
            tokio::spawn(async move {
                let kept = store.commit(only(vec![receipt.clone()])).await;
                kept.expect("nothing conflicts");
                receipt
            })
        })
        .collect();
    let mut places = Vec::new();
    for commit in commits {
        let receipt = commit.await.expect("no panic");
        let kept = store.find_receipt(&scope, receipt.receipt_id).await;
        let kept = kept.expect("available").expect("kept");
        assert_eq!(kept.leaf, receipt.leaf);
        places.push(kept.leaf_index);
    }
    places.sort_unstable();
    assert_eq!(places, (0..100).collect::<Vec<_>>());
    assert_eq!(store.ledger_size(), 100);
}

pub(super) async fn the_receipts_of_a_transaction_stand_together(store: Store) {
    let scope = scope("t");
    let receipts: Vec<_> = (0..3).map(|_| receipt_in(&scope)).collect();
    let kept = store.commit(only(receipts.clone())).await;
    kept.expect("nothing conflicts");
    for (place, receipt) in (0..).zip(receipts) {
        let kept = store.find_receipt(&scope, receipt.receipt_id).await;
        let expected = KeptReceipt {
            leaf_index: place,
            leaf: receipt.leaf,
        };
        assert_eq!(kept.expect("available"), Some(expected));
    }
}

pub(super) async fn a_receipt_is_found_in_its_scope_only(store: Store) {
    let receipt = receipt_in(&scope("t"));
    let kept = store.commit(only(vec![receipt.clone()])).await;
    kept.expect("nothing conflicts");
    for (tenant, is_there) in [("t", true), ("other", false)] {
        let found = store
            .find_receipt(&scope(tenant), receipt.receipt_id)
            .await
            .expect("available");
        assert_eq!(found.is_some(), is_there, "{tenant}");
    }
    let unknown = store.find_receipt(&scope("t"), ReceiptId::generate()).await;
    assert_eq!(unknown.expect("available"), None);
}

pub(super) async fn the_newest_receipt_is_the_last_one_kept(store: Store) {
    assert_eq!(store.newest_receipt().await.expect("available"), None);
    let first = receipt_in(&scope("t"));
    let last = receipt_in(&scope("other"));
    for receipt in [first, last.clone()] {
        let kept = store.commit(only(vec![receipt])).await;
        kept.expect("nothing conflicts");
    }
    let newest = store.newest_receipt().await.expect("available");
    let expected = KeptReceipt {
        leaf_index: 1,
        leaf: last.leaf,
    };
    assert_eq!(newest, Some(expected));
}

pub(super) async fn a_receipt_is_kept_once_and_its_double_takes_nothing_along(store: Store) {
    let receipt = receipt_in(&scope("t"));
    let kept = store.commit(only(vec![receipt.clone()])).await;
    kept.expect("nothing conflicts");
    let key = stored_key();
    let name = KeyRef::Id(key.record.key_id);
    let mut double = only(vec![receipt_in(&scope("t")), receipt.clone()]);
    double.changes = vec![Change::InsertKey(key)];
    for transaction in [double, only(vec![receipt])] {
        let refused = store.commit(transaction).await;
        assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    }
    assert_eq!(store.ledger_size(), 1);
    let found = store.find_key(&scope("t"), &name).await;
    assert_eq!(found.expect("available"), None);
    let next = store.commit(only(vec![receipt_in(&scope("t"))])).await;
    next.expect("the store goes on");
    assert_eq!(store.ledger_size(), 2);
}

pub(super) async fn a_pinned_value_stays(store: Store) {
    for (name, value, stays) in [("a", b"1", b"1"), ("a", b"2", b"1"), ("b", b"3", b"3")] {
        let pinned = store.pin(name, value).await.expect("available");
        assert_eq!(pinned, stays);
    }
    store.probe_write().await.expect("available");
    assert_eq!(store.pin("a", b"4").await.expect("available"), b"1");
    assert_eq!(store.ledger_size(), 0);
}

pub(super) async fn a_closed_store_refuses(store: Store) {
    let kept = store.commit(only(vec![receipt_in(&scope("t"))])).await;
    kept.expect("nothing conflicts");
    tokio::join!(store.close(), store.close());
    let refused = store.commit(only(vec![receipt_in(&scope("t"))])).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    assert!(store.newest_receipt().await.is_err());
    assert!(store.probe_write().await.is_err());
    assert_eq!(store.ledger_size(), 1);
}
