//! A key's life over time: what each step leaves, and what the background task may
//! do without anybody asking.

use serde_json::Value;

use super::*;
use crate::domain::error::InactiveReason;
use crate::domain::key::{KeyRecord, KeyUpdate, StoredKey};
use crate::domain::time::Timestamp;

/// Just before an instant.
pub(super) fn before(instant: Timestamp) -> Timestamp {
    instant.minus(std::time::Duration::from_micros(1))
}

impl Bench {
    /// A key that signs and verifies, as often as anybody likes.
    pub(super) async fn pair(&self, alias: Option<&str>) -> KeyRecord {
        self.pair_for(alias, None).await.expect("made")
    }

    /// The same with a schedule of its own.
    async fn pair_for(
        &self,
        alias: Option<&str>,
        rotation_period: Option<Period>,
    ) -> Result<KeyRecord, KmsError> {
        let request = GenerateKeyRequest {
            scope: scope(),
            key_type: KeyType::Ed25519,
            key_usage: KeyUsageSet::of([KeyUsage::Sign, KeyUsage::Verify]).expect("not empty"),
            key_alias: alias.map(|alias| alias.parse().expect("valid")),
            access_policy: AccessPolicyChoice {
                max_usage_per_day: Some(1_000),
                ..AccessPolicyChoice::default()
            },
            rotation_period,
        };
        let made = self.service.generate_key(&context(), request).await?;
        Ok(made.record)
    }

    pub(super) async fn record(&self, key_id: KeyId) -> KeyRecord {
        self.stored(key_id).await.record.clone()
    }

    pub(super) async fn stored(&self, key_id: KeyId) -> Arc<StoredKey> {
        let found = self.store.find_key(&scope(), &KeyRef::Id(key_id)).await;
        found.expect("memory").expect("there")
    }

    pub(super) async fn by_alias(&self, alias: &str) -> Option<KeyId> {
        let alias = KeyRef::Alias(alias.parse().expect("valid"));
        let found = self.store.find_key(&scope(), &alias).await;
        found.expect("memory").map(|key| key.record.key_id)
    }

    pub(super) async fn verify(&self, key_id: KeyId, signature: &[u8]) -> Result<bool, KmsError> {
        let (data, signature) = (
            Bytes::from_static(b"data"),
            Bytes::copy_from_slice(signature),
        );
        let verified = self
            .service
            .verify(&context(), &choice(key_id), data, signature)
            .await;
        verified.map(|used| used.output)
    }

    async fn archive(&self, key_id: KeyId) -> Result<KeyRecord, KmsError> {
        let archived = self
            .service
            .archive_key(&context(), &scope(), &KeyRef::Id(key_id))
            .await;
        archived.map(|changed| changed.record)
    }

    async fn update(&self, key_id: KeyId, update: KeyUpdate) -> Result<KeyRecord, KmsError> {
        let key = KeyRef::Id(key_id);
        let updated = self
            .service
            .update_key(&context(), &scope(), &key, &update)
            .await;
        updated.map(|changed| changed.record)
    }

    pub(super) async fn rotate(
        &self,
        key_id: KeyId,
        rotation: Rotation,
    ) -> Result<Rotated, KmsError> {
        let key = KeyRef::Id(key_id);
        self.service
            .rotate_key(&context(), &scope(), &key, rotation)
            .await
    }

    pub(super) async fn revoke(
        &self,
        key_id: KeyId,
        reason: RevocationReason,
    ) -> Result<KeyRecord, KmsError> {
        let request = RevokeKeyRequest {
            scope: scope(),
            key: KeyRef::Id(key_id),
            reason,
        };
        let revoked = self.service.revoke_key(&context(), request).await;
        revoked.map(|revoked| revoked.record)
    }

    /// The newest receipts, the last one last.
    pub(super) async fn newest_receipts(&self, number: usize) -> Vec<Value> {
        let first = self.service.ledger_size() - number as u64;
        let leaves = self.store.read_leaves(first, number).await;
        let leaves = leaves.expect("memory");
        let read = |leaf: &Vec<u8>| serde_json::from_slice(leaf).expect("JSON");
        leaves.iter().map(read).collect()
    }
}

