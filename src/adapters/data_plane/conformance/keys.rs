//! Keys: scope, aliases, versions, atomicity, pages and counts.

use super::{
    Store, anchor, by_alias, changes, conflict, insert, key_with_alias, now, revocation, rotation,
    scope, stored_key,
};
use crate::domain::algorithm::KeyType;
use crate::domain::ids::{KeyId, KeyRef};
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState, KeyUpdate, RevocationReason};
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::{Period, Timestamp};
use crate::ports::data_plane::{Change, Conflict, KeyQuery, LineQuery};

pub(super) async fn a_key_is_found_in_its_scope_only(store: Store) {
    let key = key_with_alias("line");
    let home = key.record.scope.clone();
    insert(&*store, key.clone()).await;
    let mut elsewhere = [home.clone(), home.clone(), home.clone()];
    elsewhere[0].tenant_id = "other".parse().expect("valid");
    elsewhere[1].environment = Environment::Prod;
    elsewhere[2].plane = Plane::Shared;
    for name in [KeyRef::Id(key.record.key_id), by_alias("line")] {
        // Twice: what the first look-up left in a cache must not answer the others.
        for _ in 0..2 {
            let found = store.find_key(&home, &name).await.expect("available");
            assert_eq!(found.as_deref(), Some(&key));
            for scope in &elsewhere {
                let found = store.find_key(scope, &name).await.expect("available");
                assert_eq!(found, None, "{scope:?}");
            }
        }
    }
    for scope in elsewhere {
        let page = store.list_keys(all_of(scope)).await.expect("available");
        assert!(page.keys.is_empty());
    }
}

pub(super) async fn every_field_of_a_key_reads_back(store: Store) {
    let instant = |micros| Some(Timestamp::from_microseconds(micros).expect("valid"));
    let mut full = key_with_alias("full");
    let record = &mut full.record;
    record.key_type = KeyType::Rsa2048;
    record.key_usage = KeyUsageSet::of([KeyUsage::Verify]).expect("not empty");
    record.key_state = KeyState::Archived;
    record.version = 7;
    record.algorithms = KeyType::Rsa2048.algorithms().to_vec();
    record.backend = HsmBackendName::Pkcs11;
    record.public_key = Some("-----BEGIN ü\n'\";--".to_owned());
    record.access_policy.allowed_modules = vec![];
    record.access_policy.requires_approval = true;
    record.access_policy.max_usage_per_day = crate::domain::policy::LARGEST_DAILY_LIMIT;
    record.rotation_count = u32::MAX;
    record.predecessor_key_id = Some(KeyId::generate());
    record.successor_key_id = Some(KeyId::generate());
    record.rotated_at = instant(-1);
    record.grace_until = instant(1);
    record.archived_at = instant(1_700_000_000_123_456);
    record.revoked_at = instant(0);
    record.revocation_reason = Some(RevocationReason::PolicyViolation);
    record.rotation_period = Some(Period::microseconds(1));
    record.rotate_at = instant(1_800_000_000_654_321);
    record.line_id = KeyId::generate();
    record.erase_at = instant(2);
    let plain = stored_key();
    for key in [full, plain] {
        insert(&*store, key.clone()).await;
        let name = KeyRef::Id(key.record.key_id);
        let found = store.find_key(&key.record.scope, &name).await;
        assert_eq!(found.expect("available").as_deref(), Some(&key));
    }
}

pub(super) async fn an_alias_names_the_active_key_and_no_other_may_bear_it(store: Store) {
    let first = key_with_alias("line");
    let scope = first.record.scope.clone();
    insert(&*store, first.clone()).await;
    let second = changes(vec![Change::InsertKey(key_with_alias("line"))]);
    assert_eq!(conflict(store.commit(second).await), Conflict::AliasTaken);
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available").as_deref(), Some(&first));
    let unknown = store.find_key(&scope, &by_alias("none")).await;
    assert_eq!(unknown.expect("available"), None);
    assert_eq!(store.ledger_size(), 1);
}

pub(super) async fn an_alias_is_free_again_once_its_key_is_revoked(store: Store) {
    let first = key_with_alias("line");
    let scope = first.record.scope.clone();
    insert(&*store, first.clone()).await;
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert!(found.expect("available").is_some());
    let revoked = store.commit(revocation(&first.record)).await;
    revoked.expect("nothing conflicts");
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available"), None);
    let second = key_with_alias("line");
    insert(&*store, second.clone()).await;
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available").as_deref(), Some(&second));
}

