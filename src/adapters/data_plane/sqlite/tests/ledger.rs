//! The ledger's tables, and those of the release that knew no tree.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Folder, one_receipt};
use crate::adapters::data_plane::conformance::{
    begin, begin_with, receipt_in, scope, signed, signer, tree_over_leaves,
};
use crate::adapters::data_plane::sqlite::batch::{Batch, Refusal};
use crate::adapters::data_plane::sqlite::deferred::recent_uses::RecentUses;
use crate::adapters::data_plane::sqlite::known::Known;
use crate::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions, open};
use crate::adapters::ledger::LedgerSigner;
use crate::domain::ledger::{LedgerFlaw, Tile, TileId, Tree, TreeHash};
use crate::domain::receipt::SignedReceipt;
use crate::domain::receipt::tests::receipt;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::{DataPlane as _, Transaction};
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::{LedgerFault, LedgerStore as _, ReceiptQuery};

/// A database of the first release with these receipts.
fn first_release(receipts: &[SignedReceipt]) -> Folder {
    let folder = Folder::new();
    let old = folder.foreign_connection();
    for (step, sql) in (1..=2).zip(open::MIGRATIONS) {
        old.execute_batch(sql).expect("valid SQL");
        old.pragma_update(None, "user_version", step).expect("set");
    }
    let pinned = signer().public_key();
    old.execute(
        "INSERT INTO meta VALUES (?1, ?2)",
        params!["ledger_public_key", pinned],
    )
    .expect("pinned");
    for (seq, receipt) in (0..).zip(receipts) {
        keep_as_first_release(&old, seq, receipt);
    }
    folder
}

fn keep_as_first_release(old: &Connection, seq: i64, receipt: &SignedReceipt) {
    let scope = &receipt.scope;
    old.execute(
        "INSERT INTO receipts VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            seq,
            receipt.receipt_id.as_bytes(),
            scope.tenant_id.as_str(),
            scope.environment.as_str(),
            scope.plane.as_str(),
            receipt.leaf
        ],
    )
    .expect("a row of the first release");
}

fn reopened(folder: &Folder) -> (SqliteDataPlane, Result<(), LedgerFault>) {
    let store = SqliteDataPlane::open(&folder.database(), SqliteOptions::default());
    let store = store.expect("a database of ours");
    let begun = begin_with(&store, Arc::new(signer()));
    (store, begun)
}

#[tokio::test]
async fn the_receipts_of_the_first_release_come_into_the_tree_with_what_they_are_found_by() {
    let receipts: Vec<_> = (0..600)
        .map(|number| {
            let mut one = receipt();
            one.scope = scope(["t", "other"][number % 2]);
            let microseconds = 1_772_366_400_000_000 + number as i64 * 1_000_001;
            one.ts = Timestamp::from_microseconds(microseconds).expect("a time");
            one.context.key_id = Some(format!("key {}", number % 3));
            signed(one)
        })
        .collect();
    let folder = first_release(&receipts);
    let (store, begun) = reopened(&folder);
    begun.expect("every receipt is genuine");
    assert_eq!(store.ledger_size(), 600);
    assert_eq!(store.ledger_head().tree, tree_over_leaves(&store).await);
    let leaves = store.read_leaves(0, 600).await.expect("available");
    assert!(leaves.iter().eq(receipts.iter().map(|one| &one.leaf)));
    let page = store.list_receipts(ReceiptQuery {
        scope: scope("t"),
        key_id: Some("key 1".to_owned()),
        operation: Some(receipts[0].operation),
        from: Some(receipts[4].ts),
        until: Some(receipts[16].ts),
        after: None,
        limit: 10,
    });
    let page = page.await.expect("available");
    let places: Vec<_> = page.receipts.iter().map(|one| one.leaf_index).collect();
    assert_eq!(places, [4, 10]);
    store.commit(one_receipt()).await.expect("goes on");
    drop(store);
    let (store, begun) = reopened(&folder);
    begun.expect("as it was left");
    assert_eq!(store.ledger_size(), 601);
}

