//! Receipts as bytes: the RFC 8785 canonical JSON, written and read back.
//!
//! The structs have their fields in the order of RFC 8785 §3.2.3 and hold only
//! strings, booleans and small integers. Every request writes one, so they are
//! written by hand: nearly all of it is text that needs no escape, and what does
//! goes through `serde_json`, whose escapes are those of RFC 8785 §3.2.2.2. A
//! property test holds the result to an independent implementation.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::SignedReceipt;
use crate::domain::approval::Grant;
use crate::domain::ids::{ReceiptId, RequestId};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;

#[derive(Deserialize)]
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
    #[serde(borrow, default)]
    pub(super) signature: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) signer_key_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tenant_id: Cow<'a, str>,
    pub(super) ts: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanonicalContext<'a> {
    #[serde(borrow)]
    pub(super) algorithm: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
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

#[derive(Deserialize)]
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
        let signature = read.signature.take()?;
        let unsigned = Unsigned::write(&read);
        if unsigned.with_signature(&signature) != leaf {
            return None;
        }
        let signature = STANDARD.decode(signature.as_ref()).ok()?;
        Some(Self {
            signature: signature.try_into().ok()?,
            unsigned: unsigned.bytes,
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

    /// The same receipt, signed by another key. `sign` is given the bytes to sign and
    /// answers the signature in base64.
    ///
    /// # Errors
    /// None in practice: what was read once reads again.
    pub fn signed_again(
        self,
        signer_key_id: &Arc<str>,
        sign: impl FnOnce(&[u8]) -> String,
    ) -> Result<SignedReceipt, serde_json::Error> {
        let mut receipt: CanonicalReceipt<'_> = serde_json::from_slice(&self.unsigned)?;
        receipt.signer_key_id = signer_key_id.as_ref().into();
        let unsigned = Unsigned::write(&receipt);
        let signature = sign(&unsigned.bytes);
        Ok(SignedReceipt {
            signer_key_id: Arc::clone(signer_key_id),
            leaf: unsigned.with_signature(&signature),
            ..self.receipt
        })
    }
}

/// A receipt in canonical JSON without its signature, and the place for it.
pub(super) struct Unsigned {
    /// What is signed.
    pub(super) bytes: Vec<u8>,
    /// Where the signature goes by the order of the names.
    signature_at: usize,
}

impl Unsigned {
    /// Writes a receipt; its signature is left out.
    pub(super) fn write(receipt: &CanonicalReceipt<'_>) -> Self {
        // Room for the signature too, so that nothing is copied for it.
        let mut json = Writer(Vec::with_capacity(768));
        json.text("{\"environment\":", &receipt.environment);
        json.raw(",\"kms_context\":{\"algorithm\":");
        json.optional(receipt.kms_context.algorithm.as_deref());
        json.approvals(&receipt.kms_context.approvals);
        json.raw(",\"error_code\":");
        json.optional(receipt.kms_context.error_code.as_deref());
        json.raw(",\"key_id\":");
        json.optional(receipt.kms_context.key_id.as_deref());
        json.raw(",\"key_size_bits\":");
        match receipt.kms_context.key_size_bits {
            Some(bits) => json.shown(bits),
            None => json.raw("null"),
        }
        json.text(",\"operation_type\":", &receipt.kms_context.operation_type);
        json.raw(",\"success\":");
        json.raw(if receipt.kms_context.success {
            "true}"
        } else {
            "false}"
        });
        json.text(",\"module\":", &receipt.module);
        json.text(",\"operation\":", &receipt.operation);
        json.text(",\"plane\":", &receipt.plane);
        json.text(",\"receipt_id\":", receipt.receipt_id.as_text().as_ref());
        json.text(",\"request_id\":", receipt.request_id.as_text().as_ref());
        json.text(",\"requesting_module\":", &receipt.requesting_module);
        let signature_at = json.0.len();
        json.text(",\"signer_key_id\":", &receipt.signer_key_id);
        json.text(",\"tenant_id\":", &receipt.tenant_id);
        json.raw(",\"ts\":\"");
        json.shown(receipt.ts);
        json.raw("\"}");
        Self {
            bytes: json.0,
            signature_at,
        }
    }

    /// The same with the signature (base64): what the ledger keeps.
    pub(super) fn with_signature(&self, signature: &str) -> Vec<u8> {
        let (before, after) = self.bytes.split_at(self.signature_at);
        let mut json = Writer(Vec::with_capacity(self.bytes.len() + signature.len() + 32));
        json.0.extend_from_slice(before);
        json.text(",\"signature\":", signature);
        json.0.extend_from_slice(after);
        json.0
    }
}

/// Writes JSON. Nothing of it fails: it goes into memory.
struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// A name with what leads up to it, and a text.
    fn text(&mut self, name: &str, text: &str) {
        self.raw(name);
        self.string(text);
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.raw("null"),
        }
    }

    fn string(&mut self, text: &str) {
        let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        if text.bytes().any(needs_escape) {
            let written = serde_json::to_writer(&mut self.0, text);
            debug_assert!(written.is_ok(), "a text in memory serializes");
        } else {
            self.raw("\"");
            self.raw(text);
            self.raw("\"");
        }
    }

    /// What needs no escape by its nature: a number, a time.
    fn shown(&mut self, value: impl Display) {
        let written = write!(self.0, "{value}");
        debug_assert!(written.is_ok(), "memory takes what is written");
    }

    /// Who agreed; nothing where nobody had to.
    fn approvals(&mut self, approvals: &[CanonicalGrant<'_>]) {
        for (place, grant) in approvals.iter().enumerate() {
            self.raw(if place == 0 { ",\"approvals\":[" } else { "," });
            self.text("{\"approver\":", &grant.approver);
            self.text(",\"jti\":", &grant.jti);
            self.raw("}");
        }
        if !approvals.is_empty() {
            self.raw("]");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::tests::receipt;

    fn signed() -> SignedReceipt {
        let signature = STANDARD.encode([7; 64]);
        let receipt = receipt();
        receipt.into_signed(&"signer".into(), &signature)
    }

    #[test]
    fn a_leaf_reads_back_with_what_was_signed() {
        let receipt = receipt();
        let unsigned = receipt.signed_bytes("signer");
        let kept = receipt.into_signed(&"signer".into(), &STANDARD.encode([7; 64]));
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
        let mut unsigned = Vec::new();
        let again = read
            .signed_again(&"other".into(), |bytes| {
                unsigned = bytes.to_vec();
                STANDARD.encode([8; 64])
            })
            .expect("reads again");
        let read = ReadReceipt::parse(&again.leaf).expect("our own");
        assert_eq!((read.unsigned, read.signature), (unsigned, [8; 64]));
        let text = |leaf: &[u8]| String::from_utf8(leaf.to_vec()).expect("text");
        let expected = text(&kept.leaf)
            .replace("\"signer\"", "\"other\"")
            .replace(&STANDARD.encode([7; 64]), &STANDARD.encode([8; 64]));
        assert_eq!(text(&again.leaf), expected);
    }
}
