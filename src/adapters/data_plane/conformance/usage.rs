//! Uses of keys: kept with their receipts, counted exactly.

use std::sync::Arc;

use super::{Store, conflict, insert, now, receipt_in, revocation, stored_key, use_of};
use crate::domain::time::Period;
use crate::ports::data_plane::{CommitError, Conflict};

pub(super) async fn a_use_of_a_changed_key_leaves_neither_receipt_nor_count(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let reserve = || counter.reserve(now(), 10, true).expect("some are left");
    let used = store.commit(use_of(&key.record, reserve())).await;
    used.expect("nothing conflicts");
    let revoked = store.commit(revocation(&key.record)).await;
    revoked.expect("nothing conflicts");
    let late = store.commit(use_of(&key.record, reserve())).await;
    assert_eq!(conflict(late), Conflict::KeyChanged);
    assert_eq!(store.ledger_size(), 3);
    let count = counter.count();
    assert_eq!((count.used, count.encryptions), (1, 1));
}

pub(super) async fn a_use_of_an_unknown_key_conflicts(store: Store) {
    let key = stored_key();
    let counter = store.usage_counter(key.record.key_id).await;
    let reservation = counter
        .expect("available")
        .reserve(now(), 10, false)
        .expect("some are left");
    let used = store.commit(use_of(&key.record, reservation)).await;
    assert_eq!(conflict(used), Conflict::KeyChanged);
    assert_eq!(store.ledger_size(), 0);
}

pub(super) async fn of_more_uses_than_are_left_exactly_those_are_kept(store: Store) {
    const LIMIT: u64 = 50;
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let uses: Vec<_> = (0..LIMIT + 30)
        .map(|_| {
            let (store, record) = (store.clone(), key.record.clone());
            tokio::spawn(async move {
                let counter = store.usage_counter(record.key_id).await?;
                let Ok(reservation) = counter.reserve(now(), LIMIT, false) else {
                    return Ok(0);
                };
                store.commit(use_of(&record, reservation)).await?;
                Ok::<u64, CommitError>(1)
            })
        })
        .collect();
    let mut succeeded = 0;
    for one in uses {
        succeeded += one.await.expect("no panic").expect("kept");
    }
    assert_eq!(succeeded, LIMIT);
    assert_eq!(store.ledger_size(), LIMIT + 1);
    let counter = store.usage_counter(key.record.key_id).await;
    assert_eq!(counter.expect("available").count().used, LIMIT);
}

pub(super) async fn everyone_who_asks_gets_the_same_counter(store: Store) {
    let key_id = stored_key().record.key_id;
    let (one, other) = tokio::join!(store.usage_counter(key_id), store.usage_counter(key_id));
    let one = one.expect("available");
    assert!(Arc::ptr_eq(&one, &other.expect("available")));
    let later = store.usage_counter(key_id).await.expect("available");
    assert!(Arc::ptr_eq(&one, &later));
}

pub(super) async fn the_latest_use_is_kept_with_its_count(store: Store) {
    let key = stored_key();
    let key_id = key.record.key_id;
    insert(&*store, key.clone()).await;
    let look = async || store.usage_count(key_id).await.expect("available");
    assert_eq!(look().await.last_used_at, None);
    let counter = store.usage_counter(key_id).await.expect("available");
    for (seconds, used) in [(0, 1), (60, 2), (30, 3)] {
        let at = now().plus(Period::seconds(seconds));
        let reservation = counter.reserve(at, 10, false).expect("some are left");
        let kept = store.commit(use_of(&key.record, reservation)).await;
        kept.expect("nothing conflicts");
        assert_eq!(look().await.used, used);
    }
    assert_eq!(
        look().await.last_used_at,
        Some(now().plus(Period::seconds(60)))
    );
}

pub(super) async fn the_uses_of_a_batch_are_kept_or_given_back_together(store: Store) {
    let key = stored_key();
    let key_id = key.record.key_id;
    insert(&*store, key.clone()).await;
    let counter = store.usage_counter(key_id).await.expect("available");
    let batch_of = |uses| {
        let reserved = counter.reserve_up_to(uses, now(), 10, true);
        let mut transaction = use_of(&key.record, reserved.reservation.expect("some are left"));
        let one_more = || receipt_in(&key.record.scope);
        transaction.receipts.extend((1..uses).map(|_| one_more()));
        transaction
    };
    store.commit(batch_of(4)).await.expect("nothing conflicts");
    let count = counter.count();
    assert_eq!((count.used, count.encryptions), (4, 4));
    assert_eq!(store.ledger_size(), 5);
    let mut doubled = batch_of(3);
    doubled.receipts[2] = doubled.receipts[0].clone();
    assert!(store.commit(doubled).await.is_err());
    assert_eq!(store.ledger_size(), 5);
    let revoked = store.commit(revocation(&key.record)).await;
    revoked.expect("nothing conflicts");
    assert_eq!(
        conflict(store.commit(batch_of(6)).await),
        Conflict::KeyChanged
    );
    assert_eq!(store.ledger_size(), 6);
    // What the store has written down is what is counted.
    drop(counter);
    let count = store.usage_count(key_id).await.expect("available");
    assert_eq!((count.used, count.encryptions), (4, 4));
}
