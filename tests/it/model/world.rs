//! What the service should be: keys, anchors, and how it has to answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, text};

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Sign,
    Verify,
    Encrypt,
    Decrypt,
}

impl Use {
    pub(super) const ALL: [Self; 4] = [Self::Sign, Self::Verify, Self::Encrypt, Self::Decrypt];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Replaced,
    Destroyed,
}

/// Who asks: by certificate, each in the usual environment and plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A module of the usual tenant that may use its keys.
    Module,
    /// One that no key's policy names but those of its own making.
    Stranger,
    /// A module of another tenant, which asks in the usual tenant's scope.
    OtherTenant,
}

impl Who {
    pub(super) fn tenant(self) -> &'static str {
        match self {
            Self::Module | Self::Stranger => "tenant123",
            Self::OtherTenant => "other",
        }
    }

    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Module | Self::OtherTenant => "M21",
            Self::Stranger => "M90",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) uses: Vec<Use>,
    /// Whose module may use it beside the usual ones.
    pub(super) maker: Who,
    pub(super) alias: Option<String>,
    pub(super) state: State,
    /// Uses a day.
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) requires_approval: bool,
    /// A signature of [`super::requests::DATA`].
    pub(super) signature: Option<Value>,
    /// The answer of an encryption of the same.
    pub(super) sealed: Option<Value>,
}

/// What a receipt says came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: bool,
    pub(super) code: Option<&'static str>,
}

impl Outcome {
    pub(super) const DONE: Self = Self {
        success: true,
        code: None,
    };

    pub(super) const BAD_SIGNATURE: Self = Self {
        success: false,
        code: None,
    };

    pub(super) fn refused(code: &'static str) -> Self {
        Self {
            success: false,
            code: Some(code),
        }
    }
}

/// How a key is to be used.
pub(super) struct HowUsed {
    pub(super) who: Who,
    pub(super) with: Use,
    /// With an algorithm of another type of key.
    pub(super) wrong_algorithm: bool,
    pub(super) is_approved: bool,
    /// With a signature or ciphertext that is the key's.
    pub(super) is_good: bool,
}

impl Key {
    /// What has to come of a use: the first rule that it breaks.
    pub(super) fn judge(&self, how: &HowUsed) -> Outcome {
        let protects = matches!(how.with, Use::Sign | Use::Encrypt);
        let code = if how.who == Who::OtherTenant {
            "UNAUTHORIZED"
        } else if self.state == State::Destroyed {
            "KEY_REVOKED"
        } else if self.state == State::Replaced && protects {
            "KEY_INACTIVE"
        } else if !self.uses.contains(&how.with)
            || how.who == Who::Stranger && self.maker != Who::Stranger
        {
            "POLICY_VIOLATION"
        } else if how.wrong_algorithm {
            "INVALID_REQUEST"
        } else if self.requires_approval && !how.is_approved {
            "UNAUTHORIZED"
        } else if self.used >= self.limit {
            "RATE_LIMITED"
        } else {
            return match how.with {
                Use::Verify if !how.is_good => Outcome::BAD_SIGNATURE,
                Use::Decrypt if !how.is_good => Outcome::refused("INVALID_REQUEST"),
                _ => Outcome::DONE,
            };
        };
        Outcome::refused(code)
    }
}

/// What a success changes.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Nothing,
    /// A key like this, but for the id.
    Makes(Key),
    Replaces(usize),
    Destroys(usize),
    Uses(usize, Use),
    AddsAnchor,
    RemovesAnchor(String),
}

impl Effect {
    /// Of two that succeeded in one crowd, the one with the lower rank was possible
    /// before the other: a key is replaced before it is destroyed, and its alias is
    /// free afterwards.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Nothing | Self::Uses(..) | Self::AddsAnchor | Self::RemovesAnchor(_) => 0,
            Self::Replaces(_) => 1,
            Self::Destroys(_) => 2,
            Self::Makes(_) => 3,
        }
    }
}

#[derive(Default)]
pub(super) struct World {
    pub(super) keys: Vec<Key>,
    pub(super) anchors: BTreeSet<String>,
}

impl World {
    /// The active key that bears this alias.
    pub(super) fn bearer(&self, alias: &str) -> Option<usize> {
        self.keys
            .iter()
            .position(|key| key.state == State::Active && key.alias.as_deref() == Some(alias))
    }

    /// Takes in what an answer says that was done; it must have been possible.
    pub(super) fn follow(&mut self, effect: &Effect, answer: &Answer) {
        let is_done = answer.status.is_success();
        match effect {
            Effect::Uses(place, with) => {
                let is_bad_tag =
                    *with == Use::Decrypt && answer.body["error"]["code"] == "INVALID_REQUEST";
                let key = &mut self.keys[*place];
                key.used += u64::from(is_done || is_bad_tag);
                assert!(key.used <= key.limit, "one use too many: {key:?}");
                match with {
                    Use::Sign if is_done => key.signature = Some(answer.body["signature"].clone()),
                    Use::Encrypt if is_done => key.sealed = Some(answer.body.clone()),
                    _ => {}
                }
            }
            _ if !is_done => {}
            Effect::Nothing => {}
            Effect::Makes(key) => {
                let alias = key.alias.as_deref();
                assert!(
                    alias.is_none_or(|alias| self.bearer(alias).is_none()),
                    "{key:?}"
                );
                let id = text(&answer.body["key_id"]).to_owned();
                self.keys.push(Key { id, ..key.clone() });
            }
            Effect::Replaces(place) => {
                let old = &mut self.keys[*place];
                assert_eq!(old.state, State::Active, "replaced twice: {old:?}");
                old.state = State::Replaced;
                let new = Key {
                    id: text(&answer.body["new_key_id"]).to_owned(),
                    state: State::Active,
                    used: 0,
                    signature: None,
                    sealed: None,
                    ..old.clone()
                };
                self.keys.push(new);
            }
            Effect::Destroys(place) => {
                let key = &mut self.keys[*place];
                assert_ne!(key.state, State::Destroyed, "destroyed twice: {key:?}");
                key.state = State::Destroyed;
            }
            Effect::AddsAnchor => {
                let id = text(&answer.body["trust_anchor_id"]).to_owned();
                assert!(self.anchors.insert(id));
            }
            Effect::RemovesAnchor(id) => assert!(self.anchors.remove(id), "removed twice: {id}"),
        }
    }

    /// The keys and anchors as the service lists them.
    pub(super) fn listing(&self) -> Value {
        let mut keys: Vec<Value> = self
            .keys
            .iter()
            .map(|key| {
                let state = match key.state {
                    State::Active => "active",
                    State::Replaced => "pending_rotation",
                    State::Destroyed => "destroyed",
                };
                json!([key.id, state])
            })
            .collect();
        keys.sort_by_key(Value::to_string);
        json!({ "keys": keys, "anchors": self.anchors })
    }
}
