//! Receipts: what happened, to which key, for whom, signed.
//!
//! The bytes that are signed, and those that the ledger keeps, are the RFC 8785
//! canonical JSON that `canonical` writes and reads.

mod canonical;

use std::borrow::Cow;
use std::sync::Arc;

use self::canonical::{CanonicalContext, CanonicalGrant, CanonicalReceipt, Unsigned};
use super::algorithm::Algorithm;
use super::approval::Grant;
use super::error::ErrorCode;
use super::ids::{ModuleId, ReceiptId, RequestId};
use super::scope::Scope;
use super::time::Timestamp;
use super::wire::text_form;

pub use self::canonical::ReadReceipt;

/// What a receipt attests, in the words of the product contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptOperation {
    /// A key was made.
    KeyGenerated,
    /// A key was replaced.
    KeyRotated,
    /// A key's grace period ended.
    KeyArchived,
    /// A key's alias or policy was changed.
    KeyUpdated,
    /// A key was destroyed.
    KeyRevoked,
    /// A key's revocation was taken back.
    KeyRestored,
    /// The secret of a destroyed key is about to go, and the key no longer to come back.
    KeyErasureBegun,
    /// The secret of a destroyed key is gone.
    KeyErased,
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
    /// Every operation.
    pub const ALL: [Self; 14] = [
        Self::KeyGenerated,
        Self::KeyRotated,
        Self::KeyArchived,
        Self::KeyUpdated,
        Self::KeyRevoked,
        Self::KeyRestored,
        Self::KeyErasureBegun,
        Self::KeyErased,
        Self::SignatureCreated,
        Self::SignatureVerified,
        Self::Encrypt,
        Self::Decrypt,
        Self::TrustAnchorAdded,
        Self::TrustAnchorRemoved,
    ];

    /// The name in the receipt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyGenerated => "key_generated",
            Self::KeyRotated => "key_rotated",
            Self::KeyArchived => "key_archived",
            Self::KeyUpdated => "key_updated",
            Self::KeyRevoked => "key_revoked",
            Self::KeyRestored => "key_restored",
            Self::KeyErasureBegun => "key_erasure_begun",
            Self::KeyErased => "key_erased",
            Self::SignatureCreated => "signature_created",
            Self::SignatureVerified => "signature_verified",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::TrustAnchorAdded | Self::TrustAnchorRemoved => "trust_anchor_updated",
        }
    }

    /// The same, as receipts are looked for by it.
    pub const fn name(self) -> OperationName {
        OperationName(self.as_str())
    }

    /// The plain verb in `kms_context.operation_type`.
    pub const fn operation_type(self) -> &'static str {
        match self {
            Self::KeyGenerated => "generate",
            Self::KeyRotated => "rotate",
            Self::KeyArchived => "archive",
            Self::KeyUpdated => "update",
            Self::KeyRevoked => "revoke",
            Self::KeyRestored => "restore",
            Self::KeyErasureBegun => "erase_begin",
            Self::KeyErased => "erase",
            Self::SignatureCreated => "sign",
            Self::SignatureVerified => "verify",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::TrustAnchorAdded => "trust_anchor_add",
            Self::TrustAnchorRemoved => "trust_anchor_remove",
        }
    }
}

/// The name of an operation as receipts bear it, which is what they are looked
/// for by: adding and removing an anchor share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationName(&'static str);

impl OperationName {
    /// Every name.
    pub const ALL: [Self; 13] = [
        ReceiptOperation::KeyGenerated.name(),
        ReceiptOperation::KeyRotated.name(),
        ReceiptOperation::KeyArchived.name(),
        ReceiptOperation::KeyUpdated.name(),
        ReceiptOperation::KeyRevoked.name(),
        ReceiptOperation::KeyRestored.name(),
        ReceiptOperation::KeyErasureBegun.name(),
        ReceiptOperation::KeyErased.name(),
        ReceiptOperation::SignatureCreated.name(),
        ReceiptOperation::SignatureVerified.name(),
        ReceiptOperation::Encrypt.name(),
        ReceiptOperation::Decrypt.name(),
        ReceiptOperation::TrustAnchorAdded.name(),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.0 == text)
    }

    /// The name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

