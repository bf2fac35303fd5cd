//! A copy of the ledger that an auditor keeps: every leaf, the tree over them by
//! another implementation, and what follows from reading them in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use reqwest::Method;
use serde_json::Value;

use super::book::{About, State};
use crate::support::{Answer, KmsProcess, text};

/// Leaves of a whole bundle (C2SP tlog-tiles).
const TILE_WIDTH: usize = 256;

/// What one leaf says.
pub(super) struct Entry {
    pub(super) receipt_id: String,
    pub(super) request_id: String,
    pub(super) about: About,
    pub(super) success: bool,
    pub(super) code: Option<String>,
}

impl Entry {
    fn read(leaf: &str) -> (Self, String) {
        let receipt: Value = serde_json::from_str(leaf).expect("JSON");
        let context = &receipt["kms_context"];
        let operation = match text(&context["operation_type"]) {
            "generate" => "generate",
            "rotate" => "rotate",
            "revoke" => "revoke",
            "sign" => "sign",
            "verify" => "verify",
            "encrypt" => "encrypt",
            "decrypt" => "decrypt",
            "trust_anchor_add" => "trust_anchor_add",
            "trust_anchor_remove" => "trust_anchor_remove",
            other => panic!("nobody asked for {other}: {leaf}"),
        };
        let entry = Self {
            receipt_id: text(&receipt["receipt_id"]).to_owned(),
            request_id: text(&receipt["request_id"]).to_owned(),
            about: About {
                operation,
                subject: context["key_id"].as_str().map(str::to_owned),
            },
            success: context["success"] == true,
            code: context["error_code"].as_str().map(str::to_owned),
        };
        let day = text(&receipt["ts"])[..10].to_owned();
        (entry, day)
    }

    /// Whether it attests a counted use: one that was done, a verification that found
    /// a bad signature, and a ciphertext that did not open.
    fn is_counted_use(&self) -> bool {
        match self.about.operation {
            "sign" | "encrypt" | "verify" => self.code.is_none(),
            "decrypt" => self.code.is_none() || self.code.as_deref() == Some("INVALID_REQUEST"),
            _ => false,
        }
    }
}

/// What the receipts say of a key.
pub(super) struct ReplayedKey {
    pub(super) state: State,
    /// Its making has a receipt of its own; a successor's is its predecessor's rotation.
    pub(super) was_generated: bool,
    /// Counted uses.
    pub(super) uses: u64,
    pub(super) encryptions: u64,
}

#[derive(Default)]
pub(super) struct LedgerCopy {
    pub(super) leaves: Vec<String>,
    /// The places of receipts by their ids.
    pub(super) places: HashMap<String, usize>,
    /// The places of receipts by their requests.
    requests: HashMap<String, usize>,
    pub(super) keys: BTreeMap<String, ReplayedKey>,
    /// The keys that were replaced.
    pub(super) rotated: BTreeSet<String>,
    /// The anchors that are there.
    pub(super) anchors: BTreeSet<String>,
    /// The UTC days of the receipts.
    pub(super) days: BTreeSet<String>,
    tree: MemoryBackedTree<sha2::Sha256, Vec<u8>>,
}

impl LedgerCopy {
    /// Reads what is new up to this size, and answers it.
    pub(super) async fn read_on(&mut self, kms: &KmsProcess, size: u64) -> Vec<Entry> {
        let size = usize::try_from(size).expect("few");
        assert!(self.leaves.len() <= size, "the ledger shrank to {size}");
        let mut new = Vec::new();
        while self.leaves.len() < size {
            let tile = self.leaves.len() / TILE_WIDTH;
            let first = tile * TILE_WIDTH;
            let bundle = bundle(kms, tile, (size - first).min(TILE_WIDTH)).await;
            for (place, leaf) in (first..).zip(bundle) {
                match self.leaves.get(place) {
                    Some(known) => assert_eq!(*known, leaf, "the leaf at {place} has changed"),
                    None => new.push(self.append(leaf)),
                }
            }
        }
        new
    }