/// The two complete tiles of 600 receipts.
async fn two_tiles(store: &SqliteDataPlane) -> Vec<Arc<Tile>> {
    let tile = |index| TileId { level: 0, index };
    let tiles = store.read_tiles((0..3).map(tile).collect()).await;
    let tiles = tiles.expect("available");
    assert!(tiles.keys().copied().eq([tile(0), tile(1)]));
    tiles.into_values().collect()
}

fn remove_tiles(folder: &Folder) {
    let other = folder.foreign_connection();
    other
        .execute_batch("DROP TRIGGER tiles_stay; DELETE FROM tiles")
        .expect("removed");
}

#[tokio::test]
async fn complete_tiles_are_read_once_and_those_of_this_process_never() {
    let kept = async |folder: &Folder| {
        let store = folder.open();
        let receipts = (0..600).map(|_| receipt_in(&scope("t"))).collect();
        let transaction = Transaction {
            receipts,
            ..Transaction::default()
        };
        store.commit(transaction).await.expect("kept");
        store
    };
    let folder = Folder::new();
    let store = kept(&folder).await;
    remove_tiles(&folder);
    let completed = two_tiles(&store).await;
    assert_eq!(completed, two_tiles(&store).await);

    let folder = Folder::new();
    drop(kept(&folder).await);
    let (store, begun) = reopened(&folder);
    begun.expect("as it was left");
    let read = two_tiles(&store).await;
    remove_tiles(&folder);
    assert_eq!(read, two_tiles(&store).await);
    let tree = tree_over_leaves(&store).await;
    assert_eq!(tree, store.ledger_head().tree);
    for (index, tile) in read.iter().enumerate() {
        let leaves = store.read_leaves(256 * index as u64, 256).await;
        let hashes = leaves.expect("available");
        let hashes = hashes.iter().map(|leaf| TreeHash::of_leaf(leaf));
        assert!(tile.hashes().eq(hashes), "{index}");
    }
}

#[tokio::test]
async fn a_first_release_with_a_forged_receipt_or_another_key_is_not_taken_over() {
    let mut receipts: Vec<_> = (0..300).map(|_| receipt_in(&scope("t"))).collect();
    let other = LedgerSigner::from_seed(&[9; 32]).expect("32 bytes");
    receipts[270] = other.sign(receipt()).expect("signed");
    let (_, begun) = reopened(&first_release(&receipts));
    let flaw = LedgerFlaw::ReceiptForged { leaf_index: 270 };
    assert!(
        matches!(begun, Err(LedgerFault::Flawed(found)) if found == flaw),
        "{begun:?}"
    );

    let folder = first_release(&receipts[..1]);
    let store = SqliteDataPlane::open(&folder.database(), SqliteOptions::default());
    let foreign = begin_with(&store.expect("a database of ours"), Arc::new(other));
    assert!(matches!(foreign, Err(LedgerFault::Foreign)), "{foreign:?}");
    let (_, begun) = reopened(&folder);
    begun.expect("nothing was changed");
}

