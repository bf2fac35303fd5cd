//! What is kept, and what is not kept any more.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::{Folder, enqueue, one_receipt};
use crate::adapters::backlog::Backlog;
use crate::adapters::data_plane::conformance::{
    anchor, changes, conflict, grant, insert, key_with_alias, now, revocation, rotation, scope,
    stored_key, use_of,
};
use crate::adapters::data_plane::sqlite::SqliteOptions;
use crate::domain::ids::KeyRef;
use crate::domain::key::{KeyHandle, KeyState, RevocationReason, StoredKey};
use crate::domain::time::Period;
use crate::ports::data_plane::{Change, Conflict, DataPlane, KeyQuery};
use crate::ports::ledger_store::LedgerStore as _;

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = Folder::new();
    let store = folder.open();
    let keys = [stored_key(), key_with_alias("line"), stored_key()];
    for key in &keys {
        insert(&store, key.clone()).await;
    }
    let (_, rotate) = rotation(&keys[1].record);
    store.commit(rotate).await.expect("nothing conflicts");
    let revoke = revocation(&keys[0].record);
    store.commit(revoke).await.expect("nothing conflicts");
    let used = &keys[2].record;
    let counter = store.usage_counter(used.key_id).await.expect("available");
    let mut receipts = Vec::new();
    for (at, encrypts) in [
        (now(), true),
        (now(), false),
        (now().plus(Period::days(1)), true),
        (now().plus(Period::days(1)), false),
        (now().plus(Period::days(1)), false),
    ] {
        let reservation = counter.reserve(at, 10, encrypts).expect("some are left");
        let one = use_of(used, reservation);
        receipts.push(one.receipts[0].clone());
        store.commit(one).await.expect("nothing conflicts");
    }
    let pinned = store.pin("kek", b"id").await.expect("available");
    let before = snapshot(&store).await;
    let usage = counter.count();
    let (counts, size) = (store.key_counts(), store.ledger_size());
    store.close().await;
    drop(store);

    let store = folder.open();
    assert_eq!(snapshot(&store).await, before);
    assert_eq!(before.len(), 4);
    let counter = store.usage_counter(used.key_id).await.expect("available");
    assert_eq!(counter.count(), usage);
    assert_eq!((usage.used, usage.encryptions), (3, 2));
    assert_eq!((store.key_counts(), store.ledger_size()), (counts, size));
    assert_eq!(store.pin("kek", b"other").await.expect("available"), pinned);
    for (place, receipt) in (size - 5..).zip(receipts) {
        let kept = store.find_receipt(&receipt.scope, receipt.receipt_id).await;
        let kept = kept.expect("available").expect("kept");
        assert_eq!((kept.leaf_index, kept.leaf), (place, receipt.leaf));
    }
    store.commit(one_receipt()).await.expect("goes on");
    assert_eq!(store.ledger_size(), size + 1);
}

#[tokio::test]
async fn a_spent_grant_stays_spent_and_a_removed_anchor_away_after_reopening() {
    let folder = Folder::new();
    let store = folder.open();
    let (kept, removed) = (anchor("aa"), anchor("bb"));
    let added = changes(vec![
        Change::InsertTrustAnchor(kept.clone()),
        Change::InsertTrustAnchor(removed.clone()),
    ]);
    store.commit(added).await.expect("nothing conflicts");
    let removal = changes(vec![
        Change::RemoveTrustAnchor {
            scope: removed.scope,
            trust_anchor_id: removed.trust_anchor_id,
        },
        Change::SpendGrant(grant("one")),
    ]);
    store.commit(removal).await.expect("nothing conflicts");
    store.close().await;
    drop(store);

    let store = folder.open();
    assert!(store.is_grant_spent("one").await.expect("available"));
    let again = changes(vec![Change::SpendGrant(grant("one"))]);
    assert_eq!(conflict(store.commit(again).await), Conflict::GrantSpent);
    let all = store.all_trust_anchors().await.expect("available");
    assert_eq!(all, [kept]);
}

