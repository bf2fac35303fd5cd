//! What a key may be used for.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::algorithm::KeyType;
use super::wire::{WireField, text_form};

/// One thing a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyUsage {
    /// Making signatures.
    Sign,
    /// Checking signatures.
    Verify,
    /// Encrypting.
    Encrypt,
    /// Decrypting.
    Decrypt,
}

impl KeyUsage {
    /// Every usage.
    pub const ALL: [Self; 4] = [Self::Sign, Self::Verify, Self::Encrypt, Self::Decrypt];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }

    /// Whether a key of this type can serve this usage at all.
    pub const fn fits(self, key_type: KeyType) -> bool {
        match self {
            Self::Sign | Self::Verify => key_type.is_asymmetric(),
            Self::Encrypt | Self::Decrypt => !key_type.is_asymmetric(),
        }
    }
}

text_form!(KeyUsage, "one of sign, verify, encrypt, decrypt");

/// What a key may be used for: one or more of [`KeyUsage`]. On the wire a list;
/// one string is read too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyUsageSet(u8);

impl KeyUsageSet {
    /// A set of these usages, or `None` for no usage at all.
    pub fn of(usages: impl IntoIterator<Item = KeyUsage>) -> Option<Self> {
        let bits = usages
            .into_iter()
            .fold(0u8, |bits, usage| bits | 1 << usage as u8);
        (bits != 0).then_some(Self(bits))
    }

    /// Whether the usage is in the set.
    pub const fn contains(self, usage: KeyUsage) -> bool {
        self.0 & (1 << usage as u8) != 0
    }

    /// The usages, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = KeyUsage> {
        KeyUsage::ALL
            .into_iter()
            .filter(move |usage| self.contains(*usage))
    }
}

impl fmt::Debug for KeyUsageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl WireField for KeyUsageSet {
    const EXPECTED: &'static str =
        "one or more of sign, verify (RSA-2048, Ed25519) or encrypt, decrypt (AES-256)";
}

impl Serialize for KeyUsageSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for usage in self.iter() {
            list.serialize_element(usage.as_str())?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for KeyUsageSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = KeyUsageSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(KeyUsageSet::EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let usage = text.parse().map_err(E::custom)?;
                KeyUsageSet::of([usage]).ok_or_else(|| E::custom(KeyUsageSet::EXPECTED))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut usages = Vec::new();
                while let Some(usage) = list.next_element::<KeyUsage>()? {
                    usages.push(usage);
                }
                KeyUsageSet::of(usages)
                    .ok_or_else(|| serde::de::Error::custom(KeyUsageSet::EXPECTED))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_usage_reads_a_list_or_one_string_and_nothing_empty() {
        let one: KeyUsageSet = serde_json::from_str("\"sign\"").expect("one usage");
        let list: KeyUsageSet = serde_json::from_str("[\"sign\",\"sign\"]").expect("a list");
        assert_eq!(one, list);
        assert!(one.contains(KeyUsage::Sign) && !one.contains(KeyUsage::Verify));
        for bad in ["[]", "\"\"", "[\"wrap\"]", "7", "null", "[[\"sign\"]]"] {
            assert!(serde_json::from_str::<KeyUsageSet>(bad).is_err(), "{bad}");
        }
    }
}
