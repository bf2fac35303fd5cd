//! Handles that are replaced, in the files of the store.

use std::collections::HashSet;

use super::durability::{found_in, pieces};
use super::{Folder, one_receipt};
use crate::adapters::data_plane::conformance::{insert, key_with_alias, stored_key};
use crate::adapters::data_plane::sqlite::handles;
use crate::domain::ids::KeyRef;
use crate::domain::key::{HsmBackendName, KeyHandle, StoredKey};
use crate::ports::data_plane::DataPlane as _;
use crate::ports::handle_store::{HandleReplacement, HandleStore as _};

/// A key with a random handle of so many bytes.
fn key_of(size: usize) -> StoredKey {
    let mut key = stored_key();
    key.handle = Some(random(size));
    key
}

fn random(size: usize) -> KeyHandle {
    let mut handle = vec![0; size];
    aws_lc_rs::rand::fill(&mut handle).expect("randomness");
    KeyHandle::from_bytes(handle)
}

fn replacement(key: &StoredKey) -> HandleReplacement {
    let from = key.handle.clone().expect("a handle");
    HandleReplacement {
        key_id: key.record.key_id,
        to: random(from.as_bytes().len()),
        from,
    }
}

#[tokio::test]
async fn a_replaced_handle_is_in_no_file_once_that_is_seen_to() {
    let folder = Folder::new();
    let store = folder.open();
    let mut keys = Vec::new();
    for size in [60, 92, 1_300, 300, 5_000, 9_000]
        .into_iter()
        .cycle()
        .take(120)
    {
        let key = key_of(size);
        insert(&store, key.clone()).await;
        keys.push(key);
    }
    let old: HashSet<u64> = keys.iter().flat_map(pieces).collect();
    assert!(
        found_in(&folder, &old) > old.len() / 2,
        "or it finds nothing"
    );
    for some in keys.chunks(50) {
        let all = some.iter().map(replacement).collect();
        let replaced = store.replace_handles(all).await.expect("available");
        assert_eq!(replaced, some.len() as u64);
    }
    // A reader holds up the log for as long as it reads, and nobody else.
    let reader = folder.foreign_connection();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM receipts")
        .expect("a snapshot");
    assert!(!store.wipe_replaced().await.expect("available"));
    store.commit(one_receipt()).await.expect("kept");
    drop(reader);
    assert!(store.wipe_replaced().await.expect("available"));
    assert_eq!(found_in(&folder, &old), 0);
}

#[tokio::test]
async fn what_was_replaced_and_pinned_is_there_after_reopening() {
    let folder = Folder::new();
    let store = folder.open();
    let key = key_with_alias("line");
    insert(&store, key.clone()).await;
    store.pin("kek", b"old").await.expect("available");
    let one = replacement(&key);
    let all = vec![one.clone()];
    store.replace_handles(all).await.expect("available");
    store.move_pin("kek", b"old", b"new").await.expect("moved");
    drop(store);
    let store = folder.open();
    let name = KeyRef::Id(key.record.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    let found = found.expect("available").expect("kept");
    assert_eq!(found.handle, Some(one.to));
    assert_eq!(store.pin("kek", b"old").await.expect("kept"), b"new");
    let seen = handles::pinned(&folder.database(), "kek").expect("reads");
    assert_eq!(seen.as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_destroyed_key_that_waits_for_its_erasure_has_its_handle_replaced_too() {
    let folder = Folder::new();
    let store = folder.open();
    let keys = [stored_key(), stored_key()];
    for key in &keys {
        insert(&store, key.clone()).await;
    }
    let foreign = folder.foreign_connection();
    for (key, erase_at) in keys.iter().zip(["1", "NULL"]) {
        foreign
            .execute(
                &format!(
                    "UPDATE keys SET key_state = 'destroyed', erase_at = {erase_at} \
                     WHERE key_id = ?1"
                ),
                [key.record.key_id.as_bytes()],
            )
            .expect("allowed");
    }
    let page = store.list_handles(None, 10).await.expect("available");
    let ids: Vec<_> = page.handles.iter().map(|kept| kept.key_id).collect();
    assert_eq!(ids, [keys[0].record.key_id]);
    let all = keys.iter().map(replacement).collect();
    let replaced = store.replace_handles(all).await.expect("available");
    assert_eq!(replaced, 1);
    let erased: i64 = foreign
        .query_row(
            "SELECT count(*) FROM key_handles WHERE handle = zeroblob(length(handle))",
            [],
            |row| row.get(0),
        )
        .expect("a number");
    assert_eq!(erased, 1);
}

#[tokio::test]
async fn handles_are_counted_by_how_they_begin_from_outside_too() {
    let folder = Folder::new();
    let store = folder.open();
    for (number, beginning) in [(3, b"aaa"), (2, b"bbb")] {
        for _ in 0..number {
            let mut key = stored_key();
            key.handle = Some(KeyHandle::from_bytes([&beginning[..], b"rest"].concat()));
            insert(&store, key).await;
        }
    }
    let mut other = stored_key();
    other.record.backend = HsmBackendName::Pkcs11;
    insert(&store, other).await;
    let counts = handles::count_by_beginning(&folder.database(), HsmBackendName::Software, 3);
    let expected = [(b"aaa".to_vec(), 3), (b"bbb".to_vec(), 2)];
    assert_eq!(counts.expect("reads"), expected.into());
    assert!(handles::is_served(&folder.database()));
    drop(store);
    assert!(!handles::is_served(&folder.database()));
}
