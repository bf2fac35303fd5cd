//! Batches: many things to be done with one key, and what came of each.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::{ApprovalTokenField, NonceField};
use super::requests::approvable;
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, SigningAlgorithm};
use crate::domain::batch::{Batch, LARGEST_BATCH};
use crate::domain::binary::Base64Bytes;
use crate::domain::error::{FieldFault, FieldProblem};
use crate::domain::ids::{KeyId, KeyRef, ReceiptId};
use crate::domain::wire::WireField;
use crate::http::error::FailureBody;
use crate::http::fields::{WireObject, below};
use crate::http::openapi::answer_object;
use crate::http::wire_object::wire_object;

wire_object! {
    /// `POST /kms/v1/sign/batch`
    scoped SignBatchBody {
        /// With which key.
        key_id: KeyRef,
        /// What is to be signed.
        items: ItemList<SignItem>,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word, for all of it.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// One message to be signed.
    SignItem {
        /// The caller's own name for it.
        reference: Option<Reference>,
        /// The message.
        data: Base64Bytes,
    }
}

wire_object! {
    /// `POST /kms/v1/verify/batch`
    scoped VerifyBatchBody {
        /// With which key.
        key_id: KeyRef,
        /// What is to be verified.
        items: ItemList<VerifyItem>,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word, for all of it.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// One signature to be verified.
    VerifyItem {
        /// The caller's own name for it.
        reference: Option<Reference>,
        /// The message.
        data: Base64Bytes,
        /// The signature.
        signature: Base64Bytes,
    }
}

wire_object! {
    /// `POST /kms/v1/encrypt/batch`
    scoped EncryptBatchBody {
        /// With which key.
        key_id: KeyRef,
        /// What is to be encrypted.
        items: ItemList<EncryptItem>,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// A second person's word, for all of it.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// One message to be encrypted.
    EncryptItem {
        /// The caller's own name for it.
        reference: Option<Reference>,
        /// The message.
        plaintext: Base64Bytes,
        /// What is authenticated beside it.
        aad: Option<Base64Bytes>,
    }
}

wire_object! {
    /// `POST /kms/v1/decrypt/batch`
    scoped DecryptBatchBody {
        /// With which key.
        key_id: KeyRef,
        /// What is to be decrypted.
        items: ItemList<DecryptItem>,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// A second person's word, for all of it.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// One ciphertext to be decrypted.
    DecryptItem {
        /// The caller's own name for it.
        reference: Option<Reference>,
        /// The ciphertext with its tag at the end.
        ciphertext: Base64Bytes,
        /// The nonce that the encryption answered.
        iv: NonceField,
        /// What was authenticated beside it.
        aad: Option<Base64Bytes>,
    }
}

approvable!(
    SignBatchBody,
    VerifyBatchBody,
    EncryptBatchBody,
    DecryptBatchBody
);

/// The items of a batch.
pub(crate) struct ItemList<I>(pub(crate) Batch<I>);

impl<I: WireObject> WireField for ItemList<I> {
    const EXPECTED: &'static str = "a list of 1 to 1000 objects";

    fn faults_inside(value: &serde_json::Value) -> Vec<FieldFault> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if items.len() > LARGEST_BATCH {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for (place, item) in items.iter().enumerate() {
            match item.as_object() {
                Some(item) => faults.extend(below(&format!("[{place}]."), I::faults(item))),
                None => faults.push(FieldFault {
                    field: format!("[{place}]").into(),
                    problem: FieldProblem::Invalid,
                    expected: "an object".into(),
                }),
            }
        }
        faults
    }
}

impl<'de, I: Deserialize<'de>> Deserialize<'de> for ItemList<I> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<I>(PhantomData<I>);

        impl<'de, I: Deserialize<'de>> Visitor<'de> for InOrder<I> {
            type Value = ItemList<I>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of 1 to 1000 objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ItemList<I>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    // What is too long is not read to its end.
                    if items.len() == LARGEST_BATCH {
                        return Err(serde::de::Error::invalid_length(LARGEST_BATCH + 1, &self));
                    }
                    items.push(item);
                }
                let length = items.len();
                Batch::new(items)
                    .map(ItemList)
                    .ok_or_else(|| serde::de::Error::invalid_length(length, &self))
            }
        }

        deserializer.deserialize_seq(InOrder(PhantomData))
    }
}

/// What a caller calls an item, to find its result by: given back and not kept.
pub(crate) struct Reference(String);

impl Reference {
    pub(super) const MOST_CHARACTERS: usize = 128;

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl WireField for Reference {
    const EXPECTED: &'static str = "at most 128 characters, none of them a control character";
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_short = text.chars().count() <= Self::MOST_CHARACTERS;
        if is_short && !text.chars().any(char::is_control) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom(Self::EXPECTED))
        }
    }
}

