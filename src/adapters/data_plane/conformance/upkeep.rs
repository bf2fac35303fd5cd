//! Upkeep: what is due, leases, and keys that were announced.

use super::{Store, changes, conflict, insert, now, stored_key};
use crate::domain::ids::{KeyId, KeyRef};
use crate::domain::key::{HsmBackendName, KeyRecord, RevocationReason, StoredKey};
use crate::domain::scope::Environment;
use crate::domain::time::{Period, Timestamp};
use crate::ports::data_plane::{Change, Conflict, DataPlane};
use crate::ports::upkeep_store::{DueKind, KeyIntent, Lease};

fn later(seconds: u64) -> Timestamp {
    now().plus(Period::seconds(seconds))
}

async fn due(store: &dyn DataPlane, kind: DueKind, at: Timestamp, limit: usize) -> Vec<KeyId> {
    let due = store.keys_due(kind, at, limit).await.expect("available");
    due.into_iter().map(|due| due.key_id).collect()
}

async fn update(store: &dyn DataPlane, record: KeyRecord) {
    let update = changes(vec![Change::UpdateKey(record)]);
    store.commit(update).await.expect("kept");
}

pub(super) async fn keys_are_due_by_their_state_the_longest_due_first(store: Store) {
    // Due in the other order than they were made in.
    let mut keys = Vec::new();
    for seconds in [30, 20, 10] {
        let mut key = stored_key();
        key.record.rotate_at = Some(later(seconds));
        key.record.scope.environment = match seconds {
            20 => Environment::Prod,
            _ => Environment::Dev,
        };
        insert(&*store, key.clone()).await;
        keys.push(key.record);
    }
    let [third, second, first] = &keys[..] else {
        panic!("three keys")
    };
    let ids = [first.key_id, second.key_id, third.key_id];
    let rotate = DueKind::Rotate;
    assert_eq!(due(&*store, rotate, later(9), 10).await, []);
    assert_eq!(due(&*store, rotate, later(20), 10).await, ids[..2]);
    assert_eq!(due(&*store, rotate, later(60), 2).await, ids[..2]);
    assert_eq!(due(&*store, rotate, later(60), 10).await, ids);
    let told = store
        .keys_due(rotate, later(60), 10)
        .await
        .expect("available");
    assert_eq!(told[1].scope, second.scope);
    assert_eq!(told[1].due_at, later(20));
    assert_eq!(
        store
            .count_due(rotate, later(60), 10)
            .await
            .expect("available"),
        3
    );
    assert_eq!(
        store
            .count_due(rotate, later(60), 2)
            .await
            .expect("available"),
        2
    );

    // A replaced key is due for the next step, and no longer for this one.
    let grace = Period::seconds(100);
    let pending = first
        .replaced_by(KeyId::generate(), now(), grace)
        .expect("active");
    update(&*store, pending.clone()).await;
    assert_eq!(due(&*store, rotate, later(60), 10).await, ids[1..]);
    let archive = DueKind::Archive;
    assert_eq!(due(&*store, archive, later(99), 10).await, []);
    assert_eq!(due(&*store, archive, later(100), 10).await, ids[..1]);
    let archived = pending.archived(later(100)).expect("pending");
    update(&*store, archived.clone()).await;
    assert_eq!(due(&*store, archive, later(200), 10).await, []);

    let erase_at = Some(later(300));
    let revoked = archived
        .revoked(RevocationReason::Retired, later(200), erase_at)
        .expect("archived");
    update(&*store, revoked.clone()).await;
    let erase = DueKind::Erase;
    assert_eq!(due(&*store, erase, later(299), 10).await, []);
    assert_eq!(due(&*store, erase, later(300), 10).await, ids[..1]);
    update(&*store, revoked.erased().expect("waits")).await;
    assert_eq!(due(&*store, erase, later(400), 10).await, []);
}

pub(super) async fn a_key_that_has_expired_is_due_before_all_others(store: Store) {
    let keys = [(10, 100), (20, 50), (30, 40), (40, 45), (70, 80)].map(|(due, end)| {
        let mut key = stored_key();
        key.record.rotate_at = Some(later(due));
        key.record.valid_until = later(end);
        key
    });
    for key in &keys {
        insert(&*store, key.clone()).await;
    }
    let [first, second, third, fourth, _] = keys.map(|key| key.record.key_id);
    let rotate = DueKind::Rotate;
    let all = [third, fourth, first, second];
    assert_eq!(due(&*store, rotate, later(49), 10).await, all);
    for limit in 0..4 {
        let some = due(&*store, rotate, later(49), limit).await;
        assert_eq!(some, all[..limit], "{limit}");
    }
    let told = store.keys_due(rotate, later(49), 1).await;
    assert_eq!(told.expect("available")[0].due_at, later(30));
}