text_form!(
    OperationName,
    "one of key_generated, key_rotated, key_archived, key_updated, key_revoked, key_restored, \
     key_erasure_begun, key_erased, signature_created, signature_verified, encrypt, decrypt, trust_anchor_updated"
);

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
    /// When it happened.
    pub ts: Timestamp,
    /// What.
    pub operation: OperationName,
    /// To which key or anchor.
    pub key_id: Option<String>,
    /// The id of the key that signed it.
    pub signer_key_id: Arc<str>,
    /// The canonical JSON with the signature: the leaf of the ledger.
    pub leaf: Vec<u8>,
}

impl Receipt {
    /// The receipt signed, as the ledger keeps it. `sign` is given the bytes to sign
    /// (canonical JSON without `signature`) and answers the signature in base64.
    pub fn signed_by(
        self,
        signer_key_id: &Arc<str>,
        sign: impl FnOnce(&[u8]) -> String,
    ) -> SignedReceipt {
        let unsigned = self.unsigned(signer_key_id);
        let leaf = unsigned.with_signature(&sign(&unsigned.bytes));
        SignedReceipt {
            receipt_id: self.receipt_id,
            scope: self.scope,
            ts: self.ts,
            operation: self.operation.name(),
            key_id: self.context.key_id,
            signer_key_id: Arc::clone(signer_key_id),
            leaf,
        }
    }

    fn unsigned(&self, signer_key_id: &str) -> Unsigned {
        Unsigned::write(&CanonicalReceipt {
            environment: self.scope.environment.as_str().into(),
            kms_context: CanonicalContext {
                algorithm: self.context.algorithm.map(|name| name.as_str().into()),
                approvals: self
                    .context
                    .approvals
                    .iter()
                    .map(CanonicalGrant::from)
                    .collect(),
                error_code: self.context.error_code.map(|code| code.as_str().into()),
                key_id: self.context.key_id.as_deref().map(Cow::Borrowed),
                key_size_bits: self.context.key_size_bits,
                operation_type: self.operation.operation_type().into(),
                success: self.context.success,
            },
            module: "KMS".into(),
            operation: self.operation.as_str().into(),
            plane: self.scope.plane.as_str().into(),
            receipt_id: self.receipt_id,
            request_id: self.request_id,
            requesting_module: self.requesting_module.as_str().into(),
            signature: None,
            signer_key_id: signer_key_id.into(),
            tenant_id: self.scope.tenant_id.as_str().into(),
            ts: self.ts,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::algorithm::{KeyType, SigningAlgorithm};
    use crate::domain::key::tests::active_key;

    impl Receipt {
        /// The bytes to sign.
        pub(crate) fn signed_bytes(&self, signer_key_id: &str) -> Vec<u8> {
            self.unsigned(signer_key_id).bytes
        }

        /// The receipt with any text for its signature.
        pub(crate) fn into_signed(
            self,
            signer_key_id: &Arc<str>,
            signature: &str,
        ) -> SignedReceipt {
            self.signed_by(signer_key_id, |_| signature.to_owned())
        }
    }

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
            let bytes = match signature {
                Some(signature) => receipt.into_signed(&signer.into(), &signature).leaf,
                None => receipt.signed_bytes(&signer),
            };
            prop_assert_eq!(independent(&bytes), String::from_utf8(bytes).expect("UTF-8"));
        }
    }

    #[test]
    fn the_signature_is_the_only_difference_between_what_is_signed_and_what_is_kept() {
        let receipt = receipt();
        let unsigned = receipt.signed_bytes("signer");
        let kept = receipt.into_signed(&"signer".into(), "c2ln");
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

    #[test]
    fn every_operation_has_a_name_to_look_for() {
        for operation in ReceiptOperation::ALL {
            assert_eq!(operation.as_str().parse().ok(), Some(operation.name()));
            assert!(OperationName::ALL.contains(&operation.name()));
        }
    }
}
