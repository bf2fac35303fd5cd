//! Trust anchors: taken in, found, listed, removed, each in its scope.

use super::{Store, changes, conflict, key_with_alias, now, receipt_in, scope};
use crate::domain::ids::TrustAnchorId;
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::time::Period;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts, TrustAnchor};
use crate::ports::data_plane::{AnchorQuery, Change, CommitError, Conflict, DataPlane};

pub(super) async fn a_scope_has_an_anchor_of_one_fingerprint_once(store: Store) {
    add(&*store, anchor("aa")).await.expect("the first");
    let again = add(&*store, anchor("aa")).await;
    assert_eq!(conflict(again), Conflict::DuplicateAnchor);
    let mut elsewhere = anchor("aa");
    elsewhere.scope = scope("other");
    add(&*store, elsewhere).await.expect("another scope");
    let other = add(&*store, anchor("bb")).await;
    other.expect("another certificate");
    assert_eq!(count(&*store).await, 3);
    assert_eq!(store.ledger_size(), 3);
}

pub(super) async fn every_field_of_an_anchor_reads_back(store: Store) {
    let one = anchor("aa");
    let mut other = anchor("bb");
    other.scope = Scope {
        environment: Environment::Staging,
        plane: Plane::Product,
        ..scope("other")
    };
    other.anchor_type = AnchorType::ExternalCa;
    other.certificate.der = (0..=255).collect();
    other.certificate.subject = "CN=\u{e4}\\,b, O=\"c\"".to_owned();
    other.certificate.not_before = now().plus(Period::seconds(1));
    other.added_at = now().plus(Period::days(3));
    other.added_by = "M21".parse().expect("valid");
    for anchor in [&one, &other] {
        let added = add(&*store, anchor.clone()).await;
        added.expect("nothing conflicts");
        let found = find(&*store, &anchor.scope, anchor.trust_anchor_id).await;
        assert_eq!(found.as_ref(), Some(anchor));
    }
    let mut all = store.all_trust_anchors().await.expect("available");
    all.sort_by_key(|anchor| anchor.trust_anchor_id);
    assert_eq!(all, [one, other]);
}

pub(super) async fn an_anchor_is_found_in_its_scope_only(store: Store) {
    let anchor = anchor("aa");
    let added = add(&*store, anchor.clone()).await;
    added.expect("nothing conflicts");
    for elsewhere in elsewhere(&anchor.scope) {
        let found = find(&*store, &elsewhere, anchor.trust_anchor_id).await;
        assert_eq!(found, None, "{elsewhere:?}");
        let page = store.list_trust_anchors(all_of(elsewhere)).await;
        assert_eq!(page.expect("available").anchors, []);
    }
    let unknown = TrustAnchorId::generate();
    assert_eq!(find(&*store, &anchor.scope, unknown).await, None);
}

pub(super) async fn an_anchor_is_removed_once(store: Store) {
    let (kept, removed) = (anchor("aa"), anchor("bb"));
    for anchor in [&kept, &removed] {
        let added = add(&*store, anchor.clone()).await;
        added.expect("nothing conflicts");
    }
    let id = removed.trust_anchor_id;
    let first = remove(&*store, &removed.scope, id).await;
    first.expect("it is there");
    assert_eq!(find(&*store, &removed.scope, id).await, None);
    assert_eq!(count(&*store).await, 1);
    let again = remove(&*store, &removed.scope, id).await;
    assert_eq!(conflict(again), Conflict::AnchorGone);
    assert_eq!(store.ledger_size(), 3);
    let all = store.all_trust_anchors().await.expect("available");
    assert_eq!(all, [kept]);
}

pub(super) async fn nobody_removes_an_anchor_of_another_scope(store: Store) {
    let anchor = anchor("aa");
    let (home, id) = (anchor.scope.clone(), anchor.trust_anchor_id);
    add(&*store, anchor).await.expect("nothing conflicts");
    for elsewhere in elsewhere(&home) {
        let removed = remove(&*store, &elsewhere, id).await;
        assert_eq!(conflict(removed), Conflict::AnchorGone, "{elsewhere:?}");
    }
    assert!(find(&*store, &home, id).await.is_some());
    assert_eq!(store.ledger_size(), 1);
}

pub(super) async fn a_removed_anchor_can_be_taken_in_again(store: Store) {
    let first = anchor("aa");
    let (home, id) = (first.scope.clone(), first.trust_anchor_id);
    add(&*store, first).await.expect("nothing conflicts");
    remove(&*store, &home, id).await.expect("it is there");
    let second = anchor("aa");
    let added = add(&*store, second.clone()).await;
    added.expect("the place is free");
    assert_eq!(find(&*store, &home, id).await, None);
    let found = find(&*store, &home, second.trust_anchor_id).await;
    assert_eq!(found, Some(second));
    assert_eq!(count(&*store).await, 1);
}

