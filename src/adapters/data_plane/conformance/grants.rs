//! Spent grants: each counts once, and what it was spent on stands or falls with it.

use super::anchors::anchor;
use super::{Store, changes, conflict, insert, now, receipt_in, scope, stored_key, use_of};
use crate::domain::approval::Grant;
use crate::domain::ids::KeyRef;
use crate::domain::time::{Period, Timestamp};
use crate::ports::data_plane::{Change, CommitError, Conflict, DataPlane};

pub(super) async fn a_grant_is_spent_once_and_the_second_takes_nothing_along(store: Store) {
    let first = spend(&*store, vec![grant("one")]).await;
    first.expect("not spent yet");
    let key = stored_key();
    let deed = changes(vec![
        Change::InsertKey(key.clone()),
        Change::InsertTrustAnchor(anchor("aa")),
        Change::SpendGrant(grant("other")),
        Change::SpendGrant(Grant {
            // Whoever signed it, and until whenever it is good: the name counts.
            approver: "spiffe://somebody-else".to_owned(),
            usable_until: now().plus(Period::days(1)),
            ..grant("one")
        }),
    ]);
    assert_eq!(conflict(store.commit(deed).await), Conflict::GrantSpent);
    assert_eq!(store.ledger_size(), 1);
    assert_eq!(store.count_trust_anchors().await.expect("available"), 0);
    let name = KeyRef::Id(key.record.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    assert_eq!(found.expect("available"), None);
    assert!(is_spent(&*store, "one").await);
    assert!(!is_spent(&*store, "other").await);
}

pub(super) async fn a_grant_counts_once_in_a_transaction_too(store: Store) {
    let twice = spend(&*store, vec![grant("one"), grant("one")]).await;
    assert_eq!(conflict(twice), Conflict::GrantSpent);
    assert!(!is_spent(&*store, "one").await);
    assert_eq!(store.ledger_size(), 0);
}

pub(super) async fn a_transaction_spends_several_grants(store: Store) {
    let both = spend(&*store, vec![grant("one"), grant("two")]).await;
    both.expect("two different ones");
    for token_id in ["one", "two"] {
        assert!(is_spent(&*store, token_id).await);
        let again = spend(&*store, vec![grant(token_id)]).await;
        assert_eq!(conflict(again), Conflict::GrantSpent);
    }
    assert!(!is_spent(&*store, "three").await);
}

pub(super) async fn of_two_deeds_on_one_grant_exactly_one_is_done(store: Store) {
    for round in 0..20 {
        let token_id = format!("round {round}");
        let deeds: Vec<_> = (0..4)
            .map(|_| {
                let (store, grant) = (store.clone(), grant(&token_id));
                tokio::spawn(async move { spend(&*store, vec![grant]).await })
            })
            .collect();
        let mut done = 0;
        for deed in deeds {
            match deed.await.expect("no panic") {
                Ok(()) => done += 1,
                refused => assert_eq!(conflict(refused), Conflict::GrantSpent),
            }
        }
        assert_eq!(done, 1);
    }
    assert_eq!(store.ledger_size(), 20);
}

pub(super) async fn a_grant_is_spent_together_with_a_use_and_its_receipts(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let reservation = counter.reserve(now(), 10, true).expect("some are left");
    let mut used = use_of(&key.record, reservation);
    used.changes.push(Change::SpendGrant(grant("one")));
    used.receipts.push(receipt_in(&key.record.scope));
    store.commit(used).await.expect("nothing conflicts");
    assert!(is_spent(&*store, "one").await);
    assert_eq!(store.ledger_size(), 3);
    assert_eq!((counter.count().used, counter.count().encryptions), (1, 1));
}

pub(super) async fn a_spent_grant_gives_the_use_back(store: Store) {
    let key = stored_key();
    insert(&*store, key.clone()).await;
    let spent = spend(&*store, vec![grant("one")]).await;
    spent.expect("not spent yet");
    let counter = store.usage_counter(key.record.key_id).await;
    let counter = counter.expect("available");
    let reservation = counter.reserve(now(), 1, true).expect("one is left");
    let mut used = use_of(&key.record, reservation);
    used.changes.push(Change::SpendGrant(grant("one")));
    assert_eq!(conflict(store.commit(used).await), Conflict::GrantSpent);
    assert_eq!((counter.count().used, counter.count().encryptions), (0, 0));
    assert_eq!(store.ledger_size(), 2);
    let reservation = counter.reserve(now(), 1, true).expect("given back");
    let used = store.commit(use_of(&key.record, reservation)).await;
    used.expect("nothing conflicts");
}

pub(super) async fn a_conflict_leaves_the_grant_to_be_spent(store: Store) {
    let removal = Change::RemoveTrustAnchor {
        scope: scope("t"),
        trust_anchor_id: anchor("aa").trust_anchor_id,
    };
    let deed = changes(vec![Change::SpendGrant(grant("one")), removal]);
    assert_eq!(conflict(store.commit(deed).await), Conflict::AnchorGone);
    assert!(!is_spent(&*store, "one").await);
    let spent = spend(&*store, vec![grant("one")]).await;
    spent.expect("not spent yet");
}

pub(super) async fn grants_that_nobody_can_present_are_forgotten(store: Store) {
    const OLD: usize = 150;
    let ending = |name: &str, usable_until: Timestamp| Grant {
        usable_until,
        ..grant(name)
    };
    let old: Vec<_> = (0..OLD).map(|number| format!("old {number}")).collect();
    let grants = old.iter().map(|name| ending(name, now())).collect();
    spend(&*store, grants).await.expect("not spent yet");
    // A day later to the microsecond, nothing may be forgotten yet.
    let a_day_later = now().plus(Period::days(1));
    let next = spend(&*store, vec![ending("a day later", a_day_later)]).await;
    next.expect("not spent yet");
    assert_eq!(remembered(&*store, &old).await, OLD);
    // A transaction that comes to nothing forgets nothing.
    let later = now().plus(Period::days(2));
    let refused = spend(&*store, vec![ending("later", later), grant("a day later")]).await;
    assert_eq!(conflict(refused), Conflict::GrantSpent);
    assert_eq!(remembered(&*store, &old).await, OLD);
    // The newest of a transaction's grants tells the time, in whichever order.
    let spent = spend(
        &*store,
        vec![ending("later", later), ending("earlier", a_day_later)],
    )
    .await;
    spent.expect("not spent yet");
    assert_eq!(remembered(&*store, &old).await, OLD - 100);
    let spent = spend(&*store, vec![ending("and again", later)]).await;
    spent.expect("not spent yet");
    assert_eq!(remembered(&*store, &old).await, 0);
    for recent in ["a day later", "earlier", "later", "and again"] {
        assert!(is_spent(&*store, recent).await, "{recent}");
    }
}

async fn remembered(store: &dyn DataPlane, names: &[String]) -> usize {
    let mut number = 0;
    for name in names {
        number += usize::from(is_spent(store, name).await);
    }
    number
}

async fn spend(store: &dyn DataPlane, grants: Vec<Grant>) -> Result<(), CommitError> {
    let spent = grants.into_iter().map(Change::SpendGrant).collect();
    store.commit(changes(spent)).await
}

async fn is_spent(store: &dyn DataPlane, token_id: &str) -> bool {
    store.is_grant_spent(token_id).await.expect("available")
}

/// A grant that was usable a quarter of an hour longer.
pub(in crate::adapters::data_plane) fn grant(token_id: &str) -> Grant {
    Grant {
        approver: "approver@example.org".to_owned(),
        token_id: token_id.to_owned(),
        usable_until: now().plus(Period::seconds(900)),
    }
}
