//! What is written to its place later is answered from the first moment on, whatever
//! happens in between.

mod model;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use self::model::{Model, REPAIR, SABOTAGE};
use super::archives::{random, time};
use super::schema::insert_old;
use super::{Folder, is_unavailable};
use crate::adapters::data_plane::conformance::{
    insert, now, scope, signed, signer, stored_key, use_of,
};
use crate::adapters::data_plane::sqlite::deferred::memtable::Memtable;
use crate::adapters::data_plane::sqlite::deferred::{first_unlisted, log_use, read_recent};
use crate::adapters::data_plane::sqlite::known::Known;
use crate::adapters::data_plane::sqlite::ledger::appender::ReceiptAppender;
use crate::adapters::data_plane::sqlite::ledger::archives::Archives;
use crate::adapters::data_plane::sqlite::ledger::pages;
use crate::adapters::data_plane::sqlite::ledger::rows::{self, scope_number};
use crate::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions, archive, open};
use crate::domain::key::StoredKey;
use crate::domain::ledger::TreeHash;
use crate::domain::receipt::tests::receipt;
use crate::domain::receipt::{Receipt, ReceiptOperation, SignedReceipt};
use crate::domain::time::Timestamp;
use crate::domain::usage::UsageCount;
use crate::ports::data_plane::{DataPlane as _, Transaction};
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::{LedgerStore as _, ReceiptQuery};

/// Every page of a query, by place.
async fn places(store: &SqliteDataPlane, mut query: ReceiptQuery) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let page = store.list_receipts(query.clone()).await.expect("available");
        found.extend(page.receipts.iter().map(|receipt| receipt.leaf_index));
        match page.next {
            None => return found,
            next => query.after = next,
        }
    }
}