#[tokio::test]
async fn what_was_answered_is_kept_by_a_store_that_is_dropped() {
    let folder = Folder::new();
    let store = folder.open();
    store.commit(one_receipt()).await.expect("kept");
    drop(store);
    assert_eq!(folder.open().ledger_size(), 1);
}

#[tokio::test]
async fn uses_of_one_batch_and_of_several_days_add_up_as_if_written_one_by_one() {
    let folder = Folder::new();
    let (store, gate) = folder.open_gated(SqliteOptions::default());
    let key = stored_key();
    insert(&store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let late = counter.reserve(now(), 100, true).expect("some are left");
    let occupied = gate.occupy(&store);
    let days = [0, 0, 1, 0, 1, 1, 2, 2];
    let uses: Vec<_> = days
        .into_iter()
        .map(|day| {
            let at = now().plus(Period::days(day));
            let reservation = counter.reserve(at, 100, day == 1).expect("some are left");
            enqueue(&store, use_of(&key.record, reservation))
        })
        .collect();
    gate.release();
    for one in uses.into_iter().chain([occupied]) {
        one.await.expect("nothing conflicts");
    }
    assert_eq!(gate.largest_commit(), days.len());
    let written_late = store.commit(use_of(&key.record, late)).await;
    written_late.expect("nothing conflicts");
    let live = counter.count();
    drop(counter);
    drop(store);
    let store = folder.open();
    let kept = store.usage_counter(key.record.key_id).await;
    assert_eq!(kept.expect("available").count(), live);
}

#[tokio::test]
async fn counts_survive_counters_that_went_to_make_room() {
    let folder = Folder::new();
    let store = folder.open_with(SqliteOptions {
        idle_usage_counters: 1,
        ..SqliteOptions::default()
    });
    let keys: Vec<_> = (0..5).map(|_| stored_key()).collect();
    for key in &keys {
        insert(&store, key.clone()).await;
    }
    for round in 1..=3 {
        for key in &keys {
            let counter = store.usage_counter(key.record.key_id).await;
            let reservation = counter
                .expect("available")
                .reserve(now(), 10, false)
                .expect("some are left");
            assert_eq!(reservation.mark().day, now().utc_day());
            let used = store.commit(use_of(&key.record, reservation)).await;
            used.expect("nothing conflicts");
            let counter = store.usage_counter(key.record.key_id).await;
            assert_eq!(counter.expect("available").count().used, round);
        }
    }
}

/// A write takes from those who wait for a core, so it waits for more to share it; where
/// nobody does, the first to come has it.
#[tokio::test]
async fn commits_gather_while_computations_wait_for_a_core() {
    const ROUNDS: usize = 20;
    let folder = Folder::new();
    let backlog = Backlog::default();
    let (store, gate) = folder.open_gated(SqliteOptions {
        backlog: backlog.clone(),
        ..SqliteOptions::default()
    });
    let writes = async || {
        let before = gate.commits().len();
        for _ in 0..ROUNDS {
            let first = enqueue(&store, one_receipt());
            // Longer than the writer takes to begin, and shorter than it gathers.
            std::thread::sleep(Duration::from_micros(300));
            let second = enqueue(&store, one_receipt());
            first.await.expect("kept");
            second.await.expect("kept");
        }
        gate.commits().len() - before
    };
    let waiting = backlog.wait();
    let shared = writes().await;
    assert!(shared < ROUNDS * 3 / 2, "{shared} writes");
    drop(waiting);
    let alone = writes().await;
    assert!(alone > ROUNDS, "{alone} writes");
}

/// Whoever took but a moment does not wait for the many that are still at long work.
#[tokio::test]
async fn commits_gather_for_long_only_among_those_that_took_long() {
    const ROUNDS: usize = 20;
    let folder = Folder::new();
    let backlog = Backlog::default();
    let (store, gate) = folder.open_gated(SqliteOptions {
        backlog: backlog.clone(),
        ..SqliteOptions::default()
    });
    let key = stored_key();
    insert(&store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let one_use = |took_long| {
        let reserved = counter.reserve(now(), u64::MAX, false);
        let mut transaction = use_of(&key.record, reserved.expect("no limit"));
        let key_use = transaction.key_use.as_mut().expect("a use");
        key_use.took_long = took_long;
        transaction
    };
    let _waiting: Vec<_> = (0..30).map(|_| backlog.wait()).collect();
    let writes = async |light: usize| {
        let before = gate.commits().len();
        for _ in 0..ROUNDS {
            let eight = (0..8).map(|place| enqueue(&store, one_use(place >= light)));
            let eight: Vec<_> = eight.collect();
            // Longer than a write takes, and shorter than it gathers among long work.
            std::thread::sleep(Duration::from_micros(1_200));
            let ninth = enqueue(&store, one_use(true));
            for commit in eight.into_iter().chain([ninth]) {
                commit.await.expect("kept");
            }
        }
        gate.commits().len() - before
    };
    let among_long = writes(0).await;
    assert!(among_long < ROUNDS * 3 / 2, "{among_long} writes");
    let with_a_light_one = writes(1).await;
    assert!(
        with_a_light_one > ROUNDS * 3 / 2,
        "{with_a_light_one} writes"
    );
}

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    let folder = Folder::new();
    let store = folder.open();
    store.commit(one_receipt()).await.expect("kept");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.0.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name());
    }
    names.sort();
    assert_eq!(names, ["kms.db", "kms.db-shm", "kms.db-wal", "kms.db.lock"]);
}

