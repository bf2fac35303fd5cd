//! What every data plane promises, as tests that run against each of them.

mod anchors;
mod grants;
mod handles;
mod keys;
mod ledger;
mod upkeep;
mod usage;

pub(super) use self::anchors::anchor;
pub(super) use self::grants::grant;

use std::sync::Arc;

use crate::adapters::ledger::LedgerSigner;
use crate::domain::ids::KeyRef;
use crate::domain::key::tests::active_key;
use crate::domain::key::{KeyHandle, KeyRecord, RevocationReason, StoredKey};
use crate::domain::ledger::{Tree, TreeHash};
use crate::domain::receipt::tests::receipt;
use crate::domain::receipt::{Receipt, SignedReceipt};
use crate::domain::scope::Scope;
use crate::domain::time::{Period, Timestamp};
use crate::domain::usage::UsageReservation;
use crate::ports::data_plane::{Change, CommitError, DataPlane, KeyUseMark, Transaction};
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::LedgerFault;
use crate::ports::upkeep_store::KeyIntent;

/// What a test gets: the store, to be shared with tasks.
pub(super) type Store = Arc<dyn DataPlane>;

/// The one promise about a store whose ledger has not begun.
const UNBEGUN: &str = "nothing_is_kept_before_the_ledger_has_begun";

/// Runs each of these functions, as a test of its name, against every store.
macro_rules! promises {
    ($($room:ident: $($promise:ident)+;)+) => {
        mod in_memory {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let store = std::sync::Arc::new(
                        crate::adapters::data_plane::memory::MemoryDataPlane::new(),
                    );
                    if stringify!($promise) != super::UNBEGUN {
                        super::begin(&*store);
                    }
                    super::$room::$promise(store).await;
                }
            )+)+
        }

        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let folder = tempfile::tempdir().expect("a folder");
                    let store = crate::adapters::data_plane::sqlite::SqliteDataPlane::open(
                        &folder.path().join("kms.db"),
                        crate::adapters::data_plane::sqlite::SqliteOptions::default(),
                    )
                    .expect("a new database");
                    if stringify!($promise) != super::UNBEGUN {
                        super::begin(&store);
                    }
                    super::$room::$promise(std::sync::Arc::new(store)).await;
                }
            )+)+
        }
    };
}

promises! {
    keys:
        a_key_is_found_in_its_scope_only
        every_field_of_a_key_reads_back
        the_keys_that_a_backend_is_to_hold_are_listed_across_scopes
        an_alias_names_the_active_key_and_no_other_may_bear_it
        an_alias_is_free_again_once_its_key_is_revoked
        a_rotation_hands_the_alias_over_in_one_transaction
        the_same_alias_in_another_scope_is_another_alias
        a_change_to_any_version_but_the_last_conflicts
        a_change_never_reaches_into_another_scope
        of_two_rotations_at_once_one_leaves_a_successor
        a_key_that_exists_is_not_inserted_again
        a_revoked_key_has_no_handle
        a_conflict_in_a_later_change_undoes_the_earlier_ones
        pages_follow_each_other_and_filters_hold
        keys_are_counted_by_type_and_state
        a_line_comes_in_pages_by_its_rotations
        a_key_stays_in_its_line
        an_update_moves_the_alias_for_whoever_looks;
    handles:
        a_replaced_handle_is_found_at_once_by_every_name
        a_handle_is_replaced_only_where_it_is_still_the_old_one
        an_erased_handle_is_neither_listed_nor_brought_back
        a_handle_of_another_length_takes_no_place_and_none_with_it_does
        every_handle_is_listed_once_with_what_it_belongs_to
        of_a_replacement_and_a_revocation_at_once_the_handle_is_erased
        a_pin_moves_from_what_it_is_and_from_nothing_else;
    anchors:
        a_scope_has_an_anchor_of_one_fingerprint_once
        every_field_of_an_anchor_reads_back
        an_anchor_is_found_in_its_scope_only
        an_anchor_is_removed_once
        nobody_removes_an_anchor_of_another_scope
        a_removed_anchor_can_be_taken_in_again
        a_conflict_brings_back_what_the_transaction_removed
        the_anchors_of_a_scope_come_in_pages;
    grants:
        a_grant_is_spent_once_and_the_second_takes_nothing_along
        a_grant_counts_once_in_a_transaction_too
        a_transaction_spends_several_grants
        of_two_deeds_on_one_grant_exactly_one_is_done
        a_grant_is_spent_together_with_a_use_and_its_receipts
        a_spent_grant_gives_the_use_back
        a_conflict_leaves_the_grant_to_be_spent
        grants_that_nobody_can_present_are_forgotten;
    ledger:
        receipts_are_dense_over_concurrent_commits
        the_receipts_of_a_transaction_stand_together
        a_receipt_is_found_in_its_scope_only
        the_newest_receipt_is_the_last_one_kept
        a_receipt_is_kept_once_and_its_double_takes_nothing_along
        the_tree_stands_on_the_leaves_that_are_kept
        receipts_come_in_pages_by_time_key_and_operation
        a_receipt_signed_before_a_takeover_and_kept_after_it_is_signed_again
        nothing_is_kept_before_the_ledger_has_begun
        a_pinned_value_stays
        a_closed_store_refuses;
    usage:
        a_use_of_a_changed_key_leaves_neither_receipt_nor_count
        a_use_of_an_unknown_key_conflicts
        of_more_uses_than_are_left_exactly_those_are_kept
        everyone_who_asks_gets_the_same_counter
        the_latest_use_is_kept_with_its_count
        the_uses_of_a_batch_are_kept_or_given_back_together;
    upkeep:
        keys_are_due_by_their_state_the_longest_due_first
        a_key_that_has_expired_is_due_before_all_others
        the_secret_of_a_revoked_key_is_kept_until_it_is_erased_and_then_gone
        a_task_is_one_holders_until_its_lease_ends
        a_lease_from_a_clock_that_was_set_back_keeps_nobody_out
        a_key_that_a_backend_keeps_is_stored_only_after_it_was_announced
        a_key_that_was_given_up_is_never_stored
        a_transaction_that_conflicts_leaves_the_announcement;
}

