//! What the clients know: what they asked, what was acknowledged, and what they
//! saw. The service is held to it after every crash.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::Random;

/// The state of a key that was acknowledged last, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Active,
    PendingRotation,
    Destroyed,
}

impl State {
    pub(super) fn named(name: &Value) -> Self {
        match name.as_str() {
            Some("active") => Self::Active,
            Some("pending_rotation") => Self::PendingRotation,
            Some("destroyed") => Self::Destroyed,
            other => panic!("no state of these keys: {other:?}"),
        }
    }
}

pub(super) struct KnownKey {
    pub(super) key_type: String,
    pub(super) public_key: Value,
    pub(super) state: State,
    /// Whether somebody has ever asked, with an approval, for its rotation.
    pub(super) rotation_asked: bool,
    /// Likewise for its revocation.
    pub(super) revocation_asked: bool,
}

impl KnownKey {
    /// Whether the key may be found in this state by whoever asked when that other one
    /// was acknowledged: in the same, or in one that somebody has asked for.
    pub(super) fn may_be(&self, state: State, acknowledged: State) -> bool {
        let was_asked_for = match state {
            State::Active => false,
            State::PendingRotation => self.rotation_asked,
            State::Destroyed => self.revocation_asked,
        };
        state == acknowledged || acknowledged < state && was_asked_for
    }
}

#[derive(Default)]
pub(super) struct KnownAnchor {
    pub(super) is_removed: bool,
    pub(super) removal_asked: bool,
}

/// A request that reaches an operation, and so leaves one receipt when it is answered.
pub(super) struct Asked {
    pub(super) client: usize,
    pub(super) about: About,
    /// What came back; `None` where nothing did, or that a dependency was away:
    /// it was done or not then.
    pub(super) answered: Option<Answered>,
}

/// What a request was about, in the words of its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    /// `kms_context.operation_type`.
    pub(super) operation: &'static str,
    /// `kms_context.key_id`; `None` for what does not exist before the answer.
    pub(super) subject: Option<String>,
}

pub(super) struct Answered {
    pub(super) request_id: String,
    /// What the receipt names: known now where the request made it.
    pub(super) subject: Option<String>,
    pub(super) receipt_id: Option<String>,
    pub(super) success: bool,
    pub(super) code: Option<String>,
}

/// A receipt whose id was answered.
pub(super) struct KnownReceipt {
    pub(super) receipt_id: String,
    /// Its very bytes, once somebody has read them.
    pub(super) text: Option<String>,
}

pub(super) struct Signed {
    pub(super) key_id: String,
    pub(super) data: Vec<u8>,
    pub(super) signature: Value,
}

pub(super) struct Sealed {
    pub(super) key_id: String,
    pub(super) plaintext: Vec<u8>,
    /// The answer of the encryption.
    pub(super) answer: Value,
}

/// How much was asked, over all rounds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) acknowledged: usize,
    pub(super) unanswered: usize,
    pub(super) unavailable: usize,
    pub(super) reads: usize,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) keys: BTreeMap<String, KnownKey>,
    /// The same keys' ids as they became known.
    pub(super) key_ids: Vec<String>,
    pub(super) anchors: BTreeMap<String, KnownAnchor>,
    /// What was asked since the last audit.
    pub(super) asked: Vec<Asked>,
    pub(super) receipts: Vec<KnownReceipt>,
    /// The first of `receipts` that no audit has read yet.
    pub(super) unread_receipts: usize,
    pub(super) signed: Vec<Signed>,
    pub(super) sealed: Vec<Sealed>,
    /// Signed checkpoints that clients saw since the last audit.
    pub(super) checkpoints: Vec<String>,
    pub(super) totals: Totals,
}

/// How many signatures and ciphertexts are remembered; others take their places.
const REMEMBERED: usize = 400;

impl Book {
    pub(super) fn learn_key(&mut self, key_id: &str, key_type: &str, public_key: &Value) {
        let key = KnownKey {
            key_type: key_type.to_owned(),
            public_key: public_key.clone(),
            state: State::Active,
            rotation_asked: false,
            revocation_asked: false,
        };
        // Somebody else may have found it in a list and changed it already.
        self.keys.entry(key_id.to_owned()).or_insert_with(|| {
            self.key_ids.push(key_id.to_owned());
            key
        });
    }

    pub(super) fn key(&mut self, key_id: &str) -> &mut KnownKey {
        self.keys.get_mut(key_id).expect("a known key")
    }

    /// The key has come at least so far.
    pub(super) fn advance(&mut self, key_id: &str, state: State) {
        let key = self.key(key_id);
        key.state = key.state.max(state);
    }

    /// A key that passes, mostly one of the youngest.
    pub(super) fn pick_key(
        &self,
        random: &mut Random,
        is_wanted: impl Fn(&KnownKey) -> bool,
    ) -> Option<String> {
        let first = match random.percent(85) {
            true => self.key_ids.len().saturating_sub(40),
            false => 0,
        };
        let wanted: Vec<&String> = self.key_ids[first..]
            .iter()
            .filter(|key_id| is_wanted(&self.keys[*key_id]))
            .collect();
        random.pick(&wanted).map(|key_id| (*key_id).clone())
    }

    pub(super) fn remember_signed(&mut self, random: &mut Random, signed: Signed) {
        remember(&mut self.signed, random, signed);
    }

    pub(super) fn remember_sealed(&mut self, random: &mut Random, sealed: Sealed) {
        remember(&mut self.sealed, random, sealed);
    }
}

fn remember<T>(known: &mut Vec<T>, random: &mut Random, new: T) {
    if known.len() < REMEMBERED {
        known.push(new);
    } else {
        let place = random.below(REMEMBERED);
        known[place] = new;
    }
}