/// Keys come, rotate and go, so that their rows move about; handles are of every
/// size from a fraction of a page to several pages.
#[tokio::test]
async fn a_revoked_keys_handle_is_in_no_file_once_the_revocation_is_answered() {
    let folder = Folder::new();
    let store = folder.open();
    let mut living: Vec<StoredKey> = Vec::new();
    let mut erased = HashSet::new();
    for (number, size) in (0..240).zip([60, 92, 1_300, 300, 5_000, 9_000].into_iter().cycle()) {
        let mut key = stored_key();
        let mut handle = vec![0; size];
        aws_lc_rs::rand::fill(&mut handle).expect("randomness");
        key.handle = Some(KeyHandle::from_bytes(handle));
        insert(&store, key.clone()).await;
        living.push(key);
        if number % 3 == 2 {
            let revoked = living.swap_remove(number * 7 % living.len());
            let commit = store.commit(revocation(&revoked.record)).await;
            commit.expect("nothing conflicts");
            erased.extend(pieces(&revoked));
        }
        if number % 5 == 4 {
            let active = |key: &&mut StoredKey| key.record.key_state == KeyState::Active;
            let old = &mut living.iter_mut().find(active).expect("the newest").record;
            let (_, rotate) = rotation(old);
            *old = match &rotate.changes[0] {
                Change::UpdateKey(replaced) => replaced.clone(),
                other => panic!("{other:?}"),
            };
            store.commit(rotate).await.expect("nothing conflicts");
        }
        if number % 40 == 39 {
            assert_eq!(found_in(&folder, &erased), 0, "after {number}");
        }
    }
    let kept: HashSet<u64> = living.iter().flat_map(pieces).collect();
    let seen = found_in(&folder, &kept);
    assert!(seen > kept.len() / 2, "or the search finds nothing: {seen}");
    for key in &living {
        let name = KeyRef::Id(key.record.key_id);
        let found = store.find_key(&key.record.scope, &name).await;
        assert_eq!(found.expect("available").as_deref(), Some(key));
    }
    for key in living {
        let revoke = changes(revocation(&key.record).changes);
        store.commit(revoke).await.expect("nothing conflicts");
        erased.extend(pieces(&key));
    }
    assert_eq!(found_in(&folder, &erased), 0);
}

