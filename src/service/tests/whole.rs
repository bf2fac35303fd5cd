//! Whether all that a store holds belongs together: nothing without its receipt,
//! and no receipt without what it attests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::ports::data_plane::{AnchorQuery, KeyQuery};

/// All that a store holds of the usual scope, in the forms that receipts use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The states of the keys, and their predecessors.
    keys: BTreeMap<String, (KeyState, Option<String>)>,
    /// The counted uses of the keys that were used.
    uses: BTreeMap<String, u64>,
    pub(super) anchors: BTreeSet<String>,
    /// Those of the tokens asked about that are spent.
    spent: BTreeSet<String>,
    /// How the backend finds the keys that are not destroyed.
    handles: BTreeSet<Vec<u8>>,
    pub(super) receipts: Vec<Value>,
}

impl Bench {
    /// All that the store holds.
    pub(super) async fn all_kept(&self, tokens: &[&str]) -> Kept {
        let store = &self.store.store;
        let query = KeyQuery {
            scope: scope(),
            key_state: None,
            key_type: None,
            key_alias: None,
            after: None,
            limit: 1_000,
        };
        let (mut keys, mut uses) = (BTreeMap::new(), BTreeMap::new());
        let mut handles = BTreeSet::new();
        for record in store.list_keys(query).await.expect("memory").keys {
            let key_id = record.key_id;
            let counter = store.usage_counter(key_id).await.expect("memory");
            let used = counter.count().used;
            if used > 0 {
                uses.insert(key_id.to_string(), used);
            }
            let key = store.find_key(&scope(), &KeyRef::Id(key_id)).await;
            let key = key.expect("memory").expect("listed");
            handles.extend(key.handle.iter().map(|one| one.as_bytes().to_vec()));
            let predecessor = record.predecessor_key_id.map(|id| id.to_string());
            keys.insert(key_id.to_string(), (record.key_state, predecessor));
        }
        let query = AnchorQuery {
            scope: scope(),
            after: None,
            limit: 1_000,
        };
        let anchors = store.list_trust_anchors(query).await.expect("memory");
        let anchors = anchors.anchors.iter();
        let mut spent = BTreeSet::new();
        for token in tokens {
            if store.is_grant_spent(token).await.expect("memory") {
                spent.insert((*token).to_owned());
            }
        }
        let leaves = store.read_leaves(0, usize::MAX).await.expect("memory");
        let read = |leaf: &Vec<u8>| serde_json::from_slice(leaf).expect("JSON");
        Kept {
            keys,
            uses,
            anchors: anchors.map(|one| one.trust_anchor_id.to_string()).collect(),
            spent,
            handles,
            receipts: leaves.iter().map(read).collect(),
        }
    }
}

impl Kept {
    /// Checks that the receipts, told one after the other, lead to exactly this.
    #[track_caller]
    pub(super) fn assert_whole(&self, what: &str) {
        let mut told = Self {
            keys: BTreeMap::new(),
            uses: BTreeMap::new(),
            anchors: BTreeSet::new(),
            spent: BTreeSet::new(),
            handles: self.handles.clone(),
            receipts: self.receipts.clone(),
        };
        for receipt in &self.receipts {
            told.tell(&receipt["kms_context"], self);
        }
        assert_eq!(told, *self, "{what}");
    }

    fn tell(&mut self, context: &Value, kept: &Self) {
        let id = context["key_id"].as_str().unwrap_or_default().to_owned();
        let code = context["error_code"].as_str();
        let is_done = code.is_none();
        match context["operation_type"].as_str().expect("a text") {
            "generate" if is_done => {
                self.keys.insert(id, (KeyState::Active, None));
            }
            "rotate" if is_done => {
                let successors = kept.keys.iter();
                let successor = successors
                    .filter(|(_, (_, predecessor))| predecessor.as_ref() == Some(&id))
                    .map(|(successor, _)| successor.clone());
                let successor: Vec<String> = successor.collect();
                assert_eq!(successor.len(), 1, "one successor: {context}");
                let new = (KeyState::Active, Some(id.clone()));
                self.keys.insert(successor[0].clone(), new);
                self.keys.get_mut(&id).expect("made").0 = KeyState::PendingRotation;
            }
            "archive" | "restore" if is_done => {
                self.keys.get_mut(&id).expect("made").0 = KeyState::Archived;
            }
            "revoke" if is_done => {
                self.keys.get_mut(&id).expect("made").0 = KeyState::Destroyed;
            }
            "sign" | "verify" | "encrypt" if is_done => *self.uses.entry(id).or_default() += 1,
            "decrypt" if is_done || code == Some("INVALID_REQUEST") => {
                *self.uses.entry(id).or_default() += 1;
            }
            "trust_anchor_add" if is_done => assert!(self.anchors.insert(id)),
            "trust_anchor_remove" if is_done => assert!(self.anchors.remove(&id)),
            _ => {}
        }
        for approval in context["approvals"].as_array().into_iter().flatten() {
            let token = approval["jti"].as_str().expect("a text").to_owned();
            assert!(self.spent.insert(token), "spent twice: {context}");
        }
    }

    /// Checks that no key of the store has lost its secret in the backend.
    #[track_caller]
    pub(super) fn assert_usable(&self, bench: &Bench, what: &str) {
        let holds = bench.hsm.holds();
        assert!(
            self.handles.is_subset(&holds),
            "a key was thrown away: {what}"
        );
    }

    /// Checks that the backend has the keys of the store and no others.
    #[track_caller]
    pub(super) fn assert_no_orphan(&self, bench: &Bench, what: &str) {
        assert_eq!(bench.hsm.holds(), self.handles, "{what}");
    }
}