#[tokio::test]
async fn what_the_ledger_keeps_is_not_changed_even_by_hand() {
    let folder = Folder::new();
    let store = folder.open();
    for _ in 0..3 {
        let receipts = (0..100).map(|_| receipt_in(&scope("t"))).collect();
        let kept = store.commit(Transaction {
            receipts,
            ..Transaction::default()
        });
        kept.await.expect("nothing conflicts");
    }
    let foreign = folder.foreign_connection();
    for (statement, reason) in [
        ("DELETE FROM tiles", "a tile is never deleted"),
        ("UPDATE tiles SET tile_index = 7", "a tile is never changed"),
        (
            "INSERT OR REPLACE INTO tiles SELECT * FROM tiles",
            "a tile is kept once",
        ),
        ("DELETE FROM checkpoints", "a checkpoint is never deleted"),
        (
            "UPDATE checkpoints SET size = 7",
            "a checkpoint is never changed",
        ),
        (
            "DELETE FROM ledger_keys",
            "a key of the ledger is never deleted",
        ),
        (
            "UPDATE ledger_keys SET from_size = 7",
            "a key of the ledger is never changed",
        ),
        (
            "DELETE FROM receipts WHERE seq = 0",
            "a receipt is never deleted",
        ),
        (
            "INSERT INTO ledger_head VALUES (2, '')",
            "CHECK constraint failed",
        ),
    ] {
        let refused = foreign.execute_batch(statement).expect_err(statement);
        assert!(
            refused.to_string().contains(reason),
            "{statement}: {refused}"
        );
    }
    let tiles: i64 = foreign
        .query_row("SELECT count(*) FROM tiles", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(tiles, 1);
    // That of the empty ledger, and that of the first batch: the next one is a
    // minute away.
    let kept: i64 = foreign
        .query_row("SELECT count(*) FROM checkpoints", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(kept, 2);
}

#[tokio::test]
async fn a_receipt_too_large_for_a_bundle_is_refused_and_takes_nothing_along() {
    let folder = Folder::new();
    let store = folder.open();
    let mut large = receipt();
    large.context.key_id = Some("x".repeat(70_000));
    let refused = store.commit(Transaction {
        receipts: vec![receipt_in(&scope("t")), signed(large)],
        ..Transaction::default()
    });
    assert!(super::is_unavailable(&refused.await));
    assert_eq!(store.ledger_size(), 0);
    store.commit(one_receipt()).await.expect("goes on");
    assert_eq!(store.ledger_head().tree, tree_over_leaves(&store).await);
}

#[tokio::test]
async fn a_foreign_receipt_is_missed_in_the_index() {
    let folder = Folder::new();
    drop(folder.open());
    let foreign = folder.foreign_connection();
    let mut plan = foreign
        .prepare(
            "EXPLAIN QUERY PLAN SELECT seq, leaf FROM receipts INDEXED BY receipts_by_id \
             WHERE receipt_id = x'00' AND scope = 1",
        )
        .expect("valid SQL");
    let plan: Vec<String> = plan
        .query_map([], |row| row.get(3))
        .expect("rows")
        .map(|line| line.expect("text"))
        .collect();
    assert_eq!(
        plan,
        ["SEARCH receipts USING INDEX receipts_by_id (receipt_id=? AND scope=?)"]
    );
    begin(&folder.open());
}

#[tokio::test]
async fn a_scope_that_was_rolled_back_with_its_transaction_is_made_anew_by_the_next() {
    let folder = Folder::new();
    drop(folder.open());
    let connection = open::writing_connection(&folder.database(), Duration::ZERO);
    let connection = connection.expect("a database of ours");
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .expect("nobody writes");
    let signer = signer();
    let (known, uses) = (Known::default(), RecentUses::default());
    let mut batch = Batch::new(&connection, &signer, &known, &uses, Tree::new());
    let receipts_of = |receipts| Transaction {
        receipts,
        ..Transaction::default()
    };
    // One statement takes sixteen: the one that fails is not the first.
    let mut receipts: Vec<_> = (0..16).map(|_| receipt_in(&scope("new"))).collect();
    receipts.push(receipts[0].clone());
    let refused = batch.apply(&receipts_of(receipts));
    assert!(matches!(refused, Err(Refusal::Malformed(_))), "{refused:?}");
    let kept = batch.apply(&receipts_of(vec![receipt_in(&scope("new"))]));
    assert!(kept.is_ok(), "{kept:?}");
    // And of the refused one nothing is listed.
    let listed = batch.finish(false).expect("written").receipts;
    let places = listed.iter().map(|entry| entry.place.leaf_index);
    assert_eq!(places.collect::<Vec<_>>(), [0]);
}
