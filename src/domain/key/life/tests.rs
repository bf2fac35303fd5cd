//! The state machine against a table of its own, and the edges of each step.

use proptest::prelude::*;

use super::*;
use crate::domain::key::tests::active_key;

#[derive(Clone, Copy, Debug)]
enum Step {
    Replace,
    ReplaceAtOnce,
    Archive,
    RevokeLater,
    RevokeAtOnce,
    Erase,
    Restore,
    BeginErasure,
    Update,
}

const STEPS: [Step; 9] = [
    Step::Replace,
    Step::ReplaceAtOnce,
    Step::Archive,
    Step::RevokeLater,
    Step::RevokeAtOnce,
    Step::Erase,
    Step::Restore,
    Step::BeginErasure,
    Step::Update,
];

fn take(step: Step, key: &KeyRecord) -> Result<KeyRecord, KmsError> {
    let now = key.created_at;
    let later = Some(now.plus(Period::days(7)));
    match step {
        Step::Replace => key.replaced_by(KeyId::generate(), now, Period::days(7)),
        Step::ReplaceAtOnce => key.replaced_at_once(KeyId::generate(), now),
        Step::Archive => key.archived(now),
        Step::RevokeLater => key.revoked(RevocationReason::Retired, now, later),
        Step::RevokeAtOnce => key.revoked(RevocationReason::Compromised, now, None),
        Step::Erase => key.erased(),
        Step::Restore => key.restored(now),
        Step::BeginErasure => key.erasure_begun(),
        Step::Update => key.changed(KeyUpdate::default()),
    }
}

/// How much of a destroyed key's secret is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    All,
    Going,
    Nothing,
}

/// The table of the product contract, written a second time.
fn expected(at: (KeyState, Left), step: Step) -> Option<(KeyState, Left)> {
    use KeyState::{Active, Archived, Destroyed, PendingRotation};
    use Left::{All, Going, Nothing};
    match (at, step) {
        ((Active, _), Step::Replace) => Some((PendingRotation, All)),
        ((Active, _), Step::ReplaceAtOnce) => Some((Archived, All)),
        ((Active | PendingRotation, _), Step::Archive) => Some((Archived, All)),
        ((Destroyed, All), Step::RevokeAtOnce) => Some((Destroyed, Nothing)),
        ((Destroyed, All | Going), Step::Erase) => Some((Destroyed, Nothing)),
        ((Destroyed, All | Going), Step::BeginErasure) => Some((Destroyed, Going)),
        ((Destroyed, All), Step::Restore) => Some((Archived, All)),
        ((Destroyed, _), _) => None,
        (_, Step::RevokeLater) => Some((Destroyed, All)),
        (_, Step::RevokeAtOnce) => Some((Destroyed, Nothing)),
        (at, Step::Update) => Some(at),
        _ => None,
    }
}

fn place(key: &KeyRecord) -> (KeyState, Left) {
    let left = match (key.is_erased(), key.erasure_has_begun()) {
        (true, _) => Left::Nothing,
        (false, true) => Left::Going,
        (false, false) => Left::All,
    };
    (key.key_state, left)
}

proptest! {
    #[test]
    fn the_state_machine_is_the_table_and_every_change_counts(
        steps in prop::collection::vec(prop::sample::select(&STEPS[..]), 0..16)
    ) {
        let mut key = active_key();
        for step in steps {
            match (take(step, &key), expected(place(&key), step)) {
                (Ok(next), Some(expected)) => {
                    prop_assert_eq!(place(&next), expected);
                    prop_assert_eq!(next.version, key.version + 1);
                    let is_active = next.key_state == KeyState::Active;
                    prop_assert_eq!(next.rotate_at.is_some(), is_active);
                    key = next;
                }
                (Err(error), None) => {
                    let revoked = key.key_state == KeyState::Destroyed;
                    prop_assert_eq!(matches!(error, KmsError::KeyRevoked), revoked);
                }
                (outcome, wanted) => prop_assert!(false, "{outcome:?} against {wanted:?}"),
            }
        }
    }
}

#[test]
fn a_key_is_replaced_within_the_last_tenth_of_its_time_and_keys_differ() {
    let created_at = active_key().created_at;
    for (period, longest) in [
        (Period::seconds(100), 10),
        (Period::days(5), 43_200),
        (Period::days(365), 86_400),
    ] {
        let valid_until = created_at.plus(period);
        let leads: Vec<i64> = (0..=255)
            .map(|random| {
                let mut id = [0; 16];
                id[15] = random;
                let due = rotation_due(KeyId::from_bytes(id), valid_until, period);
                valid_until.microseconds() - due.microseconds()
            })
            .collect();
        let longest = longest * 1_000_000;
        assert!(
            leads
                .iter()
                .all(|lead| (longest / 2..=longest).contains(lead))
        );
        let different: std::collections::BTreeSet<_> = leads.iter().collect();
        assert_eq!(different.len(), 256);
    }
}