pub(super) async fn a_conflict_brings_back_what_the_transaction_removed(store: Store) {
    let key = key_with_alias("line");
    super::insert(&*store, key.clone()).await;
    let kept = anchor("aa");
    let added = add(&*store, kept.clone()).await;
    added.expect("nothing conflicts");
    let removed_and_more = changes(vec![
        Change::RemoveTrustAnchor {
            scope: kept.scope.clone(),
            trust_anchor_id: kept.trust_anchor_id,
        },
        Change::InsertTrustAnchor(anchor("bb")),
        Change::InsertKey(key),
    ]);
    let refused = store.commit(removed_and_more).await;
    assert_eq!(conflict(refused), Conflict::KeyChanged);
    let again = add(&*store, anchor("aa")).await;
    assert_eq!(conflict(again), Conflict::DuplicateAnchor);
    let all = store.all_trust_anchors().await.expect("available");
    assert_eq!(all, [kept]);
}

pub(super) async fn the_anchors_of_a_scope_come_in_pages(store: Store) {
    let mut wanted = Vec::new();
    for number in 0..5 {
        let anchor = anchor(&format!("{number:02x}"));
        wanted.push(anchor.clone());
        add(&*store, anchor).await.expect("nothing conflicts");
        let mut elsewhere = super::anchors::anchor(&format!("{number:02x}"));
        elsewhere.scope = scope("other");
        add(&*store, elsewhere).await.expect("another scope");
    }
    wanted.sort_by_key(|anchor| anchor.trust_anchor_id);
    let mut query = AnchorQuery {
        limit: 2,
        ..all_of(scope("t"))
    };
    let mut sizes = Vec::new();
    let mut found = Vec::new();
    loop {
        let page = store.list_trust_anchors(query.clone()).await;
        let page = page.expect("available");
        sizes.push(page.anchors.len());
        query.after = page.anchors.last().map(|anchor| anchor.trust_anchor_id);
        found.extend(page.anchors);
        if !page.has_more {
            break;
        }
    }
    assert_eq!((sizes, found), (vec![2, 2, 1], wanted));
    let exactly = AnchorQuery {
        limit: 5,
        ..all_of(scope("t"))
    };
    let page = store.list_trust_anchors(exactly).await.expect("available");
    assert_eq!((page.anchors.len(), page.has_more), (5, false));
}

fn elsewhere(home: &Scope) -> [Scope; 3] {
    let mut elsewhere = [home.clone(), home.clone(), home.clone()];
    elsewhere[0].tenant_id = "other".parse().expect("valid");
    elsewhere[1].environment = Environment::Prod;
    elsewhere[2].plane = Plane::Shared;
    elsewhere
}

fn all_of(scope: Scope) -> AnchorQuery {
    AnchorQuery {
        scope,
        after: None,
        limit: 100,
    }
}

async fn add(store: &dyn DataPlane, anchor: TrustAnchor) -> Result<(), CommitError> {
    let mut transaction = changes(vec![]);
    transaction.receipts = vec![receipt_in(&anchor.scope)];
    transaction.changes = vec![Change::InsertTrustAnchor(anchor)];
    store.commit(transaction).await
}

async fn remove(
    store: &dyn DataPlane,
    scope: &Scope,
    trust_anchor_id: TrustAnchorId,
) -> Result<(), CommitError> {
    let removal = Change::RemoveTrustAnchor {
        scope: scope.clone(),
        trust_anchor_id,
    };
    store.commit(changes(vec![removal])).await
}

async fn find(
    store: &dyn DataPlane,
    scope: &Scope,
    trust_anchor_id: TrustAnchorId,
) -> Option<TrustAnchor> {
    let found = store.find_trust_anchor(scope, trust_anchor_id).await;
    found.expect("available")
}

async fn count(store: &dyn DataPlane) -> u64 {
    store.count_trust_anchors().await.expect("available")
}

/// An anchor in the tenant `t`.
pub(in crate::adapters::data_plane) fn anchor(fingerprint: &str) -> TrustAnchor {
    TrustAnchor {
        trust_anchor_id: TrustAnchorId::generate(),
        scope: scope("t"),
        anchor_type: AnchorType::Root,
        certificate: CertificateFacts {
            der: vec![0x30, 0],
            fingerprint: fingerprint.to_owned(),
            subject: "CN=root".to_owned(),
            not_before: now(),
            not_after: now().plus(Period::days(1)),
        },
        added_at: now(),
        added_by: "M32".parse().expect("valid"),
    }
}
