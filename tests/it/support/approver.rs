//! Approvers with keys of their own, by an implementation that is not the
//! service's, and a service that asks for their signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, TestKms, base64, in_scope, with};

/// Somebody who approves.
pub(crate) struct Approver {
    name: &'static str,
    kid: &'static str,
    key: SigningKey,
}

impl Approver {
    /// An approver of this name whose key has the same name.
    pub(crate) fn new(name: &'static str, seed: u8) -> Self {
        Self {
            name,
            kid: name,
            key: SigningKey::from_bytes(&[seed; 32]),
        }
    }

    /// The same approver with another name for the key.
    pub(crate) fn with_kid(self, kid: &'static str) -> Self {
        Self { kid, ..self }
    }

    /// The public key as an entry of a key set, bound to its owner.
    pub(crate) fn jwk(&self) -> Value {
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid,
            "sub": self.name, "x": URL_SAFE_NO_PAD.encode(self.key.verifying_key()),
        })
    }

    /// Claims of an approval in the usual scope with a name of its own, with these
    /// beside them or in their place; `null` takes one away.
    pub(crate) fn claims(&self, changes: Value) -> Value {
        let now = seconds_since_1970();
        let claims = json!({
            "aud": "M33", "iss": self.name, "sub": self.name,
            "jti": uuid::Uuid::new_v4().to_string(), "iat": now, "exp": now + 600,
        });
        let mut claims = with(in_scope(claims), changes);
        let object = claims.as_object_mut().expect("an object");
        object.retain(|_, value| !value.is_null());
        claims
    }

    /// A token of these claims, as [`Approver::claims`] completes them.
    pub(crate) fn approve(&self, changes: Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" });
        self.sign(&header, &self.claims(changes))
    }

    /// A token of this header and these claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        compact(header, claims, |message| {
            self.key.sign(message).to_bytes().to_vec()
        })
    }

    /// The private key in PKCS#8, for whoever uses it for something else too.
    pub(crate) fn private_key(&self) -> Vec<u8> {
        let key = self.key.to_pkcs8_der().expect("DER");
        key.as_bytes().to_vec()
    }

    /// An approval of a new key for signing and verifying.
    pub(crate) fn approve_new_key(&self) -> String {
        self.approve(new_key())
    }

    /// An approval of this operation on this key.
    pub(crate) fn approve_on(&self, operation: &str, key_id: &str) -> String {
        self.approve(json!({ "operation": operation, "key_id": key_id }))
    }
}

/// A compact JWS (RFC 7515 §7.1) with whatever stands for its signature.
pub(crate) fn compact(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What an approval of the usual new key says.
pub(crate) fn new_key() -> Value {
    json!({
        "operation": "key_generate", "key_type": "Ed25519", "key_usage": ["sign", "verify"],
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokens are made for the service's own clock, which is the machine's"
)]
pub(crate) fn seconds_since_1970() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}

/// A service that takes signed approvals only, and its key set's folder.
pub(crate) struct SignedKms {
    pub(crate) kms: TestKms,
    keys: TempDir,
    quorum: &'static str,
}

impl SignedKms {
    /// A service that knows these approvers and asks for one of them.
    pub(crate) async fn start(approvers: &[&Approver]) -> Self {
        Self::start_with_quorum("1", approvers).await
    }

    /// A service that asks for so many of them.
    pub(crate) async fn start_with_quorum(quorum: &'static str, approvers: &[&Approver]) -> Self {
        let keys: Vec<Value> = approvers.iter().map(|approver| approver.jwk()).collect();
        Self::start_with(quorum, &keys).await
    }

    /// A service that knows these keys and asks for one of them.
    pub(crate) async fn start_with_keys(keys: &[Value]) -> Self {
        Self::start_with("1", keys).await
    }

    async fn start_with(quorum: &'static str, jwks: &[Value]) -> Self {
        let keys = tempfile::tempdir().expect("a folder");
        let text = json!({ "keys": jwks }).to_string();
        std::fs::write(keys.path().join("approvers.json"), text).expect("written");
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, keys, quorum).await
    }

    async fn start_in(folder: TempDir, keys: TempDir, quorum: &'static str) -> Self {
        let jwks = keys.path().join("approvers.json").display().to_string();
        let settings = [
            ("KMS__APPROVALS__MODE", "signed"),
            ("KMS__APPROVALS__JWKS", jwks.as_str()),
            ("KMS__APPROVALS__QUORUM", quorum),
            ("KMS__APPROVALS__OPERATIONS", "key_lifecycle,trust_anchor"),
        ];
        Self {
            kms: TestKms::start_in(folder, &settings).await,
            keys,
            quorum,
        }
    }

    /// Puts these approvers' key set in the place of the one there is.
    pub(crate) fn publish(&self, approvers: &[&Approver]) {
        let keys: Vec<Value> = approvers.iter().map(|approver| approver.jwk()).collect();
        let text = json!({ "keys": keys }).to_string();
        std::fs::write(self.keys.path().join("approvers.json"), text).expect("written");
    }

    /// The same service after a restart.
    pub(crate) async fn restart(self) -> Self {
        let folder = self.kms.stop().await;
        Self::start_in(folder, self.keys, self.quorum).await
    }

    /// Makes the usual key with this approval.
    pub(crate) async fn make(&self, approval: &str) -> Answer {
        self.make_with(approval, json!({})).await
    }

    /// Makes the usual key with these fields too.
    pub(crate) async fn make_with(&self, approval: &str, fields: Value) -> Answer {
        let usual = json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"], "approval_token": approval,
        });
        let body = in_scope(with(usual, fields));
        self.kms.post("/kms/v1/keys", &body).await
    }

    /// A key of this type, and its id. With `requires_approval` every use of it
    /// needs one.
    pub(crate) async fn key(
        &self,
        approver: &Approver,
        key_type: &str,
        requires_approval: bool,
    ) -> String {
        let usage = match key_type {
            "AES-256" => json!(["encrypt", "decrypt"]),
            _ => json!(["sign", "verify"]),
        };
        let approval = approver.approve(json!({
            "operation": "key_generate", "key_type": key_type, "key_usage": usage,
        }));
        let fields = json!({
            "key_type": key_type, "key_usage": usage,
            "access_policy": { "requires_approval": requires_approval },
        });
        let made = self.make_with(&approval, fields).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.body["key_id"].as_str().expect("an id").to_owned()
    }

    /// POST of these fields in the usual scope, with the approval in the header.
    pub(crate) async fn post(&self, path: &str, fields: Value, approval: Option<&str>) -> Answer {
        let mut request = self.kms.request(Method::POST, path).json(&in_scope(fields));
        if let Some(approval) = approval {
            request = request.header("X-Approval-Token", approval);
        }
        Answer::of(request).await
    }

    /// Signs with an approval.
    pub(crate) async fn sign(&self, key_id: &str, approval: Option<&str>) -> Answer {
        let fields = json!({ "key_id": key_id, "data": base64(b"data") });
        self.post("/kms/v1/sign", fields, approval).await
    }

    /// Rotates with an approval.
    pub(crate) async fn rotate(&self, key_id: &str, approval: &str) -> Answer {
        let path = format!("/kms/v1/keys/{key_id}/rotate");
        self.post(&path, json!({}), Some(approval)).await
    }
}

impl Answer {
    /// Checks that this is the refusal of an approval by the rule whose words
    /// these are.
    #[track_caller]
    pub(crate) fn refused_approval(&self, rule: &str) {
        self.refused(403, "UNAUTHORIZED");
        let message = self.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(rule), "{rule:?} is not in {message:?}");
    }
}
