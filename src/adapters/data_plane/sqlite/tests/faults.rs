//! How the store fails, and that it recovers with nothing half-written.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Folder, enqueue, is_unavailable, one_receipt, start};
use crate::adapters::data_plane::conformance::{
    changes, insert, now, receipt_in, revocation, scope, stored_key, tree_over_leaves, use_of,
};
use crate::adapters::data_plane::sqlite::SqliteOptions;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyRef;
use crate::domain::key::KeyState;
use crate::ports::data_plane::{Change, CommitError, Conflict, DataPlane, Transaction};
use crate::ports::ledger_store::LedgerStore as _;

#[tokio::test]
async fn another_process_that_writes_makes_the_store_unavailable_until_it_is_done() {
    let folder = Folder::new();
    let store = folder.open_with(SqliteOptions {
        busy_timeout: Duration::from_millis(20),
        ..SqliteOptions::default()
    });
    let (used, newcomer) = (stored_key(), stored_key());
    insert(&store, used.clone()).await;
    let counter = store.usage_counter(used.record.key_id).await;
    let counter = counter.expect("available");

    let lock = folder.write_lock();
    let reservation = counter.reserve(now(), 1, true).expect("one is left");
    let refused = store.commit(use_of(&used.record, reservation)).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    assert_eq!(counter.count().used, 0, "the use is given back");
    let insertion = || changes(vec![Change::InsertKey(newcomer.clone())]);
    assert!(is_unavailable(&store.commit(insertion()).await));
    assert!(store.probe_write().await.is_err());
    assert!(store.pin("name", b"value").await.is_err());
    let name = KeyRef::Id(used.record.key_id);
    let found = store.find_key(&used.record.scope, &name).await;
    assert!(found.expect("reading goes on").is_some());
    drop(lock);

    store.probe_write().await.expect("available again");
    let reservation = counter.reserve(now(), 1, true).expect("one is left");
    let kept = store.commit(use_of(&used.record, reservation)).await;
    kept.expect("available again");
    store
        .commit(insertion())
        .await
        .expect("nothing of it was kept");
    assert_eq!(store.ledger_size(), 3);
    assert_eq!(store.pin("name", b"new").await.expect("available"), b"new");
    let newest = store.newest_receipt().await.expect("available");
    assert_eq!(newest.expect("kept").leaf_index, 2);
}

#[tokio::test]
async fn commits_at_once_share_one_write() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let occupied = gate.occupy(&store);
    let commits: Vec<_> = (0..100).map(|_| enqueue(&store, one_receipt())).collect();
    gate.release();
    for commit in commits.into_iter().chain([occupied]) {
        commit.await.expect("nothing conflicts");
    }
    let sizes: Vec<_> = gate
        .commits()
        .iter()
        .map(|stats| (stats.transactions, stats.receipts))
        .collect();
    assert_eq!(sizes, [(1, 1), (100, 100)]);
}

#[tokio::test]
async fn a_receipt_that_breaks_a_constraint_takes_none_of_those_along_that_share_its_statement() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let occupied = gate.occupy(&store);
    let (twice, mut large) = (one_receipt(), one_receipt());
    large.receipts[0].leaf = vec![b'x'; 65_536];
    let again = Transaction {
        receipts: twice.receipts.clone(),
        ..Transaction::default()
    };
    let mut good = vec![occupied, enqueue(&store, twice)];
    good.extend((0..20).map(|_| enqueue(&store, one_receipt())));
    let bad = [large, again].map(|transaction| enqueue(&store, transaction));
    good.extend((0..20).map(|_| enqueue(&store, one_receipt())));
    gate.release();
    for kept in good {
        kept.await.expect("it breaks nothing");
    }
    for refused in bad {
        assert!(is_unavailable(&refused.await));
    }
    assert_eq!(
        gate.largest_commit(),
        41,
        "one write, less what was refused"
    );
    assert_eq!(store.ledger_size(), 42);
    assert_eq!(store.ledger_head().tree, tree_over_leaves(&store).await);
}