#[test]
fn a_revocation_is_taken_back_only_before_the_secret_is_due_to_go() {
    let key = active_key();
    let now = key.created_at;
    let erase_at = now.plus(Period::days(7));
    let revoked = key
        .revoked(RevocationReason::Retired, now, Some(erase_at))
        .expect("active");
    let last = Timestamp::from_microseconds(erase_at.microseconds() - 1);
    let restored = revoked.restored(last.expect("valid")).expect("in time");
    assert_eq!(restored.key_state, KeyState::Archived);
    assert_eq!((restored.revoked_at, restored.erase_at), (None, None));
    assert!(matches!(
        revoked.restored(erase_at),
        Err(KmsError::KeyRevoked)
    ));
}

#[test]
fn a_key_that_waits_for_its_erasure_can_still_be_called_compromised_and_once() {
    let key = active_key();
    let now = key.created_at;
    let erase_at = Some(now.plus(Period::days(7)));
    let waiting = key
        .revoked(RevocationReason::Retired, now, erase_at)
        .expect("active");
    for reason in [RevocationReason::Retired, RevocationReason::PolicyViolation] {
        assert!(waiting.revoked(reason, now, None).is_err());
    }
    // Where the backend has its own copy, the record waits for that to go.
    let compromised = waiting
        .revoked(RevocationReason::Compromised, now, Some(now))
        .expect("an escalation");
    assert!(
        compromised
            .revoked(RevocationReason::Compromised, now, None)
            .is_err()
    );
}

#[test]
fn only_an_active_key_changes_its_alias_and_every_live_one_its_policy() {
    let key = active_key();
    let pending = key
        .replaced_by(KeyId::generate(), key.created_at, Period::days(7))
        .expect("active");
    let alias = KeyUpdate {
        key_alias: Some(Some("other".parse().expect("valid"))),
        ..KeyUpdate::default()
    };
    let policy = KeyUpdate {
        access_policy: AccessPolicyChoice {
            max_usage_per_day: Some(7),
            ..AccessPolicyChoice::default()
        },
        ..KeyUpdate::default()
    };
    assert!(key.changed(alias.clone()).is_ok());
    assert!(matches!(
        pending.changed(alias),
        Err(KmsError::KeyInactive { .. })
    ));
    let changed = pending.changed(policy).expect("a live key");
    assert_eq!(changed.access_policy.max_usage_per_day, 7);
    assert_eq!(
        changed.access_policy.allowed_modules,
        key.access_policy.allowed_modules
    );
}

#[test]
fn an_active_key_protects_only_until_its_valid_until() {
    let key = active_key();
    let last = Timestamp::from_microseconds(key.valid_until.microseconds() - 1);
    assert!(key.require_protecting(last.expect("valid")).is_ok());
    assert!(matches!(
        key.require_protecting(key.valid_until),
        Err(KmsError::KeyInactive {
            key_state: KeyState::Active,
            reason: InactiveReason::Expired,
            ..
        })
    ));
    assert!(key.require_reading().is_ok());
}

#[test]
fn a_replaced_key_names_its_successor_when_it_refuses() {
    let successor = KeyId::generate();
    let key = active_key();
    let pending = key
        .replaced_by(successor, key.created_at, Period::days(7))
        .expect("an active key can be replaced");
    assert_eq!(
        pending.grace_until,
        Some(key.created_at.plus(Period::days(7)))
    );
    assert!(matches!(
        pending.require_protecting(key.created_at),
        Err(KmsError::KeyInactive { successor_key_id: Some(id), .. }) if id == successor
    ));
    assert!(pending.require_reading().is_ok());
}

#[test]
fn a_destroyed_key_reads_nothing() {
    let key = active_key();
    let destroyed = key
        .revoked(RevocationReason::Compromised, key.created_at, None)
        .expect("an active key can be revoked");
    assert!(matches!(
        destroyed.require_reading(),
        Err(KmsError::KeyRevoked)
    ));
    assert!(matches!(
        destroyed.require_protecting(key.created_at),
        Err(KmsError::KeyRevoked)
    ));
}
