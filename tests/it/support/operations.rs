//! The operations of the service as a caller spells them.

use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{APPROVAL, Answer, TestKms, base64, in_scope, with};

/// A receipt as the service hands it out.
pub(crate) struct FoundReceipt {
    /// The very bytes of it in the answer.
    pub(crate) text: String,
    /// The same, parsed.
    pub(crate) receipt: Value,
    /// Its place in the ledger.
    pub(crate) leaf_index: u64,
}

#[derive(serde::Deserialize)]
struct ReceiptEnvelope {
    receipt: Box<RawValue>,
    leaf_index: u64,
}

impl TestKms {
    /// POST of this body, not sent yet.
    pub(crate) fn post_request(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    /// POST of these fields with the usual scope.
    pub(crate) async fn post_scoped(&self, path: &str, fields: Value) -> Answer {
        self.post(path, &in_scope(fields)).await
    }

    /// Signs with the key's default.
    pub(crate) async fn sign(&self, key_id: &str, data: &[u8]) -> Answer {
        let fields = json!({ "key_id": key_id, "data": base64(data) });
        self.post_scoped("/kms/v1/sign", fields).await
    }

    /// Verifies with the key's default.
    pub(crate) async fn verify(&self, key_id: &str, data: &[u8], signature: &Value) -> Answer {
        let fields = json!({
            "key_id": key_id, "data": base64(data), "signature": signature,
        });
        self.post_scoped("/kms/v1/verify", fields).await
    }

    /// Encrypts with the key's default and without associated data.
    pub(crate) async fn encrypt(&self, key_id: &str, plaintext: &[u8]) -> Answer {
        let fields = json!({ "key_id": key_id, "plaintext": base64(plaintext) });
        self.post_scoped("/kms/v1/encrypt", fields).await
    }

    /// Decrypts what an encryption answered, with the algorithm that it named.
    pub(crate) async fn decrypt(&self, key_id: &str, encrypted: &Value) -> Answer {
        let fields = json!({
            "key_id": key_id,
            "ciphertext": encrypted["ciphertext"],
            "iv": encrypted["iv"],
            "algorithm": encrypted["algorithm"],
        });
        self.post_scoped("/kms/v1/decrypt", fields).await
    }

    /// A rotation with an approval, not sent yet.
    pub(crate) fn rotate_request(&self, key_id: &str) -> RequestBuilder {
        self.post_request(
            &format!("/kms/v1/keys/{key_id}/rotate"),
            &in_scope(json!({ "approval_token": APPROVAL })),
        )
    }

    /// Rotates with an approval.
    pub(crate) async fn rotate(&self, key_id: &str) -> Answer {
        Answer::of(self.rotate_request(key_id)).await
    }

    /// A revocation with an approval, not sent yet.
    pub(crate) fn revoke_request(&self, key_id: &str) -> RequestBuilder {
        self.post_request(
            &format!("/kms/v1/keys/{key_id}/revoke"),
            &in_scope(json!({
                "revocation_reason": "compromised", "approval_token": APPROVAL,
            })),
        )
    }

    /// Revokes as compromised, with an approval.
    pub(crate) async fn revoke(&self, key_id: &str) -> Answer {
        Answer::of(self.revoke_request(key_id)).await
    }

    /// A step in a key's life with these fields, with an approval.
    pub(crate) async fn step(&self, key_id: &str, step: &str, fields: Value) -> Answer {
        let path = format!("/kms/v1/keys/{key_id}/{step}");
        self.post_approved(&path, &in_scope(fields)).await
    }

    /// Revokes for this reason, with an approval.
    pub(crate) async fn revoke_as(&self, key_id: &str, reason: &str) -> Answer {
        let fields = json!({ "revocation_reason": reason });
        self.step(key_id, "revoke", fields).await
    }

    /// Changes a key's alias or policy, with an approval.
    pub(crate) async fn update(&self, key_id: &str, fields: Value) -> Answer {
        let body = in_scope(with(fields, json!({ "approval_token": APPROVAL })));
        let path = format!("/kms/v1/keys/{key_id}");
        Answer::of(self.request(Method::PATCH, &path).json(&body)).await
    }

    /// The metadata of a key of the usual scope.
    pub(crate) async fn details(&self, key_id: &str) -> Value {
        let answer = self.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
        answer.ok().clone()
    }

    /// A receipt of the usual scope.
    pub(crate) async fn receipt(&self, receipt_id: &Value) -> FoundReceipt {
        let receipt_id = receipt_id.as_str().expect("a receipt id");
        let answer = self
            .get_scoped(&format!("/kms/v1/receipts/{receipt_id}"))
            .await;
        answer.ok();
        let found: ReceiptEnvelope = serde_json::from_str(&answer.text).expect("a receipt");
        FoundReceipt {
            receipt: serde_json::from_str(found.receipt.get()).expect("JSON"),
            text: found.receipt.get().to_owned(),
            leaf_index: found.leaf_index,
        }
    }

    /// How many receipts the ledger holds, as the metrics say.
    pub(crate) async fn ledger_size(&self) -> u64 {
        let request = self.operations_request(Method::GET, "/kms/v1/metrics");
        let metrics = Answer::of(request).await;
        metrics
            .text
            .lines()
            .find_map(|line| line.strip_prefix("kms_ledger_size "))
            .and_then(|size| size.trim().parse().ok())
            .expect("the size of the ledger")
    }
}

/// Sends all of these at the same time; the answers in the order of the requests.
pub(crate) async fn all_at_once(requests: Vec<RequestBuilder>) -> Vec<Answer> {
    let sent: Vec<_> = requests
        .into_iter()
        .map(|request| tokio::spawn(Answer::of(request)))
        .collect();
    let mut answers = Vec::with_capacity(sent.len());
    for answer in sent {
        answers.push(answer.await.expect("no panic"));
    }
    answers
}