pub(super) async fn a_rotation_hands_the_alias_over_in_one_transaction(store: Store) {
    let old = key_with_alias("line");
    let scope = old.record.scope.clone();
    insert(&*store, old.clone()).await;
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available").as_deref(), Some(&old));
    let (successor, rotate) = rotation(&old.record);
    store.commit(rotate).await.expect("nothing conflicts");
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available").as_deref(), Some(&successor));
    let old = store.find_key(&scope, &KeyRef::Id(old.record.key_id)).await;
    let old = old.expect("available").expect("still there");
    assert_eq!(old.record.key_state, KeyState::PendingRotation);
    assert!(old.handle.is_some());
}

pub(super) async fn the_same_alias_in_another_scope_is_another_alias(store: Store) {
    let here = key_with_alias("line");
    let mut there = key_with_alias("line");
    there.record.scope = scope("other");
    for key in [&here, &there] {
        insert(&*store, key.clone()).await;
    }
    for key in [&here, &there] {
        let found = store.find_key(&key.record.scope, &by_alias("line")).await;
        assert_eq!(found.expect("available").as_deref(), Some(key));
    }
}

pub(super) async fn a_change_to_any_version_but_the_last_conflicts(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    for version in [0, 1, 3, u64::from(u32::MAX)] {
        let mut record = key.record.clone();
        record.version = version;
        let change = changes(vec![Change::UpdateKey(record)]);
        assert_eq!(conflict(store.commit(change).await), Conflict::KeyChanged);
    }
    let unknown = changes(vec![Change::UpdateKey(stored_key().record)]);
    assert_eq!(conflict(store.commit(unknown).await), Conflict::KeyChanged);
    assert_eq!(store.ledger_size(), 1);
}

