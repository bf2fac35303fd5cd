//! Receipts: what happened, to which key, for whom, signed.
//!
//! The bytes that are signed, and those that the ledger keeps, are the RFC 8785
//! canonical JSON. The private structs below have their fields in the order of
//! RFC 8785 §3.2.3 and hold only strings, booleans and small integers, for which
//! `serde_json`'s escapes are those of RFC 8785 §3.2.2.2; a property test holds
//! them to an independent implementation.

use serde::Serialize;

use super::algorithm::Algorithm;
use super::approval::Grant;
use super::error::ErrorCode;
use super::ids::{ModuleId, ReceiptId, RequestId};
use super::scope::Scope;
use super::time::Timestamp;

/// What a receipt attests, in the words of the product contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptOperation {
    /// A key was made.
    KeyGenerated,
    /// A key was replaced.
    KeyRotated,
    /// A key's grace period ended.
    KeyArchived,
    /// A key was destroyed.
    KeyRevoked,
    /// A signature was made.
    SignatureCreated,
    /// A signature was checked.
    SignatureVerified,
    /// Something was encrypted.
    Encrypt,
    /// Something was decrypted.
    Decrypt,
    /// A trust anchor was added.
    TrustAnchorAdded,
    /// A trust anchor was removed.
    TrustAnchorRemoved,
}

impl ReceiptOperation {
    /// The name in the receipt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyGenerated => "key_generated",
            Self::KeyRotated => "key_rotated",
            Self::KeyArchived => "key_archived",
            Self::KeyRevoked => "key_revoked",
            Self::SignatureCreated => "signature_created",
            Self::SignatureVerified => "signature_verified",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::TrustAnchorAdded | Self::TrustAnchorRemoved => "trust_anchor_updated",
        }
    }

    /// The plain verb in `kms_context.operation_type`.
    pub const fn operation_type(self) -> &'static str {
        match self {
            Self::KeyGenerated => "generate",
            Self::KeyRotated => "rotate",
            Self::KeyArchived => "archive",
            Self::KeyRevoked => "revoke",
            Self::SignatureCreated => "sign",
            Self::SignatureVerified => "verify",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::TrustAnchorAdded => "trust_anchor_add",
            Self::TrustAnchorRemoved => "trust_anchor_remove",
        }
    }
}

/// What the operation was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsContext {
    /// The key's id, or the reference that led to none; an anchor's id for anchors.
    pub key_id: Option<String>,
    /// The algorithm; for a step in a key's life its type.
    pub algorithm: Option<ReceiptAlgorithm>,
    /// The key's size, where there is a key.
    pub key_size_bits: Option<u32>,
    /// Whether it was done; for a verification, whether the signature was good.
    pub success: bool,
    /// The code of the refusal; `None` for a verification that found a bad signature.
    pub error_code: Option<ErrorCode>,
    /// Who agreed to it, and by which tokens.
    pub approvals: Vec<Grant>,
}

/// What a receipt names as its algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptAlgorithm {
    /// The algorithm of a use.
    Algorithm(Algorithm),
    /// The type of a key whose life changed.
    KeyType(super::algorithm::KeyType),
}

impl ReceiptAlgorithm {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Algorithm(algorithm) => algorithm.as_str(),
            Self::KeyType(key_type) => key_type.as_str(),
        }
    }
}

/// A receipt that nobody has signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub receipt_id: ReceiptId,
    /// When it happened.
    pub ts: Timestamp,
    /// Where.
    pub scope: Scope,
    /// What.
    pub operation: ReceiptOperation,
    /// About what.
    pub context: KmsContext,
    /// For whom.
    pub requesting_module: ModuleId,
    /// In answer to which request.
    pub request_id: RequestId,
}

/// A receipt as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    /// Its id.
    pub receipt_id: ReceiptId,
    /// Whose it is.
    pub scope: Scope,
    /// The canonical JSON with the signature: the leaf of the ledger.
    pub leaf: Vec<u8>,
}

#[derive(Serialize)]
struct CanonicalReceipt<'a> {
    environment: &'a str,
    kms_context: CanonicalContext<'a>,
    module: &'a str,
    operation: &'a str,
    plane: &'a str,
    receipt_id: ReceiptId,
    request_id: RequestId,
    requesting_module: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'a str>,
    signer_key_id: &'a str,
    tenant_id: &'a str,
    ts: Timestamp,
}

#[derive(Serialize)]
struct CanonicalContext<'a> {
    algorithm: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvals: Vec<CanonicalGrant<'a>>,
    error_code: Option<&'a str>,
    key_id: Option<&'a str>,
    key_size_bits: Option<u32>,
    operation_type: &'a str,
    success: bool,
}

#[derive(Serialize)]
struct CanonicalGrant<'a> {
    approver: &'a str,
    jti: &'a str,
}

impl<'a> From<&'a Grant> for CanonicalGrant<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            approver: &grant.approver,
            jti: &grant.token_id,
        }
    }
}