#[track_caller]
pub(super) fn assert_inactive<T>(answer: Result<T, KmsError>, wanted: InactiveReason) {
    match answer {
        Err(KmsError::KeyInactive { reason, .. }) => assert_eq!(reason, wanted),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("this must be refused"),
    }
}

#[track_caller]
pub(super) fn assert_revoked<T>(answer: Result<T, KmsError>) {
    assert!(matches!(answer.err(), Some(KmsError::KeyRevoked)));
}

#[tokio::test]
async fn a_key_signs_until_its_own_period_is_over_and_verifies_after_it() {
    let bench = bench();
    let period = Period::seconds(5);
    let key = bench.pair_for(None, Some(period)).await.expect("made");
    assert_eq!(key.valid_until, key.created_at.plus(period));
    assert_eq!(key.rotation_period, Some(period));
    bench.clock.set(before(key.valid_until));
    let signed = bench.sign(key.key_id).await.expect("in time");
    bench.clock.set(key.valid_until);
    assert_inactive(bench.sign(key.key_id).await, InactiveReason::Expired);
    let valid = bench.verify(key.key_id, &signed.output).await;
    assert!(valid.expect("it reads the past"));
    let rotated = bench.rotate(key.key_id, Rotation::Planned).await;
    let successor = rotated.expect("active").new;
    bench.sign(successor.key_id).await.expect("it is new");
}

#[tokio::test]
async fn a_successor_inherits_the_period_and_the_line_and_without_one_the_types_schedule() {
    let bench = bench();
    let own = Period::days(3);
    for (period, lasts) in [(Some(own), own), (None, Period::days(365))] {
        let first = bench.pair_for(None, period).await.expect("made");
        assert_eq!(first.line_id, first.key_id);
        let mut key = first.clone();
        for count in 1..4 {
            bench.clock.advance(Period::seconds(1));
            let rotated = bench.rotate(key.key_id, Rotation::Planned).await;
            key = rotated.expect("active").new;
            assert_eq!(key.rotation_period, period);
            assert_eq!(key.valid_until, key.created_at.plus(lasts));
            assert_eq!((key.line_id, key.rotation_count), (first.key_id, count));
            assert!(key.rotate_at.is_some_and(|due| due < key.valid_until));
        }
    }
}

#[tokio::test]
async fn an_archived_key_gives_up_its_alias_and_reads_the_past() {
    let bench = bench();
    let key = bench.pair(Some("line")).await;
    let signed = bench.sign(key.key_id).await.expect("active");
    assert_eq!(bench.by_alias("line").await, Some(key.key_id));
    let archived = bench.archive(key.key_id).await.expect("active");
    assert_eq!(archived.key_state, KeyState::Archived);
    assert_eq!(archived.archived_at, Some(bench.clock.now()));
    assert_eq!(archived.rotate_at, None);
    assert_eq!(bench.by_alias("line").await, None);
    let another = bench.pair(Some("line")).await;
    assert_eq!(bench.by_alias("line").await, Some(another.key_id));
    assert_inactive(bench.sign(key.key_id).await, InactiveReason::NotActive);
    let valid = bench.verify(key.key_id, &signed.output).await;
    assert!(valid.expect("it reads the past"));
    assert_inactive(bench.archive(key.key_id).await, InactiveReason::NotActive);
    let rotated = bench.rotate(key.key_id, Rotation::Planned).await;
    assert_inactive(rotated, InactiveReason::NotActive);
    let refusal = &bench.newest_receipts(2).await[0];
    assert_eq!(refusal["operation"], "key_archived");
    assert_eq!(refusal["kms_context"]["error_code"], "KEY_INACTIVE");
}