pub(super) async fn a_change_never_reaches_into_another_scope(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let mut foreign = key.record.revoked(RevocationReason::Retired, now(), None);
    if let Ok(record) = &mut foreign {
        record.scope = scope("other");
    }
    let change = changes(vec![Change::UpdateKey(foreign.expect("active"))]);
    assert_eq!(conflict(store.commit(change).await), Conflict::KeyChanged);
    let name = KeyRef::Id(key.record.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    assert_eq!(found.expect("available").as_deref(), Some(&key));
}

pub(super) async fn of_two_rotations_at_once_one_leaves_a_successor(store: Store) {
    let old = key_with_alias("line");
    let scope = old.record.scope.clone();
    insert(&*store, old.clone()).await;
    let rotations: Vec<_> = (0..8)
        .map(|_| {
            let (store, (successor, rotate)) = (store.clone(), rotation(&old.record));
            tokio::spawn(async move { (successor, store.commit(rotate).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for rotation in rotations {
        match rotation.await.expect("no panic") {
            (successor, Ok(())) => winners.push(successor),
            (_, refused) => assert_eq!(conflict(refused), Conflict::KeyChanged),
        }
    }
    assert_eq!(winners.len(), 1);
    let found = store.find_key(&scope, &by_alias("line")).await;
    assert_eq!(found.expect("available").as_deref(), winners.first());
    let page = store.list_keys(all_of(scope)).await.expect("available");
    assert_eq!(page.keys.len(), 2);
    assert_eq!(store.ledger_size(), 2);
}

pub(super) async fn a_key_that_exists_is_not_inserted_again(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let mut again = key.clone();
    again.record.scope = scope("other");
    for key in [key, again] {
        let twice = changes(vec![Change::InsertKey(key)]);
        assert_eq!(conflict(store.commit(twice).await), Conflict::KeyChanged);
    }
    assert_eq!(store.ledger_size(), 1);
}

pub(super) async fn a_revoked_key_has_no_handle(store: Store) {
    let key = stored_key();
    let name = KeyRef::Id(key.record.key_id);
    insert(&*store, key.clone()).await;
    let before = store.find_key(&key.record.scope, &name).await;
    assert!(before.expect("available").expect("found").handle.is_some());
    let revoked = store.commit(revocation(&key.record)).await;
    revoked.expect("nothing conflicts");
    let after = store.find_key(&key.record.scope, &name).await;
    let after = after.expect("available").expect("the metadata stays");
    assert_eq!(after.handle, None);
    assert_eq!(after.record.key_state, KeyState::Destroyed);
    assert_eq!(after.record.revoked_at, Some(now()));
}

pub(super) async fn a_conflict_in_a_later_change_undoes_the_earlier_ones(store: Store) {
    let (old, taken) = (key_with_alias("line"), key_with_alias("taken"));
    let scope = old.record.scope.clone();
    insert(&*store, old.clone()).await;
    insert(&*store, taken).await;
    let replaced = old
        .record
        .replaced_by(KeyId::generate(), now(), Period::days(7));
    let newcomer = key_with_alias("line");
    let doomed = changes(vec![
        Change::UpdateKey(replaced.expect("active")),
        Change::InsertKey(newcomer.clone()),
        Change::InsertTrustAnchor(anchor("aa")),
        Change::InsertKey(key_with_alias("taken")),
    ]);
    let before = store.key_counts();
    assert_eq!(conflict(store.commit(doomed).await), Conflict::AliasTaken);
    for name in [KeyRef::Id(old.record.key_id), by_alias("line")] {
        let found = store.find_key(&scope, &name).await.expect("available");
        assert_eq!(found.as_deref(), Some(&old));
    }
    let name = KeyRef::Id(newcomer.record.key_id);
    let found = store.find_key(&scope, &name).await.expect("available");
    assert_eq!(found, None);
    assert_eq!(store.count_trust_anchors().await.expect("available"), 0);
    assert_eq!(store.key_counts(), before);
    assert_eq!(store.ledger_size(), 2);
    let (_, rotate) = rotation(&old.record);
    store
        .commit(rotate)
        .await
        .expect("the version is as it was");
}

pub(super) async fn pages_follow_each_other_and_filters_hold(store: Store) {
    let mut ids = Vec::new();
    for number in 0..10 {
        let mut key = stored_key();
        if number % 2 == 0 {
            key.record.key_type = KeyType::Aes256;
        }
        if number % 5 == 0 {
            key.record.key_state = KeyState::Archived;
            key.record.key_alias = Some("line".parse().expect("valid"));
        }
        ids.push(key.record.key_id);
        insert(&*store, key).await;
    }
    let mut foreign = stored_key();
    foreign.record.scope = scope("a-tenant-that-sorts-elsewhere");
    insert(&*store, foreign).await;
    ids.sort();

    let mut query = all_of(scope("t"));
    query.limit = 4;
    let mut listed = Vec::new();
    let mut pages = 0;
    loop {
        let page = store.list_keys(query.clone()).await.expect("available");
        pages += 1;
        listed.extend(page.keys.iter().map(|key| key.key_id));
        query.after = listed.last().copied();
        if !page.has_more {
            break;
        }
        assert_eq!(page.keys.len(), 4);
    }
    assert_eq!((pages, listed), (3, ids));

    let number = async |change: &dyn Fn(&mut KeyQuery)| {
        let mut query = all_of(scope("t"));
        change(&mut query);
        let page = store.list_keys(query).await.expect("available");
        (page.keys.len(), page.has_more)
    };
    assert_eq!(number(&|query| query.limit = 10).await, (10, false));
    assert_eq!(number(&|query| query.limit = 9).await, (9, true));
    let archived = |query: &mut KeyQuery| query.key_state = Some(KeyState::Archived);
    let aes = |query: &mut KeyQuery| query.key_type = Some(KeyType::Aes256);
    let line = |query: &mut KeyQuery| query.key_alias = Some("line".parse().expect("valid"));
    assert_eq!(number(&archived).await, (2, false));
    assert_eq!(number(&aes).await, (5, false));
    assert_eq!(number(&line).await, (2, false));
    let all_three = |query: &mut KeyQuery| {
        archived(query);
        aes(query);
        line(query);
    };
    assert_eq!(number(&all_three).await, (1, false));
}

pub(super) async fn keys_are_counted_by_type_and_state(store: Store) {
    let keys = [stored_key(), stored_key(), key_with_alias("line")];
    for key in &keys {
        insert(&*store, key.clone()).await;
    }
    let (_, rotate) = rotation(&keys[2].record);
    store.commit(rotate).await.expect("nothing conflicts");
    let revoke = revocation(&keys[0].record);
    store.commit(revoke).await.expect("nothing conflicts");
    let counts = store.key_counts();
    let number = |state| counts.get(KeyType::Ed25519, state);
    assert_eq!(
        KeyState::ALL.map(number),
        [2, 1, 0, 1],
        "active, pending, archived, destroyed"
    );
    assert_eq!(counts.get(KeyType::Aes256, KeyState::Active), 0);
}

pub(super) async fn a_line_comes_in_pages_by_its_rotations(store: Store) {
    let first = key_with_alias("line");
    let (scope_of_line, line_id) = (first.record.scope.clone(), first.record.key_id);
    let mut line = vec![line_id];
    insert(&*store, first.clone()).await;
    let mut newest = first.record;
    for rotation_count in 1..6 {
        let mut successor = stored_key();
        successor.record.line_id = line_id;
        successor.record.rotation_count = rotation_count;
        let replaced = newest.replaced_at_once(successor.record.key_id, now());
        let rotate = changes(vec![
            Change::UpdateKey(replaced.expect("active")),
            Change::InsertKey(successor.clone()),
        ]);
        store.commit(rotate).await.expect("nothing conflicts");
        line.push(successor.record.key_id);
        newest = successor.record;
    }
    insert(&*store, stored_key()).await;
    let query = |after, limit| LineQuery {
        scope: scope_of_line.clone(),
        line_id,
        after,
        limit,
    };
    let ids = async |query| {
        let page = store.list_line(query).await.expect("available");
        let ids: Vec<KeyId> = page.keys.iter().map(|key| key.key_id).collect();
        (ids, page.has_more)
    };
    assert_eq!(ids(query(None, 10)).await, (line.clone(), false));
    assert_eq!(ids(query(None, 6)).await, (line.clone(), false));
    assert_eq!(ids(query(None, 4)).await, (line[..4].to_vec(), true));
    assert_eq!(ids(query(Some(3), 4)).await, (line[4..].to_vec(), false));
    assert_eq!(ids(query(Some(5), 4)).await, (vec![], false));
    let foreign = LineQuery {
        scope: scope("other"),
        ..query(None, 10)
    };
    assert_eq!(ids(foreign).await, (vec![], false));
}

pub(super) async fn a_key_stays_in_its_line(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let mut moved = key.record.archived(now()).expect("active");
    moved.line_id = KeyId::generate();
    let moved = changes(vec![Change::UpdateKey(moved)]);
    assert_eq!(conflict(store.commit(moved).await), Conflict::KeyChanged);
}

pub(super) async fn an_update_moves_the_alias_for_whoever_looks(store: Store) {
    let key = key_with_alias("before");
    let scope = key.record.scope.clone();
    insert(&*store, key.clone()).await;
    insert(&*store, key_with_alias("taken")).await;
    let look = async |alias: &str| {
        let found = store.find_key(&scope, &by_alias(alias)).await;
        found.expect("available").map(|key| key.record.clone())
    };
    // What is in memory from here on must not answer later.
    assert_eq!(look("before").await, Some(key.record.clone()));
    assert_eq!(look("after").await, None);
    let rename = |record: &KeyRecord, alias: &str| {
        let changed = record.changed(KeyUpdate {
            key_alias: Some(Some(alias.parse().expect("valid"))),
            ..KeyUpdate::default()
        });
        changed.expect("active")
    };
    let taken = changes(vec![Change::UpdateKey(rename(&key.record, "taken"))]);
    assert_eq!(conflict(store.commit(taken).await), Conflict::AliasTaken);
    let renamed = rename(&key.record, "after");
    let update = changes(vec![Change::UpdateKey(renamed.clone())]);
    store.commit(update).await.expect("it is free");
    assert_eq!(look("before").await, None);
    assert_eq!(look("after").await, Some(renamed));
    insert(&*store, key_with_alias("before")).await;
}

fn all_of(scope: crate::domain::scope::Scope) -> KeyQuery {
    KeyQuery {
        scope,
        key_state: None,
        key_type: None,
        key_alias: None,
        after: None,
        limit: 100,
    }
}

pub(super) async fn the_keys_that_a_backend_is_to_hold_are_listed_across_scopes(store: Store) {
    let mut kept = Vec::new();
    for (place, environment) in [Environment::Dev, Environment::Prod, Environment::Dev]
        .into_iter()
        .enumerate()
    {
        let mut key = stored_key();
        key.record.scope.environment = environment;
        key.record.backend = match place {
            2 => HsmBackendName::Software,
            _ => HsmBackendName::Pkcs11,
        };
        insert(&*store, key.clone()).await;
        kept.push((key.record.key_id, key.record.scope));
    }
    let mut revoked = stored_key();
    revoked.record.backend = HsmBackendName::Pkcs11;
    insert(&*store, revoked.clone()).await;
    let revocation = revocation(&revoked.record);
    store.commit(revocation).await.expect("kept");
    let held = async |backend, after, limit| {
        let held = store.keys_held(backend, after, limit).await;
        held.expect("available")
    };
    let token = HsmBackendName::Pkcs11;
    assert_eq!(held(token, None, 10).await, kept[..2]);
    assert_eq!(held(token, None, 1).await, kept[..1]);
    assert_eq!(held(token, Some(kept[0].0), 10).await, kept[1..2]);
    assert_eq!(held(token, Some(kept[1].0), 10).await, []);
    assert_eq!(held(HsmBackendName::Software, None, 10).await, kept[2..]);
}
