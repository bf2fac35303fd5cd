//! What callers send, object by object.

use super::fields::{
    AliasChange, ApprovalTokenField, Cursor, DailyLimit, LineCursor, ModuleList, NonceField,
    PageLimit, RotationPeriodField, TreeSize,
};
use crate::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use crate::domain::binary::Base64Bytes;
use crate::domain::error::FieldFault;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef};
use crate::domain::key::{KeyState, RevocationReason};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::policy::AccessPolicyChoice;
use crate::domain::receipt::OperationName;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::AnchorType;
use crate::domain::wire::WireField;
use crate::http::fields::{WireObject, below};
use crate::http::wire_object::wire_object;

wire_object! {
    /// `POST /kms/v1/keys`
    scoped GenerateKeyBody {
        /// What kind of key.
        key_type: KeyType,
        /// What for.
        key_usage: KeyUsageSet,
        /// The alias of its line.
        key_alias: Option<KeyAlias>,
        /// What its maker chooses of its policy.
        access_policy: Option<AccessPolicyBody>,
        /// Its own schedule; its type's where absent.
        rotation_period: Option<RotationPeriodField>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `PATCH /kms/v1/keys/{key_id}`
    scoped UpdateKeyBody {
        /// Another alias, or `null` for none.
        #[serde(default)]
        key_alias: AliasChange,
        /// What is to change of its policy.
        access_policy: Option<AccessPolicyBody>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/keys/{key_id}/archive` and `restore`
    scoped KeyStepBody {
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// The query of `GET /kms/v1/keys/{key_id}/versions`.
    scoped ListVersionsQuery {
        /// At most so many.
        limit: Option<PageLimit>,
        /// Where the last page ended.
        cursor: Option<LineCursor>,
    }
}

wire_object! {
    /// The part of a key's policy that its maker chooses.
    AccessPolicyBody {
        /// The modules that may use the key.
        allowed_modules: Option<ModuleList>,
        /// Whether every use needs an approval.
        requires_approval: Option<bool>,
        /// Uses a UTC day.
        max_usage_per_day: Option<DailyLimit>,
    }
}

wire_object! {
    /// `POST /kms/v1/keys/{key_id}/rotate`
    scoped RotateKeyBody {
        /// Whether the old key is archived at once, without a grace period.
        emergency: Option<bool>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/keys/{key_id}/revoke`
    scoped RevokeKeyBody {
        /// Why.
        revocation_reason: RevocationReason,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/sign`
    scoped SignBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        data: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/verify`
    scoped VerifyBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        data: Base64Bytes,
        /// The signature.
        signature: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/encrypt`
    scoped EncryptBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        plaintext: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// What is authenticated beside it.
        aad: Option<Base64Bytes>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/decrypt`
    scoped DecryptBody {
        /// With which key.
        key_id: KeyRef,
        /// The ciphertext with its tag at the end.
        ciphertext: Base64Bytes,
        /// The nonce that the encryption answered.
        iv: NonceField,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// What was authenticated beside it.
        aad: Option<Base64Bytes>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `GET /kms/v1/receipts`
    scoped ListReceiptsQuery {
        /// Only those about this key, by its id.
        key_id: Option<KeyId>,
        /// Only those of this operation.
        operation: Option<OperationName>,
        /// Only those from this instant on.
        from: Option<Timestamp>,
        /// Only those before this instant.
        until: Option<Timestamp>,
        /// At most so many.
        limit: Option<PageLimit>,
        /// Where the page begins.
        cursor: Option<Cursor>,
    }
}

wire_object! {
    /// `GET /kms/v1/ledger/consistency`
    ConsistencyQuery {
        /// The size of the smaller tree.
        from: TreeSize,
        /// The size of the larger; the newest where absent.
        to: Option<TreeSize>,
    }
}

wire_object! {
    /// `POST /kms/v1/trust-anchors`
    scoped AddTrustAnchorBody {
        /// Base64 of DER or of PEM.
        certificate: Base64Bytes,
        /// What it is to be.
        anchor_type: AnchorType,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// The query of `GET /kms/v1/trust-anchors`.
    scoped ListTrustAnchorsQuery {
        /// At most so many.
        limit: Option<PageLimit>,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    }
}

wire_object! {
    /// The query of a look-up or a removal: the scope and nothing else.
    scoped ScopeQuery {}
}

wire_object! {
    /// The query of `GET /kms/v1/keys`.
    scoped ListKeysQuery {
        /// Only those in this state.
        key_state: Option<KeyState>,
        /// Only those of this type.
        key_type: Option<KeyType>,
        /// Only those that bear, or bore, this alias.
        alias: Option<KeyAlias>,
        /// At most so many.
        limit: Option<PageLimit>,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    }
}

/// A request body that may carry an approval.
pub(crate) trait ApprovableBody: WireObject {
    /// Takes the approval out.
    fn take_approval(&mut self) -> Option<ApprovalTokenField>;
}

/// Says where a body has its approval.
macro_rules! approvable {
    ($($body:ident),*) => {
        $(impl $crate::http::dto::ApprovableBody for $body {
            fn take_approval(&mut self) -> Option<$crate::http::dto::ApprovalTokenField> {
                self.approval_token.take()
            }
        })*
    };
}
pub(super) use approvable;

approvable!(
    GenerateKeyBody,
    UpdateKeyBody,
    KeyStepBody,
    RotateKeyBody,
    RevokeKeyBody,
    SignBody,
    VerifyBody,
    EncryptBody,
    DecryptBody,
    AddTrustAnchorBody
);

impl WireField for AccessPolicyBody {
    const EXPECTED: &'static str =
        "an object of allowed_modules, requires_approval, max_usage_per_day";

    fn faults_inside(value: &serde_json::Value) -> Vec<FieldFault> {
        let inside = value.as_object().map(Self::faults).unwrap_or_default();
        below(".", inside).collect()
    }
}

impl From<AccessPolicyBody> for AccessPolicyChoice {
    fn from(body: AccessPolicyBody) -> Self {
        Self {
            allowed_modules: body.allowed_modules.map(|list| list.0),
            requires_approval: body.requires_approval,
            max_usage_per_day: body.max_usage_per_day.map(|limit| limit.0),
        }
    }
}