/// The instant at which everything here happens.
pub(super) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("valid")
}

pub(super) fn scope(tenant: &str) -> Scope {
    Scope {
        tenant_id: tenant.parse().expect("valid"),
        ..active_key().scope
    }
}

pub(super) fn by_alias(alias: &str) -> KeyRef {
    KeyRef::Alias(alias.parse().expect("valid"))
}

/// An active key with a handle of its own.
pub(super) fn stored_key() -> StoredKey {
    let record = active_key();
    let handle = record.key_id.as_bytes().repeat(5);
    StoredKey {
        record,
        handle: Some(KeyHandle::from_bytes(handle)),
    }
}

pub(super) fn key_with_alias(alias: &str) -> StoredKey {
    let mut key = stored_key();
    key.record.key_alias = Some(alias.parse().expect("valid"));
    key
}

/// The signer of every ledger here.
pub(super) fn signer() -> LedgerSigner {
    LedgerSigner::from_seed(&[7; 32]).expect("32 bytes")
}

/// Begins the ledger of a store, on a thread that may block.
pub(super) fn begin(store: &dyn DataPlane) {
    begin_with(store, Arc::new(signer())).expect("a ledger that verifies");
}

pub(super) fn begin_with(
    store: &dyn DataPlane,
    signer: Arc<LedgerSigner>,
) -> Result<(), LedgerFault> {
    std::thread::scope(|scope| {
        let beginning = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(store.begin_ledger(signer))
        });
        beginning.join().expect("no panic")
    })
}

/// The tree over every leaf that a store has, grown anew.
pub(super) async fn tree_over_leaves(store: &dyn DataPlane) -> Tree {
    let size = usize::try_from(store.ledger_size()).expect("few");
    let leaves = store.read_leaves(0, size + 1).await.expect("available");
    assert_eq!(leaves.len(), size);
    let mut tree = Tree::new();
    for leaf in leaves {
        tree.push(TreeHash::of_leaf(&leaf), &mut Vec::new());
    }
    tree
}

pub(super) fn receipt_in(scope: &Scope) -> SignedReceipt {
    signed(Receipt {
        scope: scope.clone(),
        ..receipt()
    })
}

pub(super) fn signed(receipt: Receipt) -> SignedReceipt {
    signer().sign(receipt).expect("signed")
}

/// The changes with one receipt, in the scope of all these tests.
pub(super) fn changes(changes: Vec<Change>) -> Transaction {
    Transaction {
        changes,
        receipts: vec![receipt_in(&active_key().scope)],
        ..Transaction::default()
    }
}

pub(super) fn use_of(record: &KeyRecord, reservation: UsageReservation) -> Transaction {
    Transaction {
        key_use: Some(KeyUseMark {
            key_id: record.key_id,
            version: record.version,
            reservation,
            took_long: false,
        }),
        receipts: vec![receipt_in(&record.scope)],
        ..Transaction::default()
    }
}

pub(super) async fn insert(store: &dyn DataPlane, key: StoredKey) {
    if key.record.backend.keeps_keys() {
        let intent = KeyIntent {
            key_id: key.record.key_id,
            backend: key.record.backend,
            begun_at: now(),
        };
        store.begin_key(intent).await.expect("announced");
    }
    store
        .commit(changes(vec![Change::InsertKey(key)]))
        .await
        .expect("nothing conflicts");
}

/// The successor of a key and the transaction that rotates to it.
pub(super) fn rotation(key: &KeyRecord) -> (StoredKey, Transaction) {
    let mut successor = stored_key();
    successor.record.key_alias = key.key_alias.clone();
    successor.record.predecessor_key_id = Some(key.key_id);
    let replaced = key
        .replaced_by(successor.record.key_id, now(), Period::days(7))
        .expect("an active key");
    let transaction = changes(vec![
        Change::UpdateKey(replaced),
        Change::InsertKey(successor.clone()),
    ]);
    (successor, transaction)
}

pub(super) fn revocation(key: &KeyRecord) -> Transaction {
    let revoked = key
        .revoked(RevocationReason::Compromised, now(), None)
        .expect("not destroyed");
    changes(vec![Change::UpdateKey(revoked)])
}

pub(super) fn conflict(result: Result<(), CommitError>) -> crate::ports::data_plane::Conflict {
    match result {
        Err(CommitError::Conflict(conflict)) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}