#[tokio::test]
async fn conditions_hold_within_one_batch_too() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let key = stored_key();
    insert(&store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let occupied = gate.occupy(&store);
    let use_now = || {
        let reservation = counter.reserve(now(), 10, false).expect("some are left");
        enqueue(&store, use_of(&key.record, reservation))
    };
    let before = use_now();
    let revoke = enqueue(&store, revocation(&key.record));
    let again = enqueue(&store, revocation(&key.record));
    let after = use_now();
    let last = enqueue(&store, one_receipt());
    gate.release();
    for kept in [occupied, before, revoke, last] {
        kept.await.expect("nothing conflicts");
    }
    for late in [again, after] {
        let refused = late.await;
        assert!(matches!(
            refused,
            Err(CommitError::Conflict(Conflict::KeyChanged))
        ));
    }
    assert_eq!(gate.largest_commit(), 3, "one batch, less what was refused");
    assert_eq!(counter.count().used, 1);
    assert_eq!(store.ledger_size(), 5);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_left_out_and_gives_its_use_back() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let key = stored_key();
    insert(&store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let occupied = gate.occupy(&store);
    let reservation = counter.reserve(now(), 10, false).expect("some are left");
    let abandoned = enqueue(&store, use_of(&key.record, reservation));
    let waiting = enqueue(&store, one_receipt());
    drop(abandoned);
    gate.release();
    for commit in [occupied, waiting] {
        commit.await.expect("nothing conflicts");
    }
    assert_eq!(store.ledger_size(), 3);
    assert_eq!(counter.count().used, 0);
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_the_deadline() {
    let folder = Folder::new();
    let store = folder.open_with(SqliteOptions {
        busy_timeout: Duration::from_secs(600),
        commit_deadline: Duration::from_millis(20),
        ..SqliteOptions::default()
    });
    let lock = folder.write_lock();
    assert!(is_unavailable(&store.commit(one_receipt()).await));
    drop(lock);
    // Closing waits for the writer, which leaves out what was given up.
    store.close().await;
    assert_eq!(store.ledger_size(), 0);
}

#[tokio::test]
async fn a_read_is_waited_for_no_longer_than_the_deadline() {
    let folder = Folder::new();
    let store = folder.open_with(SqliteOptions {
        read_deadline: Duration::from_millis(20),
        ..SqliteOptions::default()
    });
    let mut disk = Vec::new();
    // As long as there are connections a query is begun, and the disk hangs.
    for _ in 0..2 {
        let (answer, hangs) = std::sync::mpsc::channel::<()>();
        disk.push(answer);
        let read = store.reads.read(move |_| {
            // An error means that the disk has answered.
            let _ = hangs.recv();
            Ok(())
        });
        let refused = read.await.expect_err("it hangs");
        assert!(refused.to_string().contains("20ms"), "{refused}");
    }
    // Then it is a connection that is waited for.
    assert!(store.newest_receipt().await.is_err());
    assert!(store.all_trust_anchors().await.is_err());
    store.commit(one_receipt()).await.expect("writing goes on");
    drop(disk);
    let newest = loop {
        if let Ok(newest) = store.newest_receipt().await {
            break newest;
        }
    };
    assert_eq!(newest.expect("kept").leaf_index, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions {
        queue: 2,
        ..SqliteOptions::default()
    });
    let occupied = gate.occupy(&store);
    let waiting = [(); 2].map(|()| enqueue(&store, one_receipt()));
    match start(&store, one_receipt()) {
        (_, Poll::Ready(refused)) => assert!(is_unavailable(&refused)),
        (_, Poll::Pending) => panic!("there was no room"),
    }
    gate.release();
    for commit in waiting.into_iter().chain([occupied]) {
        commit.await.expect("nothing conflicts");
    }
    assert_eq!(store.ledger_size(), 3);
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let occupied = gate.occupy(&store);
    let queued = [(); 10].map(|()| enqueue(&store, one_receipt()));
    gate.release();
    store.close().await;
    for commit in queued.into_iter().chain([occupied]) {
        commit.await.expect("kept before the end");
    }
    drop(store);
    assert_eq!(folder.open().ledger_size(), 11);
}

/// One batch of a harmless receipt, a use, an insertion and what fails it by
/// `sabotage`; `repair` undoes that.
async fn a_batch_fails_whole_and_the_next_one_succeeds(sabotage: &str, repair: &str) {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let (used, newcomer) = (stored_key(), stored_key());
    insert(&store, used.clone()).await;
    let counter = store.usage_counter(used.record.key_id).await;
    let counter = counter.expect("available");
    let foreign = folder.foreign_connection();
    foreign.execute_batch(sabotage).expect("valid SQL");

    let occupied = gate.occupy(&store);
    let reservation = counter.reserve(now(), 1, false).expect("one is left");
    let insertion = || changes(vec![Change::InsertKey(newcomer.clone())]);
    let batch = [
        enqueue(&store, one_receipt()),
        enqueue(&store, use_of(&used.record, reservation)),
        enqueue(&store, insertion()),
        enqueue(
            &store,
            Transaction {
                receipts: vec![receipt_in(&scope("sabotage"))],
                ..Transaction::default()
            },
        ),
        enqueue(&store, one_receipt()),
    ];
    gate.release();
    occupied.await.expect("nothing conflicts");
    for commit in batch {
        let refused = commit.await;
        assert!(is_unavailable(&refused), "{refused:?}");
    }
    assert_eq!(store.ledger_size(), 2);
    assert_eq!(counter.count().used, 0, "the use is given back");
    let name = KeyRef::Id(newcomer.record.key_id);
    let found = store.find_key(&newcomer.record.scope, &name).await;
    assert_eq!(found.expect("available"), None);

    foreign.execute_batch(repair).expect("valid SQL");
    store.commit(insertion()).await.expect("repaired");
    let reservation = counter.reserve(now(), 1, false).expect("one is left");
    let used = store.commit(use_of(&used.record, reservation)).await;
    used.expect("repaired");
    let newest = store.newest_receipt().await.expect("available");
    assert_eq!(newest.expect("kept").leaf_index, 3);
    assert_eq!(store.ledger_size(), 4);
    assert_eq!(store.ledger_head().tree, tree_over_leaves(&store).await);
    let active = store.key_counts().get(KeyType::Ed25519, KeyState::Active);
    assert_eq!(active, 2);
}

#[tokio::test]
async fn a_store_that_fails_in_the_middle_of_a_batch_leaves_nothing_of_it() {
    a_batch_fails_whole_and_the_next_one_succeeds(
        "CREATE TRIGGER sabotage BEFORE INSERT ON receipts WHEN NEW.scope IN \
         (SELECT scope FROM scopes WHERE tenant_id = 'sabotage') \
         BEGIN SELECT raise(ROLLBACK, 'sabotage'); END",
        "DROP TRIGGER sabotage",
    )
    .await;
}

#[tokio::test]
async fn a_commit_that_fails_leaves_nothing_of_its_batch() {
    a_batch_fails_whole_and_the_next_one_succeeds(
        "CREATE TABLE nobody (id INTEGER PRIMARY KEY);
         CREATE TABLE dangling (id REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER sabotage AFTER INSERT ON receipts WHEN NEW.scope IN \
         (SELECT scope FROM scopes WHERE tenant_id = 'sabotage') \
         BEGIN INSERT INTO dangling VALUES (1); END",
        "DROP TRIGGER sabotage",
    )
    .await;
}

#[tokio::test]
async fn a_probe_answers_when_what_came_before_it_is_decided() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let occupied = gate.occupy(&store);
    let abandoned = enqueue(&store, one_receipt());
    let mut probe = store.probe_write();
    let mut context = Context::from_waker(Waker::noop());
    assert!(probe.as_mut().poll(&mut context).is_pending());
    // The writer takes both at once, and stops behind the commit.
    gate.is_armed.store(true, Ordering::SeqCst);
    gate.release();
    gate.stopped.recv().expect("the writer commits");
    assert!(probe.as_mut().poll(&mut context).is_pending());
    drop(abandoned);
    gate.release();
    probe.await.expect("available");
    assert_eq!(store.ledger_size(), 2);
    occupied.await.expect("committed");
}
