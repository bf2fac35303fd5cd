//! Receipts and the tree over them, pinned values, and the end.

use std::sync::Arc;

use super::{Store, begin, now, receipt_in, scope, signed, signer, stored_key, tree_over_leaves};
use crate::adapters::ledger::{LedgerSigner, NextKey};
use crate::domain::ids::{KeyRef, ReceiptId};
use crate::domain::ledger::{TileId, Tree, TreeHash};
use crate::domain::receipt::tests::receipt;
use crate::domain::receipt::{ReadReceipt, ReceiptOperation};
use crate::domain::time::Period;
use crate::ports::data_plane::{Change, CommitError, Transaction};
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::{KeptReceipt, ReceiptQuery};

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

pub(super) async fn the_tree_stands_on_the_leaves_that_are_kept(store: Store) {
    let head = store.ledger_head();
    assert_eq!(head.checkpoint, Tree::new().checkpoint());
    assert_eq!(signer().read_checkpoint(&head.note), Some(head.checkpoint));
    for batch in [1, 254, 1, 1, 255, 300] {
        let receipts = (0..batch).map(|_| receipt_in(&scope("t"))).collect();
        let kept = store.commit(only(receipts)).await;
        kept.expect("nothing conflicts");
        let head = store.ledger_head();
        let tree = tree_over_leaves(&*store).await;
        assert_eq!(head.tree, tree);
        assert_eq!(head.checkpoint, tree.checkpoint());
        assert_eq!(signer().read_checkpoint(&head.note), Some(head.checkpoint));
    }
    let tile = |level, index| TileId { level, index };
    let wanted = vec![tile(0, 0), tile(0, 2), tile(0, 3), tile(1, 0), tile(9, 9)];
    let found = store.read_tiles(wanted).await.expect("available");
    assert_eq!(
        found.keys().copied().collect::<Vec<_>>(),
        [tile(0, 0), tile(0, 2)]
    );
    let leaves = store.read_leaves(512, 256).await.expect("available");
    let hashes: Vec<_> = leaves.iter().map(|leaf| TreeHash::of_leaf(leaf)).collect();
    assert!(found[&tile(0, 2)].hashes().eq(hashes));
    assert!(
        store
            .read_leaves(812, 5)
            .await
            .expect("available")
            .is_empty()
    );
}

pub(super) async fn receipts_come_in_pages_by_time_key_and_operation(store: Store) {
    let at = |second: u64| now().plus(Period::seconds(second));
    let mut all = Vec::new();
    // Kept in another order than they happened: two threads may pass each other.
    for (second, key, operation) in [
        (1, "a", ReceiptOperation::SignatureCreated),
        (3, "b", ReceiptOperation::SignatureCreated),
        (2, "a", ReceiptOperation::KeyRevoked),
        (2, "b", ReceiptOperation::SignatureCreated),
        (4, "a", ReceiptOperation::SignatureCreated),
    ] {
        let mut one = receipt();
        one.scope = scope("t");
        one.ts = at(second);
        one.operation = operation;
        one.context.key_id = Some(key.to_owned());
        all.push(signed(one));
    }
    let foreign = receipt_in(&scope("other"));
    for one in all.iter().cloned().chain([foreign]) {
        let kept = store.commit(only(vec![one])).await;
        kept.expect("nothing conflicts");
    }
    let query = ReceiptQuery {
        scope: scope("t"),
        key_id: None,
        operation: None,
        from: None,
        until: None,
        after: None,
        limit: 100,
    };
    let of_key = ReceiptQuery {
        key_id: Some("a".to_owned()),
        ..query.clone()
    };
    let signatures = ReceiptQuery {
        operation: Some(ReceiptOperation::SignatureCreated.name()),
        ..query.clone()
    };
    let between = ReceiptQuery {
        from: Some(at(2)),
        until: Some(at(4)),
        ..query.clone()
    };
    let of_nobody = ReceiptQuery {
        scope: scope("nobody"),
        ..query.clone()
    };
    for (query, expected) in [
        (query, vec![0, 2, 3, 1, 4]),
        (of_key, vec![0, 2, 4]),
        (signatures, vec![0, 3, 1, 4]),
        (between, vec![2, 3, 1]),
        (of_nobody, vec![]),
    ] {
        for limit in [1, 2, 100] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let page = store.list_receipts(ReceiptQuery {
                    limit,
                    after,
                    ..query.clone()
                });
                let page = page.await.expect("available");
                assert!(page.receipts.len() <= limit);
                for kept in page.receipts {
                    let place = usize::try_from(kept.leaf_index).expect("few");
                    assert_eq!(kept.leaf, all[place].leaf);
                    found.push(kept.leaf_index);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{query:?} by {limit}");
        }
    }
}

pub(super) async fn a_receipt_signed_before_a_takeover_and_kept_after_it_is_signed_again(
    store: Store,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let next = LedgerSigner::create(&folder.path().join("next")).expect("created");
    // The same signer that the store has: begun once more, since it is to change.
    let signer = Arc::new(signer());
    store
        .begin_ledger(Arc::clone(&signer) as _)
        .await
        .expect("as it was");
    store.hand_over_ledger().await.expect("nobody waits");
    assert_eq!(store.ledger_keys().await.expect("available").len(), 1);
    let early = receipt_in(&scope("t"));
    let late = receipt_in(&scope("t"));
    let kept = store.commit(only(vec![early.clone()])).await;
    kept.expect("nothing conflicts");

    let waits = signer.load_next(&folder.path().join("next"));
    assert_eq!(waits.expect("readable"), NextKey::Waits);
    store.hand_over_ledger().await.expect("available");
    let keys = store.ledger_keys().await.expect("available");
    assert_eq!((keys.len(), keys[1].from_size), (2, 1));
    assert_eq!(keys[1].public_key, next.public_key());
    let note = keys[1].handover.as_ref().expect("signed by both");
    let head = store.ledger_head();
    assert_eq!((&head.note, head.checkpoint.size), (note, 1));
    for key in [&*signer, &next] {
        assert_eq!(key.read_checkpoint(note), Some(head.checkpoint));
    }

    let kept = store.commit(only(vec![late.clone()])).await;
    kept.expect("nothing conflicts");
    let newest = store
        .newest_receipt()
        .await
        .expect("available")
        .expect("kept");
    assert_eq!(newest.leaf_index, 1);
    assert!(next.is_genuine(&newest.leaf) && newest.leaf != late.leaf);
    let read = ReadReceipt::parse(&newest.leaf).expect("canonical");
    assert_eq!(read.receipt.receipt_id, late.receipt_id);
    let first = store.read_leaves(0, 1).await.expect("available");
    assert_eq!(first, [early.leaf]);
    assert_eq!(store.ledger_head().tree, tree_over_leaves(&*store).await);
    let note = &store.ledger_head().note;
    assert!(
        next.read_checkpoint(note).is_some(),
        "the new key signs alone"
    );
}

pub(super) async fn nothing_is_kept_before_the_ledger_has_begun(store: Store) {
    let refused = store.commit(only(vec![receipt_in(&scope("t"))])).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    assert!(store.hand_over_ledger().await.is_err());
    assert!(store.ledger_keys().await.expect("available").is_empty());
    assert_eq!(store.ledger_head().note, "");
    begin(&*store);
    let kept = store.commit(only(vec![receipt_in(&scope("t"))])).await;
    kept.expect("nothing conflicts");
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
