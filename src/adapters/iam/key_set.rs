//! A key set (RFC 7517 §5), read strictly: what is half right is refused whole,
//! so that nobody believes a key to be in force that is not.

use std::collections::HashMap;

use serde_json::Value;

use super::jwk::{self, Entry, VerifyingKey};
use super::strict_json::{NotStrictJson, parse_object};

/// The largest key set, in bytes.
pub(super) const LARGEST_SET: usize = 1024 * 1024;

/// The most entries of a key set.
const MOST_KEYS: usize = 1_000;

/// Public keys by their names.
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
    by_kid: HashMap<String, usize>,
    notes: Vec<String>,
}

/// Why a text is no key set. Names places and never values.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetFault {
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it is {0}")]
    NotJson(#[from] NotStrictJson),
    #[error("it has no list of keys under \"keys\"")]
    NoKeys,
    #[error("it has more than 1000 keys")]
    TooMany,
    #[error("key number {place} is refused: {what}")]
    Key { place: usize, what: &'static str },
    #[error("keys number {one} and {other} have the same kid")]
    SameKid { one: usize, other: usize },
    #[error("it has no key that tokens can be checked with (RSA, or OKP with Ed25519)")]
    Empty,
}

impl KeySet {
    /// Reads a key set.
    ///
    /// # Errors
    /// [`KeySetFault`]: malformed or private keys, keys of one name, no key at all.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeySetFault> {
        if bytes.len() > LARGEST_SET {
            return Err(KeySetFault::TooLarge);
        }
        let mut members = parse_object(bytes)?;
        let Some(Value::Array(entries)) = members.remove("keys") else {
            return Err(KeySetFault::NoKeys);
        };
        if entries.len() > MOST_KEYS {
            return Err(KeySetFault::TooMany);
        }
        let mut set = Self {
            keys: Vec::new(),
            by_kid: HashMap::new(),
            notes: Vec::new(),
        };
        let mut places = Vec::new();
        for (place, entry) in entries.iter().enumerate().map(|(i, entry)| (i + 1, entry)) {
            let read = entry
                .as_object()
                .ok_or("it is not a JSON object")
                .and_then(jwk::read);
            match read {
                Ok(Entry::Key(key)) => {
                    let index = set.keys.len();
                    if let Some(one) = set.by_kid.insert(key.kid().to_owned(), index) {
                        return Err(KeySetFault::SameKid {
                            one: places[one],
                            other: place,
                        });
                    }
                    places.push(place);
                    set.keys.push(*key);
                }
                Ok(Entry::Ignored(why)) => {
                    set.notes
                        .push(format!("key number {place} is ignored: {why}"));
                }
                Err(what) => return Err(KeySetFault::Key { place, what }),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetFault::Empty);
        }
        Ok(set)
    }

    /// The key of a token: the one that its `kid` names; without a `kid` the only
    /// one there is. Never one that the token itself brings along.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&VerifyingKey> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => self.by_kid.get(kid).map(|index| &keys[*index]),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many keys say nothing of whose they are.
    pub(super) fn without_owner(&self) -> usize {
        self.keys.iter().filter(|key| key.owner().is_none()).count()
    }

    /// What an operator may want to know of it, one line each.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn x(byte: u8) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([byte; 32])
    }

    fn okp(kid: &str, byte: u8) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x(byte), "kid": kid })
    }

    fn parse(keys: Value) -> Result<KeySet, KeySetFault> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn fault(keys: Value) -> String {
        parse(keys).err().expect("a fault").to_string()
    }

    #[test]
    fn a_key_is_found_by_its_kid_and_by_no_other_text() {
        let set = parse(json!([okp("a", 1), okp("b", 2)])).expect("a set");
        assert_eq!(set.find(Some("b")).map(VerifyingKey::kid), Some("b"));
        for other in ["", "A", "a ", "c"] {
            assert!(set.find(Some(other)).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_token_without_a_kid_has_a_key_only_where_there_is_one_key() {
        let one = parse(json!([okp("a", 1)])).expect("a set");
        assert!(one.find(None).is_some());
        let two = parse(json!([okp("a", 1), okp("b", 2)])).expect("a set");
        assert!(two.find(None).is_none());
    }

    #[test]
    fn what_is_of_no_use_is_ignored_and_told_by_its_place() {
        let oct = json!({ "kty": "oct", "k": "Y2FuYXJ5", "kid": "canary" });
        let set = parse(json!([oct, okp("a", 1)])).expect("a set");
        assert_eq!(set.len(), 1);
        assert_eq!(set.notes().len(), 1);
        assert!(
            set.notes()[0].starts_with("key number 1"),
            "{:?}",
            set.notes()
        );
        assert!(!set.notes()[0].contains("canary"));
        assert!(set.find(Some("canary")).is_none());
    }

    #[test]
    fn a_set_that_is_half_right_is_refused_whole() {
        let with_private = json!([okp("a", 1), { "kty": "OKP", "crv": "Ed25519", "d": "AA" }]);
        assert!(fault(with_private).contains("number 2"));
        let same = json!([okp("a", 1), { "kty": "oct" }, okp("a", 2)]);
        assert!(fault(same).contains("1 and 3"));
        let unnamed = json!({ "kty": "OKP", "crv": "Ed25519", "x": x(1) });
        assert!(fault(json!([unnamed, unnamed])).contains("same kid"));
        assert!(fault(json!([okp("a", 1), "a"])).contains("JSON object"));
    }

    #[test]
    fn a_set_without_a_usable_key_is_no_set() {
        assert!(matches!(parse(json!([])), Err(KeySetFault::Empty)));
        let oct = json!([{ "kty": "oct", "k": "AA" }]);
        assert!(matches!(parse(oct), Err(KeySetFault::Empty)));
        for text in [r#"{"keys":{}}"#, "{}", r#"{"Keys":[]}"#] {
            let parsed = KeySet::parse(text.as_bytes());
            assert!(matches!(parsed, Err(KeySetFault::NoKeys)), "{text}");
        }
    }

    #[test]
    fn a_set_is_bounded() {
        let many: Vec<Value> = (0..=MOST_KEYS).map(|_| json!({ "kty": "oct" })).collect();
        assert!(matches!(parse(many.into()), Err(KeySetFault::TooMany)));
        let large = vec![b' '; LARGEST_SET + 1];
        assert!(matches!(KeySet::parse(&large), Err(KeySetFault::TooLarge)));
    }

    #[test]
    fn two_members_of_one_name_are_refused() {
        let text = format!(r#"{{"keys":[],"keys":[{}]}}"#, okp("a", 1));
        assert!(matches!(
            KeySet::parse(text.as_bytes()),
            Err(KeySetFault::NotJson(_))
        ));
    }
}