pub(super) async fn the_secret_of_a_revoked_key_is_kept_until_it_is_erased_and_then_gone(
    store: Store,
) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let erase_at = Some(later(60));
    let waiting = key
        .record
        .revoked(RevocationReason::Retired, now(), erase_at)
        .expect("active");
    update(&*store, waiting.clone()).await;
    let name = KeyRef::Id(key.record.key_id);
    let scope = &key.record.scope;
    // Twice: from the store, and from whatever it has in memory.
    for _ in 0..2 {
        let found = store.find_key(scope, &name).await.expect("available");
        let found = found.expect("its metadata stays");
        assert_eq!(found.record, waiting);
        assert_eq!(found.handle, key.handle);
    }
    let restored = waiting.restored(later(59)).expect("in time");
    update(&*store, restored.clone()).await;
    let again = restored
        .revoked(RevocationReason::Retired, later(59), erase_at)
        .expect("archived");
    update(&*store, again.clone()).await;
    update(&*store, again.erased().expect("waits")).await;
    for _ in 0..2 {
        let found = store.find_key(scope, &name).await.expect("available");
        assert_eq!(found.and_then(|found| found.handle.clone()), None);
    }
}

pub(super) async fn a_task_is_one_holders_until_its_lease_ends(store: Store) {
    let lease = |holder: u8, until| Lease {
        holder: [holder; 16],
        until,
    };
    let take = async |name, at, lease| store.take_lease(name, at, lease).await.expect("available");
    assert!(take("task", now(), lease(1, later(30))).await);
    assert!(!take("task", later(29), lease(2, later(59))).await);
    // The holder goes on; another task is another matter.
    assert!(take("task", later(10), lease(1, later(40))).await);
    assert!(take("other", later(10), lease(2, later(40))).await);
    assert!(!take("task", later(39), lease(2, later(69))).await);
    assert!(take("task", later(40), lease(2, later(70))).await);
    assert!(!take("task", later(41), lease(1, later(71))).await);
    // Only the holder gives it back.
    store
        .release_lease("task", [1; 16])
        .await
        .expect("available");
    assert!(!take("task", later(41), lease(1, later(71))).await);
    store
        .release_lease("task", [2; 16])
        .await
        .expect("available");
    assert!(take("task", later(41), lease(1, later(71))).await);
}

pub(super) async fn a_lease_from_a_clock_that_was_set_back_keeps_nobody_out(store: Store) {
    let lease = |holder: u8, until| Lease {
        holder: [holder; 16],
        until,
    };
    let taken = store.take_lease("task", later(86_400), lease(1, later(86_430)));
    assert!(taken.await.expect("available"));
    let taken = store.take_lease("task", now(), lease(2, later(30))).await;
    assert!(taken.expect("available"));
    // A clock that is ahead by less than a lease is respected.
    let taken = store.take_lease("task", now(), lease(2, later(55))).await;
    assert!(taken.expect("available"));
    let taken = store.take_lease("task", now(), lease(3, later(30))).await;
    assert!(!taken.expect("available"));
}

fn kept_elsewhere() -> (StoredKey, KeyIntent) {
    let mut key = stored_key();
    key.record.backend = HsmBackendName::Pkcs11;
    let intent = KeyIntent {
        key_id: key.record.key_id,
        backend: key.record.backend,
        begun_at: now(),
    };
    (key, intent)
}

async fn open(store: &dyn DataPlane, before: Timestamp) -> Vec<KeyIntent> {
    store.open_intents(before, 10).await.expect("available")
}

pub(super) async fn a_key_that_a_backend_keeps_is_stored_only_after_it_was_announced(store: Store) {
    let (key, intent) = kept_elsewhere();
    let insertion = || changes(vec![Change::InsertKey(key.clone())]);
    let refused = conflict(store.commit(insertion()).await);
    assert_eq!(refused, Conflict::GivenUp);
    store.begin_key(intent).await.expect("available");
    assert_eq!(open(&*store, now()).await, []);
    assert_eq!(open(&*store, later(1)).await, [intent]);
    store.commit(insertion()).await.expect("announced");
    assert_eq!(open(&*store, later(1)).await, []);
    assert!(!store.abandon_key(intent.key_id).await.expect("available"));
    let name = KeyRef::Id(intent.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    assert!(found.expect("available").is_some());
}

pub(super) async fn a_key_that_was_given_up_is_never_stored(store: Store) {
    let (key, intent) = kept_elsewhere();
    store.begin_key(intent).await.expect("available");
    // Nothing that was not given up is forgotten.
    store.end_intent(intent.key_id).await.expect("available");
    assert_eq!(open(&*store, later(1)).await, [intent]);
    assert!(store.abandon_key(intent.key_id).await.expect("available"));
    let insertion = || changes(vec![Change::InsertKey(key.clone())]);
    assert_eq!(conflict(store.commit(insertion()).await), Conflict::GivenUp);
    // Until the backend's copy is gone it is still to be looked after.
    assert_eq!(open(&*store, later(1)).await, [intent]);
    store.end_intent(intent.key_id).await.expect("available");
    assert_eq!(open(&*store, later(1)).await, []);
    assert_eq!(conflict(store.commit(insertion()).await), Conflict::GivenUp);
}

pub(super) async fn a_transaction_that_conflicts_leaves_the_announcement(store: Store) {
    let (key, intent) = kept_elsewhere();
    store.begin_key(intent).await.expect("available");
    let stranger = stored_key().record;
    let both = changes(vec![
        Change::InsertKey(key.clone()),
        Change::UpdateKey(stranger.archived(now()).expect("active")),
    ]);
    assert_eq!(conflict(store.commit(both).await), Conflict::KeyChanged);
    assert_eq!(open(&*store, later(1)).await, [intent]);
    let insertion = changes(vec![Change::InsertKey(key)]);
    store.commit(insertion).await.expect("still announced");
}