#[tokio::test]
async fn a_replaced_key_can_be_archived_before_its_grace_is_over() {
    let bench = bench();
    let key = bench.pair(None).await;
    let rotated = bench.rotate(key.key_id, Rotation::Planned).await;
    let rotated = rotated.expect("active");
    let archived = bench.archive(key.key_id).await.expect("pending");
    assert_eq!(archived.key_state, KeyState::Archived);
    assert_eq!(archived.successor_key_id, Some(rotated.new.key_id));
    bench
        .revoke(key.key_id, RevocationReason::Compromised)
        .await
        .expect("archived");
    assert_revoked(bench.archive(key.key_id).await);
}

#[tokio::test]
async fn an_emergency_leaves_no_grace_and_two_receipts_in_one_transaction() {
    let bench = bench();
    let key = bench.pair(Some("line")).await;
    let signed = bench.sign(key.key_id).await.expect("active");
    let rotated = bench.rotate(key.key_id, Rotation::Emergency).await;
    let Rotated { old, new, .. } = rotated.expect("active");
    assert_eq!(old.key_state, KeyState::Archived);
    assert_eq!((old.grace_until, old.rotate_at), (None, None));
    assert_eq!(old.archived_at, old.rotated_at);
    assert_eq!(old.successor_key_id, Some(new.key_id));
    assert_eq!(bench.record(key.key_id).await, old);
    assert_eq!(bench.by_alias("line").await, Some(new.key_id));
    let receipts = bench.newest_receipts(2).await;
    let operations = receipts.iter().map(|receipt| &receipt["operation"]);
    assert!(operations.eq(["key_rotated", "key_archived"]));
    for receipt in &receipts {
        assert_eq!(receipt["kms_context"]["key_id"], key.key_id.to_string());
        assert_eq!(receipt["kms_context"]["success"], true);
    }
    assert_inactive(bench.sign(key.key_id).await, InactiveReason::NotActive);
    let valid = bench.verify(key.key_id, &signed.output).await;
    assert!(valid.expect("it reads the past"));
    bench.sign(new.key_id).await.expect("active");
}

#[tokio::test]
async fn an_update_moves_the_alias_and_counts_at_once() {
    let bench = bench();
    let key = bench.pair(Some("line")).await;
    let other = bench.pair(Some("taken")).await;
    let to = |alias: Option<&str>| KeyUpdate {
        key_alias: Some(alias.map(|alias| alias.parse().expect("valid"))),
        ..KeyUpdate::default()
    };
    let taken = bench.update(key.key_id, to(Some("taken"))).await;
    let taken = taken.expect_err("refused").to_string();
    assert!(taken.contains("key_alias"), "{taken}");
    let moved = bench.update(key.key_id, to(Some("moved"))).await;
    assert_eq!(moved.expect("active").version, key.version + 1);
    assert_eq!(bench.by_alias("line").await, None);
    assert_eq!(bench.by_alias("moved").await, Some(key.key_id));
    bench.update(key.key_id, to(None)).await.expect("active");
    assert_eq!(bench.by_alias("moved").await, None);
    let again = bench.update(other.key_id, to(Some("taken"))).await;
    again.expect("it is its own");

    let limit = |limit| KeyUpdate {
        access_policy: AccessPolicyChoice {
            max_usage_per_day: Some(limit),
            ..AccessPolicyChoice::default()
        },
        ..KeyUpdate::default()
    };
    let signed = bench.sign(key.key_id).await.expect("some are left");
    bench.update(key.key_id, limit(1)).await.expect("active");
    let refusal = bench.sign(key.key_id).await.err();
    assert!(matches!(
        refusal,
        Some(KmsError::DailyLimitReached { limit: 1, .. })
    ));
    bench.update(key.key_id, limit(3)).await.expect("active");
    bench.sign(key.key_id).await.expect("two are left");

    // What only reads the past has no alias to give, and a policy all the same.
    bench.archive(key.key_id).await.expect("active");
    assert_inactive(
        bench.update(key.key_id, to(Some("moved"))).await,
        InactiveReason::NotActive,
    );
    bench.update(key.key_id, limit(4)).await.expect("archived");
    for _ in 0..2 {
        let valid = bench.verify(key.key_id, &signed.output).await;
        assert!(valid.expect("two are left"));
    }
    assert!(bench.verify(key.key_id, &signed.output).await.is_err());
    bench
        .revoke(key.key_id, RevocationReason::Retired)
        .await
        .expect("archived");
    assert_revoked(bench.update(key.key_id, limit(5)).await);
}

