//! Receipts as bytes: the RFC 8785 canonical JSON, written and read back.
//!
//! The structs have their fields in the order of RFC 8785 §3.2.3 and hold only
//! strings, booleans and small integers, for which `serde_json`'s escapes are
//! those of RFC 8785 §3.2.2.2; a property test holds them to an independent
//! implementation.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::SignedReceipt;
use crate::domain::approval::Grant;
use crate::domain::ids::{ReceiptId, RequestId};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanonicalReceipt<'a> {
    #[serde(borrow)]
    pub(super) environment: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kms_context: CanonicalContext<'a>,
    #[serde(borrow)]
    pub(super) module: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) plane: Cow<'a, str>,
    pub(super) receipt_id: ReceiptId,
    pub(super) request_id: RequestId,
    #[serde(borrow)]
    pub(super) requesting_module: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) signer_key_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tenant_id: Cow<'a, str>,
    pub(super) ts: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanonicalContext<'a> {
    #[serde(borrow)]
    pub(super) algorithm: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) approvals: Vec<CanonicalGrant<'a>>,
    #[serde(borrow)]
    pub(super) error_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) key_id: Option<Cow<'a, str>>,
    pub(super) key_size_bits: Option<u32>,
    #[serde(borrow)]
    pub(super) operation_type: Cow<'a, str>,
    pub(super) success: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanonicalGrant<'a> {
    #[serde(borrow)]
    pub(super) approver: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) jti: Cow<'a, str>,
}

impl<'a> From<&'a Grant> for CanonicalGrant<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            approver: Cow::Borrowed(&grant.approver),
            jti: Cow::Borrowed(&grant.token_id),
        }
    }
}

/// A leaf that was read back: canonical, and of the form that receipts have.
/// Nothing says that its signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReceipt {
    /// The receipt.
    pub receipt: SignedReceipt,
    /// What its signature is over.
    pub unsigned: Vec<u8>,
    /// The signature.
    pub signature: [u8; 64],
}

impl ReadReceipt {
    /// Reads a leaf. `None` for anything that this service would not have written
    /// byte for byte: another form, another order, another spelling.
    pub fn parse(leaf: &[u8]) -> Option<Self> {
        let mut read: CanonicalReceipt<'_> = serde_json::from_slice(leaf).ok()?;
        if written(&read).ok()? != leaf {
            return None;
        }
        let signature = STANDARD.decode(read.signature.take()?.as_ref()).ok()?;
        Some(Self {
            signature: signature.try_into().ok()?,
            unsigned: written(&read).ok()?,
            receipt: SignedReceipt {
                receipt_id: read.receipt_id,
                scope: Scope {
                    tenant_id: read.tenant_id.parse().ok()?,
                    environment: read.environment.parse().ok()?,
                    plane: read.plane.parse().ok()?,
                },
                ts: read.ts,
                operation: read.operation.parse().ok()?,
                key_id: read.kms_context.key_id.map(Cow::into_owned),
                signer_key_id: read.signer_key_id.as_ref().into(),
                leaf: leaf.to_vec(),
            },
        })
    }

    /// The bytes to sign for the same receipt under another key.
    ///
    /// # Errors
    /// None in practice, as for [`Receipt::signed_bytes`](super::Receipt::signed_bytes).
    pub fn signed_bytes_for(&self, signer_key_id: &str) -> Result<Vec<u8>, serde_json::Error> {
        self.respelled(signer_key_id, None)
    }

    /// The same receipt, signed by another key.
    ///
    /// # Errors
    /// None in practice, as for [`Receipt::signed_bytes`](super::Receipt::signed_bytes).
    pub fn signed_again(
        self,
        signer_key_id: &Arc<str>,
        signature: &str,
    ) -> Result<SignedReceipt, serde_json::Error> {
        let leaf = self.respelled(signer_key_id, Some(signature))?;
        Ok(SignedReceipt {
            signer_key_id: Arc::clone(signer_key_id),
            leaf,
            ..self.receipt
        })
    }

    fn respelled(
        &self,
        signer_key_id: &str,
        signature: Option<&str>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut receipt: CanonicalReceipt<'_> = serde_json::from_slice(&self.unsigned)?;
        receipt.signer_key_id = signer_key_id.into();
        receipt.signature = signature.map(Cow::Borrowed);
        written(&receipt)
    }
}

pub(super) fn written(receipt: &CanonicalReceipt<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(768);
    serde_json::to_writer(&mut bytes, receipt)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::tests::receipt;

    fn signed() -> SignedReceipt {
        let signature = STANDARD.encode([7; 64]);
        let receipt = receipt();
        receipt
            .into_signed(&"signer".into(), &signature)
            .expect("serializes")
    }

    #[test]
    fn a_leaf_reads_back_with_what_was_signed() {
        let receipt = receipt();
        let unsigned = receipt.signed_bytes("signer").expect("serializes");
        let kept = receipt
            .into_signed(&"signer".into(), &STANDARD.encode([7; 64]))
            .expect("serializes");
        let read = ReadReceipt::parse(&kept.leaf).expect("our own");
        assert_eq!(read.receipt, kept);
        assert_eq!((read.unsigned, read.signature), (unsigned, [7; 64]));
    }

    #[test]
    fn a_leaf_in_any_other_spelling_is_none() {
        let leaf = String::from_utf8(signed().leaf).expect("text");
        assert!(ReadReceipt::parse(leaf.as_bytes()).is_some());
        for other in [
            leaf.replacen('{', "{ ", 1),
            leaf.replace("\"success\":true", "\"success\":true,\"x\":1"),
            leaf.replace("\"module\":\"KMS\"", "\"module\":\"\\u004bMS\""),
            leaf.replace("\"key_size_bits\":256", "\"key_size_bits\":256.0"),
            leaf.replace("\"error_code\":null,", ""),
            leaf.replace("000000Z", "000Z"),
            leaf.replace(
                "\"module\":\"KMS\",",
                "\"module\":\"KMS\",\"module\":\"KMS\",",
            ),
            format!("{leaf}\n"),
            leaf[..leaf.len() - 1].to_owned(),
            "[]".to_owned(),
            String::new(),
        ] {
            assert_ne!(other, leaf, "the change is one");
            assert_eq!(ReadReceipt::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_receipt_signed_again_differs_in_signer_and_signature_only() {
        let kept = signed();
        let read = ReadReceipt::parse(&kept.leaf).expect("our own");
        let unsigned = read.signed_bytes_for("other").expect("serializes");
        let again = read
            .signed_again(&"other".into(), &STANDARD.encode([8; 64]))
            .expect("serializes");
        let read = ReadReceipt::parse(&again.leaf).expect("our own");
        assert_eq!((read.unsigned, read.signature), (unsigned, [8; 64]));
        let text = |leaf: &[u8]| String::from_utf8(leaf.to_vec()).expect("text");
        let expected = text(&kept.leaf)
            .replace("\"signer\"", "\"other\"")
            .replace(&STANDARD.encode([7; 64]), &STANDARD.encode([8; 64]));
        assert_eq!(text(&again.leaf), expected);
    }
}
