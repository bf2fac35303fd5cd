//! Handles, when they are replaced.

use super::{Store, by_alias, insert, key_with_alias, revocation, scope, stored_key};
use crate::domain::ids::{KeyId, KeyRef};
use crate::domain::key::{HsmBackendName, KeyHandle, KeyState, StoredKey};
use crate::ports::handle_store::{HandleReplacement, KeptHandle};

/// Another handle of the same length.
fn other(handle: &KeyHandle) -> KeyHandle {
    let flipped = handle.as_bytes().iter().map(|byte| !byte);
    KeyHandle::from_bytes(flipped.collect())
}

fn replacement(key: &StoredKey) -> HandleReplacement {
    let from = key.handle.clone().expect("a handle");
    HandleReplacement {
        key_id: key.record.key_id,
        to: other(&from),
        from,
    }
}

async fn handle_of(store: &Store, key: &StoredKey) -> Option<KeyHandle> {
    let name = KeyRef::Id(key.record.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    let found = found.expect("available").expect("found");
    assert_eq!(found.record, key.record, "the record stays as it is");
    found.handle.clone()
}

async fn all_handles(store: &Store) -> Vec<KeptHandle> {
    let page = store.list_handles(None, 100).await.expect("available");
    assert!(!page.has_more);
    page.handles
}

pub(super) async fn a_replaced_handle_is_found_at_once_by_every_name(store: Store) {
    let key = key_with_alias("line");
    insert(&*store, key.clone()).await;
    // What is in memory from here on must not answer later.
    let names = [KeyRef::Id(key.record.key_id), by_alias("line")];
    for name in &names {
        let found = store.find_key(&key.record.scope, name).await;
        assert_eq!(found.expect("available").as_deref(), Some(&key));
    }
    let one = replacement(&key);
    let replaced = store.replace_handles(vec![one.clone()]).await;
    assert_eq!(replaced.expect("available"), 1);
    for name in &names {
        let found = store.find_key(&key.record.scope, name).await;
        let found = found.expect("available").expect("found");
        assert_eq!(found.handle.as_ref(), Some(&one.to));
        assert_eq!(found.record, key.record);
    }
    assert_eq!(store.ledger_size(), 1);
}

pub(super) async fn a_handle_is_replaced_only_where_it_is_still_the_old_one(store: Store) {
    let (key, stays) = (stored_key(), stored_key());
    for key in [&key, &stays] {
        insert(&*store, key.clone()).await;
    }
    let one = replacement(&key);
    let wrong = HandleReplacement {
        from: other(stays.handle.as_ref().expect("a handle")),
        ..replacement(&stays)
    };
    let unknown = HandleReplacement {
        key_id: KeyId::generate(),
        ..one.clone()
    };
    let all = vec![wrong, one.clone(), unknown];
    let replaced = store.replace_handles(all.clone()).await;
    assert_eq!(replaced.expect("available"), 1);
    // Again, as after an answer that was lost: it changes nothing.
    let replaced = store.replace_handles(all).await;
    assert_eq!(replaced.expect("available"), 0);
    assert_eq!(handle_of(&store, &key).await, Some(one.to));
    assert_eq!(handle_of(&store, &stays).await, stays.handle);
}

pub(super) async fn an_erased_handle_is_neither_listed_nor_brought_back(store: Store) {
    let (erased, kept) = (stored_key(), stored_key());
    for key in [&erased, &kept] {
        insert(&*store, key.clone()).await;
    }
    let one = replacement(&erased);
    let revoked = store.commit(revocation(&erased.record)).await;
    revoked.expect("nothing conflicts");
    let replaced = store.replace_handles(vec![one.clone()]).await;
    assert_eq!(replaced.expect("available"), 0);
    let zeros = HandleReplacement {
        from: KeyHandle::from_bytes(vec![0; one.from.as_bytes().len()]),
        ..one
    };
    // Refused or passed over: nothing comes of it.
    let _ = store.replace_handles(vec![zeros]).await;
    let listed = all_handles(&store).await;
    let ids: Vec<_> = listed.iter().map(|kept| kept.key_id).collect();
    assert_eq!(ids, [kept.record.key_id]);
    let name = KeyRef::Id(erased.record.key_id);
    let found = store.find_key(&erased.record.scope, &name).await;
    let found = found.expect("available").expect("the metadata stays");
    assert_eq!(found.handle, None);
    assert_eq!(found.record.key_state, KeyState::Destroyed);
}

pub(super) async fn a_handle_of_another_length_takes_no_place_and_none_with_it_does(store: Store) {
    let keys = [stored_key(), stored_key()];
    for key in &keys {
        insert(&*store, key.clone()).await;
    }
    let longer = HandleReplacement {
        to: KeyHandle::from_bytes(vec![1; 1_000]),
        ..replacement(&keys[1])
    };
    let all = vec![replacement(&keys[0]), longer];
    assert!(store.replace_handles(all).await.is_err());
    for key in &keys {
        assert_eq!(handle_of(&store, key).await, key.handle);
    }
    // And it goes on.
    let replaced = store.replace_handles(vec![replacement(&keys[0])]).await;
    assert_eq!(replaced.expect("available"), 1);
}

pub(super) async fn every_handle_is_listed_once_with_what_it_belongs_to(store: Store) {
    let mut expected = Vec::new();
    for number in 0..7 {
        let mut key = stored_key();
        if number % 2 == 0 {
            key.record.scope = scope("a-tenant-that-sorts-elsewhere");
        }
        if number == 3 {
            key.record.backend = HsmBackendName::Pkcs11;
            key.record.key_state = KeyState::Archived;
        }
        insert(&*store, key.clone()).await;
        expected.push(KeptHandle {
            key_id: key.record.key_id,
            scope: key.record.scope,
            key_type: key.record.key_type,
            backend: key.record.backend,
            handle: key.handle.expect("a handle"),
        });
    }
    expected.sort_by_key(|kept| kept.key_id);
    let (mut listed, mut pages) = (Vec::new(), Vec::new());
    loop {
        let after = listed.last().map(|kept: &KeptHandle| kept.key_id);
        let page = store.list_handles(after, 3).await.expect("available");
        pages.push(page.handles.len());
        listed.extend(page.handles);
        if !page.has_more {
            break;
        }
    }
    assert_eq!((listed, pages), (expected, vec![3, 3, 1]));
    let page = store.list_handles(None, 7).await.expect("available");
    assert!(!page.has_more);
}

pub(super) async fn a_pin_moves_from_what_it_is_and_from_nothing_else(store: Store) {
    assert!(store.move_pin("name", b"a", b"b").await.is_err(), "no pin");
    store.pin("name", b"a").await.expect("available");
    let moved = store.move_pin("name", b"other", b"b").await;
    assert_eq!(moved.expect("available"), b"a");
    let moved = store.move_pin("name", b"a", b"b").await;
    assert_eq!(moved.expect("available"), b"b");
    let moved = store.move_pin("name", b"a", b"c").await;
    assert_eq!(moved.expect("available"), b"b");
    assert_eq!(store.pin("name", b"a").await.expect("available"), b"b");
    assert!(store.wipe_replaced().await.expect("available"));
}

pub(super) async fn of_a_replacement_and_a_revocation_at_once_the_handle_is_erased(store: Store) {
    for _ in 0..50 {
        let key = stored_key();
        insert(&*store, key.clone()).await;
        let replacing = {
            let (store, one) = (store.clone(), replacement(&key));
            tokio::spawn(async move { store.replace_handles(vec![one]).await })
        };
        let revoked = store.commit(revocation(&key.record)).await;
        revoked.expect("its version stays the same");
        replacing.await.expect("no panic").expect("available");
        assert_eq!(all_handles(&store).await, []);
    }
}