#[tokio::test]
async fn a_use_under_way_meets_the_policy_that_was_changed_meanwhile() {
    let bench = bench();
    let key = bench.pair(None).await;
    let changed = key.changed(KeyUpdate {
        access_policy: AccessPolicyChoice {
            allowed_modules: Some(vec!["M23".parse().expect("valid")]),
            ..AccessPolicyChoice::default()
        },
        ..KeyUpdate::default()
    });
    let receipt = crate::domain::receipt::tests::receipt();
    bench.store.next(Next::After(Transaction {
        key_use: None,
        changes: vec![Change::UpdateKey(changed.expect("active"))],
        receipts: vec![bench.ledger.sign(receipt).expect("signed")],
    }));
    let refusal = bench.sign(key.key_id).await.err();
    assert!(matches!(refusal, Some(KmsError::PolicyViolation(_))));
}

#[tokio::test]
async fn a_line_is_told_from_any_of_its_keys_in_pages() {
    let bench = bench();
    let first = bench.pair(Some("line")).await;
    let stranger = bench.pair(None).await;
    let mut line = vec![first.key_id];
    for rotation in [Rotation::Planned, Rotation::Emergency, Rotation::Planned] {
        let key_id = *line.last().expect("not empty");
        let rotated = bench.rotate(key_id, rotation).await.expect("active");
        line.push(rotated.new.key_id);
    }
    let reason = RevocationReason::Compromised;
    bench.revoke(line[1], reason).await.expect("archived");
    let names = line.iter().copied().map(KeyRef::Id);
    for key in names.chain([KeyRef::Alias("line".parse().expect("valid"))]) {
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let page = bench
                .service
                .key_versions(&context(), &scope(), &key, after, 3)
                .await
                .expect("found");
            assert!(page.keys.len() <= 3);
            told.extend(page.keys.iter().map(|key| key.key_id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(told, line, "{key:?}");
    }
    let alone = KeyRef::Id(stranger.key_id);
    let page = bench
        .service
        .key_versions(&context(), &scope(), &alone, None, 3)
        .await
        .expect("found");
    assert_eq!((page.keys.len(), page.next), (1, None));
}

#[tokio::test]
async fn the_usage_of_a_key_is_that_of_the_utc_day() {
    let bench = bench();
    let key = bench.pair(None).await;
    bench
        .clock
        .set("2027-03-01T22:00:00Z".parse().expect("valid"));
    let look = async || {
        let key = KeyRef::Id(key.key_id);
        let found = bench.service.get_key(&context(), &scope(), &key).await;
        found.expect("found").1
    };
    let usage = look().await;
    assert_eq!((usage.used, usage.limit), (0, 1_000));
    assert_eq!(usage.last_used_at, None);
    assert_eq!(usage.resets_at.to_string(), "2027-03-02T00:00:00.000000Z");
    for _ in 0..3 {
        bench.clock.advance(Period::seconds(60));
        bench.sign(key.key_id).await.expect("active");
    }
    let last_used_at = Some(bench.clock.now());
    bench.store.next(Next::Fail);
    bench.clock.advance(Period::seconds(60));
    bench.sign(key.key_id).await.err().expect("not kept");
    let usage = look().await;
    assert_eq!((usage.used, usage.last_used_at), (3, last_used_at));
    bench.clock.advance(Period::days(1));
    let usage = look().await;
    assert_eq!((usage.used, usage.last_used_at), (0, last_used_at));
    assert_eq!(usage.resets_at.to_string(), "2027-03-03T00:00:00.000000Z");
}