impl Receipt {
    /// The bytes to sign: canonical JSON without `signature`.
    ///
    /// # Errors
    /// None in practice: strings, booleans and integers always serialize.
    pub fn signed_bytes(&self, signer_key_id: &str) -> Result<Vec<u8>, serde_json::Error> {
        self.canonical(signer_key_id, None)
    }

    /// The receipt with its signature (base64), as the ledger keeps it.
    ///
    /// # Errors
    /// None in practice: strings, booleans and integers always serialize.
    pub fn into_signed(
        self,
        signer_key_id: &str,
        signature: &str,
    ) -> Result<SignedReceipt, serde_json::Error> {
        let leaf = self.canonical(signer_key_id, Some(signature))?;
        Ok(SignedReceipt {
            receipt_id: self.receipt_id,
            scope: self.scope,
            leaf,
        })
    }

    fn canonical(
        &self,
        signer_key_id: &str,
        signature: Option<&str>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(768);
        serde_json::to_writer(
            &mut bytes,
            &CanonicalReceipt {
                environment: self.scope.environment.as_str(),
                kms_context: CanonicalContext {
                    algorithm: self.context.algorithm.map(ReceiptAlgorithm::as_str),
                    approvals: self
                        .context
                        .approvals
                        .iter()
                        .map(CanonicalGrant::from)
                        .collect(),
                    error_code: self.context.error_code.map(ErrorCode::as_str),
                    key_id: self.context.key_id.as_deref(),
                    key_size_bits: self.context.key_size_bits,
                    operation_type: self.operation.operation_type(),
                    success: self.context.success,
                },
                module: "KMS",
                operation: self.operation.as_str(),
                plane: self.scope.plane.as_str(),
                receipt_id: self.receipt_id,
                request_id: self.request_id,
                requesting_module: self.requesting_module.as_str(),
                signature,
                signer_key_id,
                tenant_id: self.scope.tenant_id.as_str(),
                ts: self.ts,
            },
        )?;
        Ok(bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::algorithm::{KeyType, SigningAlgorithm};
    use crate::domain::key::tests::active_key;

    /// A receipt of a good signature, for tests that need some receipt.
    pub(crate) fn receipt() -> Receipt {
        let key = active_key();
        Receipt {
            receipt_id: ReceiptId::generate(),
            ts: key.created_at,
            scope: key.scope,
            operation: ReceiptOperation::SignatureCreated,
            context: KmsContext {
                key_id: Some(key.key_id.to_string()),
                algorithm: Some(ReceiptAlgorithm::Algorithm(Algorithm::Signing(
                    SigningAlgorithm::Ed25519,
                ))),
                key_size_bits: Some(256),
                success: true,
                error_code: None,
                approvals: Vec::new(),
            },
            requesting_module: key.created_by,
            request_id: RequestId::generate(),
        }
    }

    fn independent(bytes: &[u8]) -> String {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("our own JSON");
        serde_json_canonicalizer::to_string(&value).expect("canonical")
    }

    proptest! {
        #[test]
        fn our_canonical_json_is_that_of_an_independent_implementation(
            key_id in prop::option::of(any::<String>()),
            tenant in "[A-Za-z0-9][A-Za-z0-9._:-]{0,30}",
            bits in prop::option::of(any::<u32>()),
            success in any::<bool>(),
            code in prop::option::of(prop::sample::select(ErrorCode::ALL.to_vec())),
            signer in any::<String>(),
            signature in prop::option::of(any::<String>()),
            approvers in prop::collection::vec(any::<(String, String)>(), 0..3),
        ) {
            let mut receipt = receipt();
            receipt.scope.tenant_id = tenant.parse().expect("valid");
            receipt.context = KmsContext {
                key_id,
                algorithm: Some(ReceiptAlgorithm::KeyType(KeyType::Rsa2048)),
                key_size_bits: bits,
                success,
                error_code: code,
                approvals: approvers
                    .into_iter()
                    .map(|(approver, token_id)| Grant {
                        approver,
                        token_id,
                        usable_until: receipt.ts,
                    })
                    .collect(),
            };
            let bytes = receipt.canonical(&signer, signature.as_deref()).expect("serializes");
            prop_assert_eq!(independent(&bytes), String::from_utf8(bytes).expect("UTF-8"));
        }
    }

    #[test]
    fn the_signature_is_the_only_difference_between_what_is_signed_and_what_is_kept() {
        let receipt = receipt();
        let unsigned = receipt.signed_bytes("signer").expect("serializes");
        let kept = receipt.into_signed("signer", "c2ln").expect("serializes");
        let mut value: serde_json::Value = serde_json::from_slice(&kept.leaf).expect("JSON");
        let removed = value
            .as_object_mut()
            .and_then(|map| map.remove("signature"));
        assert_eq!(removed, Some("c2ln".into()));
        assert_eq!(
            serde_json_canonicalizer::to_vec(&value).expect("canonical"),
            unsigned
        );
    }
}
