//! The service held against the model: keys, their numbers, the backend, the ledger.

use std::collections::{HashMap, HashSet};

use super::model::{ModelKey, State};
use super::world::World;
use super::*;
use crate::domain::key::KeyRecord;
use crate::domain::time::Timestamp;

impl World {
    /// Holds everything against the model: each key, their numbers, the backend.
    pub(super) async fn hold_against_the_model(&self) {
        let mut living = HashSet::new();
        let mut active = HashSet::new();
        let mut states = [0u64; KeyState::ALL.len()];
        for key in self.keys.values() {
            let record = self.record(key.key_id).await;
            assert_is(&record, key);
            states[record.key_state as usize] += 1;
            if key.state != State::Gone {
                living.insert(key.key_id);
            }
            if key.state == State::Active {
                assert!(active.insert(key.line_id), "two active keys in a line");
            }
        }
        assert_eq!(self.hsm.holds(), living, "no secret is lost or left over");
        let counts = self.service().key_counts();
        for state in KeyState::ALL {
            let number: u64 = KeyType::ALL
                .map(|kind| counts.get(kind, state))
                .iter()
                .sum();
            assert_eq!(number, states[state as usize], "{state}");
        }
        let store = self.store();
        let left = store.open_intents(self.clock.now(), 1).await;
        assert_eq!(left.expect("available"), [], "no intent is left over");
    }

    /// Holds the ledger against what was done and refused.
    pub(super) async fn hold_against_the_ledger(&self) {
        let store = self.store();
        let size = store.ledger_size();
        let mut told: HashMap<String, u64> = HashMap::new();
        let mut read = 0;
        while read < size {
            let leaves = store.read_leaves(read, 1_000).await.expect("available");
            read += leaves.len() as u64;
            for leaf in leaves {
                let receipt: serde_json::Value = serde_json::from_slice(&leaf).expect("JSON");
                let operation = receipt["operation"].as_str().expect("a text");
                let is_done = &receipt["kms_context"]["success"];
                *told.entry(format!("{operation} {is_done}")).or_default() += 1;
            }
        }
        assert_eq!(told, self.receipts);
    }
}

/// When the key says it is to be replaced, which must be near its end.
pub(super) fn due_of(record: &KeyRecord) -> Timestamp {
    let due = record.rotate_at.expect("active");
    let life = record.valid_until.microseconds() - record.created_at.microseconds();
    let lead = record.valid_until.microseconds() - due.microseconds();
    let longest = (life / 10).min(86_400_000_000);
    assert!(
        (longest / 2..=longest).contains(&lead),
        "{lead} of {longest}"
    );
    due
}

/// Holds one key against the model.
#[track_caller]
pub(super) fn assert_is(record: &KeyRecord, key: &ModelKey) {
    let state = match key.state {
        State::Active => KeyState::Active,
        State::Pending { .. } => KeyState::PendingRotation,
        State::Archived => KeyState::Archived,
        State::Waiting { .. } | State::Gone => KeyState::Destroyed,
    };
    assert_eq!(record.key_state, state, "{key:?}");
    let erase_at = match key.state {
        State::Waiting { until } => Some(until),
        _ => None,
    };
    assert_eq!(record.erase_at, erase_at, "{key:?}");
    if let State::Pending { until } = key.state {
        assert_eq!(record.grace_until, Some(until), "{key:?}");
    }
    let due = (key.state == State::Active).then_some(key.due_at);
    assert_eq!(record.rotate_at, due, "{key:?}");
    assert_eq!(record.valid_until, key.end(), "{key:?}");
    assert_eq!(record.line_id, key.line_id);
    assert_eq!(record.rotation_count, key.rotations);
    assert_eq!(record.access_policy.max_usage_per_day, key.limit);
    let alias = record.key_alias.as_ref().map(|alias| alias.as_str());
    assert_eq!(alias, key.alias.as_deref());
    let is_destroyed = state == KeyState::Destroyed;
    assert_eq!(record.revoked_at.is_some(), is_destroyed);
    assert_eq!(record.revocation_reason.is_some(), is_destroyed);
}