/// 200 of a batch.
#[derive(Serialize)]
pub(crate) struct BatchAnswer<T> {
    pub(crate) key_id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) results: Vec<ItemAnswer<T>>,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
}

/// What came of one item.
#[derive(Serialize)]
pub(crate) struct ItemAnswer<T> {
    pub(crate) reference: Option<String>,
    #[serde(flatten)]
    pub(crate) outcome: ItemOutcome<T>,
    pub(crate) receipt_id: ReceiptId,
}

/// Its result, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ItemOutcome<T> {
    /// What the single request answers.
    Done(T),
    /// What stands in the single request's envelope, but for the request's id.
    Failed {
        /// The failure.
        error: FailureBody,
    },
}

answer_object! {
    /// A signature.
    SignedItem {
        /// The signature.
        pub(crate) signature: String => Base64Bytes,
    }
}

answer_object! {
    /// What a signature turned out to be.
    VerifiedItem {
        /// Whether the signature is good.
        pub(crate) valid: bool,
        /// The same as a word.
        pub(crate) status: &'static str => Verdict,
    }
}

answer_object! {
    /// A ciphertext.
    EncryptedItem {
        /// The ciphertext with its tag at the end.
        pub(crate) ciphertext: String => Base64Bytes,
        /// The nonce that it was encrypted under.
        pub(crate) iv: String => NonceField,
    }
}

answer_object! {
    /// A plaintext.
    DecryptedItem {
        /// The plaintext.
        pub(crate) plaintext: String => Base64Bytes,
    }
}

/// What a signature turned out to be, in the words that M27 reads.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// It is good.
    Verified,
    /// It is not.
    Failed,
}

impl Verdict {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Verified, Self::Failed];

    /// The verdict on a signature that is good, or is not.
    pub(crate) fn of(valid: bool) -> Self {
        match valid {
            true => Self::Verified,
            false => Self::Failed,
        }
    }

    /// The word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::{KmsError, RequestFault};
    use crate::http::fields::read_json;

    fn read(items: &str) -> Result<SignBatchBody, KmsError> {
        let body = format!(
            r#"{{"tenant_id":"t","environment":"dev","plane":"tenant","key_id":"alias/a","items":{items}}}"#
        );
        read_json(body.as_bytes())
    }

    fn faults(items: &str) -> Vec<(String, &'static str)> {
        match read(items) {
            Err(KmsError::InvalidRequest(RequestFault::Fields(faults))) => faults
                .into_iter()
                .map(|fault| (fault.field.into_owned(), fault.problem.as_str()))
                .collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_batch_of_one_to_a_thousand_items_is_read() {
        for (length, is_read) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            let items = format!("[{}]", vec![r#"{"data":""}"#; length].join(","));
            let read = read(&items).map(|body| body.items.0.size());
            assert_eq!(read.ok(), is_read.then_some(length));
            if !is_read {
                assert_eq!(faults(&items), [("items".to_owned(), "invalid")]);
            }
        }
    }

    #[test]
    fn every_fault_of_an_item_is_named_by_its_path() {
        let items = r#"[{"data":""},{"data":7,"x":1},{},7,null,[],{"data":"","data":""}]"#;
        let wanted = [
            ("items[1].x", "unknown"),
            ("items[1].data", "invalid"),
            ("items[2].data", "missing"),
            ("items[3]", "invalid"),
            ("items[4]", "invalid"),
            ("items[5]", "invalid"),
            ("items[6].data", "duplicate"),
        ];
        let wanted = wanted.map(|(field, problem)| (field.to_owned(), problem));
        assert_eq!(faults(items), wanted);
    }

    #[test]
    fn what_is_no_list_is_named_as_a_whole() {
        for items in ["null", "7", "{}", r#""a""#, "[]"] {
            assert_eq!(faults(items), [("items".to_owned(), "invalid")], "{items}");
        }
    }

    #[test]
    fn a_reference_is_a_short_text_without_control_characters() {
        let read = |text: String| serde_json::from_value::<Reference>(text.into()).ok();
        for good in [
            String::new(),
            "row 7 / \u{e4}".to_owned(),
            "\u{1f511}".repeat(128),
        ] {
            assert_eq!(read(good.clone()).map(Reference::into_text), Some(good));
        }
        for bad in [
            "a".repeat(129),
            "a\n".to_owned(),
            "\0".to_owned(),
            "\u{85}".to_owned(),
        ] {
            assert!(read(bad).is_none());
        }
        assert!(serde_json::from_value::<Reference>(7.into()).is_err());
    }
}