    /// The root of the tree over the copy.
    pub(super) fn root(&self) -> Vec<u8> {
        self.tree.root().as_bytes().to_vec()
    }

    fn append(&mut self, leaf: String) -> Entry {
        let place = self.leaves.len();
        let (entry, day) = Entry::read(&leaf);
        let twice = self.places.insert(entry.receipt_id.clone(), place);
        assert!(
            twice.is_none(),
            "a receipt stands at {twice:?} and {place}: {leaf}"
        );
        let twice = self.requests.insert(entry.request_id.clone(), place);
        assert!(
            twice.is_none(),
            "a request has receipts at {twice:?} and {place}: {leaf}"
        );
        self.tree.push(leaf.as_bytes().to_vec());
        self.days.insert(day);
        self.replay(&entry, &leaf);
        self.leaves.push(leaf);
        entry
    }

    /// Holds a receipt to the life that its key had up to its place.
    fn replay(&mut self, entry: &Entry, leaf: &str) {
        let Some(subject) = &entry.about.subject else {
            return;
        };
        let operation = entry.about.operation;
        match operation {
            "trust_anchor_add" if entry.success => {
                assert!(self.anchors.insert(subject.clone()), "{leaf}");
                return;
            }
            "trust_anchor_remove" if entry.success => {
                assert!(self.anchors.remove(subject), "{leaf}");
                return;
            }
            "generate" if entry.success => {
                assert!(!self.keys.contains_key(subject), "a key made twice: {leaf}");
                self.keys.insert(subject.clone(), ReplayedKey::made(true));
                return;
            }
            "generate" | "trust_anchor_add" | "trust_anchor_remove" => return,
            _ => {}
        }
        if entry.code.as_deref() == Some("KEY_NOT_FOUND") {
            return;
        }
        let key = self.keys.entry(subject.clone());
        let key = key.or_insert_with(|| ReplayedKey::made(false));
        match (operation, entry.code.as_deref()) {
            ("rotate", None) => {
                assert_eq!(key.state, State::Active, "{leaf}");
                key.state = State::PendingRotation;
                self.rotated.insert(subject.clone());
            }
            ("revoke", None) => {
                assert_ne!(key.state, State::Destroyed, "{leaf}");
                key.state = State::Destroyed;
            }
            ("sign" | "encrypt", None) => assert_eq!(key.state, State::Active, "{leaf}"),
            ("verify" | "decrypt", None) => assert_ne!(key.state, State::Destroyed, "{leaf}"),
            (_, Some("KEY_REVOKED")) => assert_eq!(key.state, State::Destroyed, "{leaf}"),
            (_, Some("KEY_INACTIVE")) => assert_ne!(key.state, State::Active, "{leaf}"),
            _ => {}
        }
        if entry.is_counted_use() {
            key.uses += 1;
            key.encryptions += u64::from(operation == "encrypt");
        }
    }
}

impl ReplayedKey {
    fn made(was_generated: bool) -> Self {
        Self {
            state: State::Active,
            was_generated,
            uses: 0,
            encryptions: 0,
        }
    }
}

/// The leaves of a bundle of this width.
async fn bundle(kms: &KmsProcess, tile: usize, width: usize) -> Vec<String> {
    let mut path = format!("{:03}", tile % 1000);
    let mut rest = tile / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE_WIDTH {
        path = format!("{path}.p/{width}");
    }
    let request = kms.request(Method::GET, &format!("/kms/v1/ledger/tile/entries/{path}"));
    let answer = Answer::of(request.header("X-Module-Id", "M27")).await;
    assert_eq!(answer.status, 200, "{path}");
    let mut rest = &answer.bytes[..];
    let mut leaves = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (leaf, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        leaves.push(String::from_utf8(leaf.to_vec()).expect("text"));
        rest = behind;
    }
    assert_eq!(leaves.len(), width, "{path}");
    leaves
}