fn number(connection: &Connection, sql: &str) -> i64 {
    let asked = connection.query_row(sql, [], |row| row.get(0));
    asked.expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_counts_are_right_whatever_happens_between_their_writing() {
    let mut model = Model::new().await;
    for step in 0..600 {
        match random(40) {
            0 => model.reopen(),
            1 | 2 => model.fail(SABOTAGE[random(3) as usize]).await,
            3 => {
                let before = time(random(model.receipts.len() as u64));
                let run = archive::run(&model.folder.database(), before, &mut |_| {});
                run.expect("nothing is in the way");
            }
            4..15 => model.use_one().await,
            _ => model.append().await,
        }
        if step % 5 == 0 {
            model.is_answered().await;
        }
    }
    model.is_answered().await;
    model.reopen();
    model.is_answered().await;
    // Nearly all of it is in its place, and nothing stays in the log of uses for long.
    let foreign = model.folder.foreign_connection();
    let listed = number(&foreign, "SELECT count(*) FROM receipts_by_time");
    let unlisted = number(&foreign, "SELECT count(*) FROM receipts") - listed;
    assert!(unlisted < 150, "{unlisted} of {}", model.receipts.len());
    let logged = number(&foreign, "SELECT count(*) FROM key_use_log");
    assert!(logged < 150, "{logged}");
    let in_place = number(&foreign, "SELECT count(*) FROM key_usage");
    assert_eq!(in_place, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_its_place_is_listed_at_every_moment() {
    let folder = Folder::new();
    let store = Arc::new(folder.open_with(SqliteOptions {
        generation: 4,
        ..SqliteOptions::default()
    }));
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, is_over) = (Arc::clone(&store), Arc::clone(&is_over));
        tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let answered_for = store.ledger_size();
                let query = ReceiptQuery {
                    scope: scope("a"),
                    key_id: None,
                    operation: None,
                    from: None,
                    until: None,
                    after: None,
                    limit: 10_000,
                };
                let mut found = places(&store, query).await;
                found.sort_unstable();
                let end = found.len() as u64;
                assert_eq!(found, (0..end).collect::<Vec<_>>());
                assert!(end >= answered_for, "{end} of {answered_for}");
            }
        })
    };
    for place in 0..3_000 {
        let transaction = Transaction {
            receipts: vec![signed(Receipt {
                // So that of four the last ones go to their places first.
                ts: time(place ^ 3),
                scope: scope("a"),
                ..receipt()
            })],
            ..Transaction::default()
        };
        store.commit(transaction).await.expect("kept");
    }
    is_over.store(true, Ordering::SeqCst);
    reader.await.expect("every list was right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_starts_often_has_no_more_in_memory_each_time() {
    let mut model = Model::new().await;
    let foreign = model.folder.foreign_connection();
    let unlisted = || {
        number(
            &foreign,
            "SELECT (SELECT count(*) FROM receipts) - (SELECT count(*) FROM receipts_by_time)",
        )
    };
    for _ in 0..20 {
        model.reopen_with(64);
        for _ in 0..6 {
            model.use_one().await;
            model.append().await;
        }
        assert!(unlisted() < 64 + 30, "{}", unlisted());
    }
    // Nor is it in the way of a start where it cannot be moved.
    model.reopen_with(1_000);
    while unlisted() < 64 {
        model.append().await;
    }
    foreign.execute_batch(SABOTAGE[2]).expect("valid SQL");
    model.reopen_with(64);
    foreign.execute_batch(REPAIR).expect("valid SQL");
    model.is_answered().await;
    model.append().await;
    model.is_answered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_an_archive_before_it_is_listed_is_listed_there_only() {
    let mut model = Model::new().await;
    model.reopen_with(1_024);
    while model.receipts.len() < 900 {
        model.append().await;
    }
    let far = time(100_000);
    let moved = archive::run(&model.folder.database(), far, &mut |_| {});
    assert_eq!(moved.expect("nothing is in the way").removed, 768);
    model.is_answered().await;
    while model.receipts.len() < 2_000 {
        model.append().await;
    }
    let foreign = model.folder.foreign_connection();
    assert!(number(&foreign, "SELECT count(*) FROM receipts_by_time") > 200);
    model.is_answered().await;
}

#[tokio::test]
async fn a_commit_that_failed_and_is_on_the_disk_is_listed_and_counted() {
    let mut model = Model::new().await;
    let key = model.keys[0].clone();
    model.keys.truncate(1);
    model.use_one().await;
    model.fail(SABOTAGE[1]).await;
    // What that would have written, had it reached the disk.
    let foreign = model.folder.foreign_connection();
    foreign
        .execute_batch("BEGIN IMMEDIATE")
        .expect("nobody writes");
    let lost = signed(Receipt {
        scope: scope("a"),
        ..receipt()
    });
    let place = model.receipts.len() as u64;
    let known = Known::default();
    let mut appender = ReceiptAppender::new(&foreign, &known);
    appender
        .append(place, &[Cow::Borrowed(&lost)])
        .expect("appended");
    drop(appender);
    let twice = UsageCount {
        day: now().utc_day(),
        used: 2,
        encryptions: 2,
        last_used_at: Some(now()),
    };
    log_use(&foreign, key.record.key_id, &twice).expect("written");
    let mut tree = model.store().ledger_head().tree.clone();
    tree.push(TreeHash::of_leaf(&lost.leaf), &mut Vec::new());
    let note = signer().sign_checkpoint(&tree.checkpoint()).to_string();
    rows::write_head(&foreign, &note).expect("written");
    let changed = "UPDATE keys SET version = version + 1 WHERE key_id = ?1";
    let changed = foreign.execute(changed, [key.record.key_id.as_bytes()]);
    assert_eq!(changed, Ok(1));
    foreign.execute_batch("COMMIT").expect("committed");
    model.receipts.push(lost);
    model.keys[0].record.version += 1;

    model.use_one().await;
    model.uses[0] = 3;
    model.reopen();
    model.is_answered().await;
}

#[test]
fn a_list_is_of_one_moment_whatever_goes_to_its_place_meanwhile() {
    let folder = Folder::new();
    drop(old_store(&folder));
    let store = open::writable_database(&folder.database(), std::time::Duration::ZERO);
    let store = store.expect("migrated");
    let memtable = Memtable::default();
    // Those behind it came to their places in no order of time, and perhaps not all of them.
    memtable.reset(Vec::new(), 5);
    let archives = Archives::of(&folder.database());
    for key_id in [None, Some("a".to_owned())] {
        let query = ReceiptQuery {
            scope: scope("a"),
            key_id,
            operation: None,
            from: None,
            until: None,
            after: None,
            limit: 10,
        };
        let page = pages::list_receipts(&store, &memtable, &archives, &query);
        let found = page.expect("readable").receipts;
        let places = found.iter().map(|receipt| receipt.leaf_index);
        assert_eq!(places.collect::<Vec<_>>(), [4, 2, 0]);
    }
}

#[tokio::test]
async fn a_listed_receipt_stays_listed_as_it_is() {
    let mut model = Model::new().await;
    for _ in 0..100 {
        model.append().await;
    }
    let foreign = model.folder.foreign_connection();
    for statement in [
        "DELETE FROM receipts_by_time",
        "DELETE FROM receipts_by_key",
        "UPDATE receipts_by_time SET operation = 'encrypt'",
        "UPDATE receipts_by_key SET ts = ts + 1",
    ] {
        let refused = foreign
            .execute_batch(statement)
            .map_err(|error| error.to_string());
        assert_eq!(
            refused,
            Err("a receipt stays listed".to_owned()),
            "{statement}"
        );
    }
    assert!(number(&foreign, "SELECT count(*) FROM receipts_by_key") > 20);
}

#[test]
fn what_is_missing_in_a_list_or_too_much_is_found() {
    for damage in [
        "DELETE FROM receipts_by_time WHERE seq = 3",
        "DELETE FROM receipts_by_key WHERE seq = 3",
        "UPDATE receipts_by_time SET ts = ts + 1 WHERE seq = 3",
        "UPDATE receipts_by_key SET operation = 'encrypt' WHERE seq = 3",
        "INSERT INTO receipts_by_time SELECT scope, ts + 1, seq, operation FROM receipts WHERE seq = 3",
        "INSERT INTO receipts_by_key SELECT scope, 'b', ts, seq, operation FROM receipts WHERE seq = 3",
    ] {
        let folder = Folder::new();
        drop(old_store(&folder));
        let connection = open::writable_database(&folder.database(), std::time::Duration::ZERO);
        let connection = connection.expect("migrated");
        assert_eq!(first_unlisted(&connection).expect("readable"), None);
        let triggers = "DROP TRIGGER receipts_stay_listed_by_time; \
             DROP TRIGGER receipts_stay_listed_by_key; DROP TRIGGER lists_stay_the_same_by_time; \
             DROP TRIGGER lists_stay_the_same_by_key;";
        connection.execute_batch(triggers).expect("dropped");
        connection.execute_batch(damage).expect("allowed now");
        assert_eq!(
            first_unlisted(&connection).expect("readable"),
            Some(3),
            "{damage}"
        );
    }
}

/// A database as it was before the lists, with eight receipts.
fn old_store(folder: &Folder) -> Connection {
    let old = folder.foreign_connection();
    for step in &open::MIGRATIONS[..4] {
        old.execute_batch(step).expect("valid SQL");
    }
    old.pragma_update(None, "user_version", 4).expect("set");
    for tenant in ["b", "a"] {
        scope_number(&old, &scope(tenant)).expect("inserted");
    }
    for place in 0..8 {
        let inserted = old.execute(
            "INSERT INTO receipts VALUES (?1, randomblob(16), 2 - ?1 % 2, 1772366400000000 - ?1, \
             'decrypt', CASE ?1 WHEN 5 THEN NULL ELSE 'a' END, x'00')",
            [place],
        );
        inserted.expect("inserted");
    }
    old
}

#[test]
fn what_an_older_release_kept_is_listed() {
    let folder = Folder::new();
    let old = old_store(&folder);
    insert_old(&old, &[7; 16], 0, None, None);
    let used = "INSERT INTO key_usage SELECT key_id, 20000, 7, 3, NULL FROM keys";
    old.execute_batch(used).expect("inserted");
    drop(old);
    let connection = open::writable_database(&folder.database(), std::time::Duration::ZERO);
    let connection = connection.expect("migrated");
    let listed: BTreeMap<&str, i64> = ["receipts_by_time", "receipts_by_key"]
        .map(|list| {
            (
                list,
                number(&connection, &format!("SELECT count(*) FROM {list}")),
            )
        })
        .into();
    assert_eq!(
        listed,
        [("receipts_by_time", 8), ("receipts_by_key", 7)].into()
    );
    assert_eq!(first_unlisted(&connection).expect("readable"), None);
    let recent = read_recent(&connection).expect("readable");
    assert_eq!((recent.receipts.len(), recent.end), (0, 8));
    assert_eq!(number(&connection, "SELECT used FROM key_usage"), 7);
}