#[tokio::test]
async fn the_handle_of_a_key_that_waits_is_kept_until_it_is_erased_and_then_in_no_file() {
    let folder = Folder::new();
    let store = folder.open();
    let mut handle = vec![0; 9_000];
    aws_lc_rs::rand::fill(&mut handle).expect("randomness");
    let key = StoredKey {
        handle: Some(KeyHandle::from_bytes(handle)),
        ..stored_key()
    };
    insert(&store, key.clone()).await;
    let pieces = HashSet::from_iter(pieces(&key));
    let week = Period::days(7);
    let waiting = key
        .record
        .revoked(RevocationReason::Retired, now(), Some(now().plus(week)))
        .expect("active");
    let update = |record| changes(vec![Change::UpdateKey(record)]);
    let commit = store.commit(update(waiting.clone())).await;
    commit.expect("nothing conflicts");
    assert!(found_in(&folder, &pieces) > 0, "it can be restored");
    let commit = store.commit(update(waiting.erased().expect("it waits")));
    commit.await.expect("nothing conflicts");
    assert_eq!(found_in(&folder, &pieces), 0);
}

#[tokio::test]
async fn a_reader_that_holds_up_the_log_keeps_one_revocation_waiting_and_no_more() {
    let folder = Folder::new();
    let busy_timeout = Duration::from_secs(1);
    let store = folder.open_with(SqliteOptions {
        busy_timeout,
        ..SqliteOptions::default()
    });
    let keys = [stored_key(), stored_key(), stored_key()];
    for key in &keys {
        insert(&store, key.clone()).await;
    }
    // As a backup does, for minutes.
    let reader = folder.foreign_connection();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM receipts")
        .expect("a snapshot");
    let mut took = Vec::new();
    for key in &keys {
        let started = Instant::now();
        let revoke = revocation(&key.record);
        store.commit(revoke).await.expect("nothing conflicts");
        took.push(started.elapsed());
    }
    assert!(took[0] >= busy_timeout, "{took:?}");
    assert!(took[1] + took[2] < busy_timeout, "{took:?}");
    drop(reader);
    let log = folder.0.path().join("kms.db-wal");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::metadata(&log).expect("a log").len() > 0 {
        assert!(Instant::now() < deadline, "the log is never emptied");
        store
            .commit(one_receipt())
            .await
            .expect("nothing conflicts");
    }
}

/// A handle in pieces of 8 bytes.
pub(super) fn pieces(key: &StoredKey) -> Vec<u64> {
    let handle = key.handle.as_ref().expect("it was inserted with one");
    let (pieces, _) = handle.as_bytes().as_chunks();
    pieces
        .iter()
        .map(|piece| u64::from_le_bytes(*piece))
        .collect()
}

/// How many of the pieces are in any file, at any place.
pub(super) fn found_in(folder: &Folder, pieces: &HashSet<u64>) -> usize {
    let mut found = HashSet::new();
    for entry in std::fs::read_dir(folder.0.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        for window in bytes.windows(8) {
            let piece = u64::from_le_bytes(window.try_into().expect("8 bytes"));
            if pieces.contains(&piece) {
                found.insert(piece);
            }
        }
    }
    found.len()
}

async fn snapshot(store: &dyn DataPlane) -> Vec<StoredKey> {
    let page = store
        .list_keys(KeyQuery {
            scope: scope("t"),
            key_state: None,
            key_type: None,
            key_alias: None,
            after: None,
            limit: 100,
        })
        .await
        .expect("available");
    let mut keys = Vec::new();
    for record in page.keys {
        let name = KeyRef::Id(record.key_id);
        let key = store.find_key(&record.scope, &name).await;
        let key = key.expect("available").expect("listed");
        assert_eq!(key.record, record);
        keys.push(StoredKey::clone(&key));
    }
    keys
}
