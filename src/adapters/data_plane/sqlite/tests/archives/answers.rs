//! What is still answered of receipts that were moved.

use std::fs;

use super::*;
use crate::domain::ids::ReceiptId;
use crate::ports::ledger_store::{KeptReceipt, ReceiptQuery};

/// Every page of this query, one after the other.
async fn walk(store: &SqliteDataPlane, mut query: ReceiptQuery) -> Vec<KeptReceipt> {
    let mut found = Vec::new();
    loop {
        let page = store.list_receipts(query.clone()).await.expect("available");
        assert!(page.receipts.len() <= query.limit);
        found.extend(page.receipts);
        match page.next {
            None => return found,
            Some(next) => {
                assert!(query.after.is_none_or(|after| after < next), "it stands");
                query.after = Some(next);
            }
        }
    }
}

/// What is answered to all that can be asked of receipts.
async fn everything(store: &SqliteDataPlane) -> Vec<Vec<KeptReceipt>> {
    let mut answers = Vec::new();
    let size = store.ledger_size();
    for tenant in ["a", "b", "nobody"] {
        for (key_id, operation) in [
            (None, None),
            (Some("key-1"), None),
            (None, Some(ReceiptOperation::Decrypt.name())),
            (Some("key-3"), Some(ReceiptOperation::Decrypt.name())),
            (Some("no-key"), None),
        ] {
            for (from, until, limit) in [
                (None, None, 1_000),
                (None, None, 37),
                (Some(time(size / 3)), Some(time(size * 2 / 3)), 11),
                (Some(time(500)), Some(time(520)), 1),
                (Some(time(size + 100_000)), None, 10),
            ] {
                let query = ReceiptQuery {
                    scope: scope(tenant),
                    key_id: key_id.map(str::to_owned),
                    operation,
                    from,
                    until,
                    after: None,
                    limit,
                };
                answers.push(walk(store, query).await);
            }
        }
    }
    for (first, number) in [(0, 256), (200, 700), (510, 4), (511, 2_000), (size, 5)] {
        let leaves = store.read_leaves(first, number).await.expect("available");
        answers.push(
            (first..)
                .zip(leaves)
                .map(|(leaf_index, leaf)| KeptReceipt { leaf_index, leaf })
                .collect(),
        );
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_is_answered_as_before() {
    let folder = Folder::new();
    let store = folder.open();
    // Times that are in order but for a little, across every border.
    append(&store, 1_700, |place| time(place + 100 - random(100))).await;
    let before = everything(&store).await;
    assert!(before.iter().filter(|answer| !answer.is_empty()).count() >= 25);
    for until in [400, 900, 1_200, 5_000] {
        moved(&folder, time(until));
        assert_eq!(everything(&store).await, before, "{until}");
    }
    assert_eq!(
        files(&folder),
        [
            "receipts-0-256.db",
            "receipts-1024-1536.db",
            "receipts-256-768.db",
            "receipts-768-1024.db",
        ]
    );
    assert_eq!(places(&folder.foreign_connection()).0, 1_536);
    for receipt in before[0].iter().chain(&before[25]) {
        let read = serde_json::from_slice::<serde_json::Value>(&receipt.leaf).expect("JSON");
        let id: ReceiptId = read["receipt_id"]
            .as_str()
            .expect("text")
            .parse()
            .expect("an id");
        for tenant in ["a", "b", "nobody"] {
            let found = store.find_receipt(&scope(tenant), id).await;
            let expected = (read["tenant_id"] == tenant).then(|| receipt.clone());
            assert_eq!(found.expect("available"), expected);
        }
    }
    let unknown = store.find_receipt(&scope("a"), ReceiptId::generate()).await;
    assert_eq!(unknown.expect("available"), None);

    // And the store goes on, and begins again.
    append(&store, 300, time).await;
    drop(store);
    let store = folder.open();
    assert_eq!(store.ledger_size(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_are_in_both_places_are_answered_once() {
    let folder = Folder::new();
    let store = filled(&folder, 1_200).await;
    let before = everything(&store).await;
    // As an archiver leaves it that was killed while it removed.
    let copy = tempfile::tempdir().expect("a folder");
    let other = Folder(copy);
    store.close().await;
    fs::copy(folder.database(), other.database()).expect("copied");
    moved(&other, time(2_000));
    fs::create_dir(folder.0.path().join("archive")).expect("made");
    fs::copy(
        archive_file(&other, "receipts-0-1024.db"),
        archive_file(&folder, "receipts-0-1024.db"),
    )
    .expect("copied");
    let foreign = folder.foreign_connection();
    foreign
        .execute_batch(
            "INSERT INTO archives VALUES (0, 1024, 'receipts-0-1024.db');
             DELETE FROM receipts WHERE seq < 600",
        )
        .expect("allowed");
    drop(store);
    let store = folder.open();
    assert_eq!(everything(&store).await, before);

    let summary = moved(&folder, time(0));
    assert_eq!((summary.removed, summary.kept_from), (424, 1_024));
    assert_eq!(places(&foreign), (1_024, 1_199, 176));
    assert_eq!(everything(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_away_is_passed_over_and_found_again_later() {
    let folder = Folder::new();
    let store = filled(&folder, 1_200).await;
    let before = everything(&store).await;
    moved(&folder, time(300));
    moved(&folder, time(600));
    let away = folder.0.path().join("away");
    fs::rename(archive_file(&folder, "receipts-0-256.db"), &away).expect("moved");
    let mut query = ReceiptQuery {
        scope: scope("a"),
        key_id: None,
        operation: None,
        from: None,
        until: None,
        after: None,
        limit: 50,
    };
    let found = walk(&store, query.clone()).await;
    let rest: Vec<_> = before[0]
        .iter()
        .filter(|receipt| receipt.leaf_index >= 256)
        .cloned()
        .collect();
    assert_eq!(found, rest);
    assert_eq!(store.read_leaves(0, 10).await.expect("available").len(), 0);
    drop(store);
    fs::rename(&away, archive_file(&folder, "receipts-0-256.db")).expect("moved");
    let store = folder.open();
    query.limit = 1_000;
    assert_eq!(walk(&store, query).await, before[0]);
}
