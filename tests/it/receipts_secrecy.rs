//! Neither the ledger nor the log holds anything that was given in confidence.

use serde_json::{Value, json};

use crate::support::{Answer, KmsProcess, base64, in_scope, leaves, text, with};

const DATA: &str = "canary-of-the-data";
const PLAINTEXT: &str = "canary-of-the-plaintext";
const AAD: &str = "canary-of-the-associated-data";
const TOKEN: &str = "canary-of-the-token";

struct Conversation {
    process: KmsProcess,
    client: reqwest::Client,
    /// What must be found nowhere.
    secrets: Vec<String>,
}

impl Conversation {
    async fn post(&self, path: &str, fields: Value) -> Answer {
        let url = format!("http://{}{path}", self.process.api());
        Answer::of(self.client.post(url).json(&in_scope(fields))).await
    }

    async fn generate(&self, key_type: &str, usage: Value) -> String {
        let fields = json!({
            "key_type": key_type, "key_usage": usage, "approval_token": TOKEN,
            "access_policy": { "requires_approval": true },
        });
        let made = self.post("/kms/v1/keys", fields).await;
        assert_eq!(made.status, 201, "{}", made.text);
        text(&made.body["key_id"]).to_owned()
    }

    fn keep_secret(&mut self, value: &Value) {
        self.secrets.push(text(value).to_owned());
    }

    async fn sign_and_verify(&mut self, key_type: &str) {
        let key_id = self.generate(key_type, json!(["sign", "verify"])).await;
        let fields = json!({
            "key_id": key_id, "data": base64(DATA), "approval_token": TOKEN,
        });
        let signed = self.post("/kms/v1/sign", fields.clone()).await;
        self.keep_secret(&signed.ok()["signature"]);
        let signature = json!({ "signature": signed.body["signature"] });
        let verifying = with(fields.clone(), signature);
        self.post("/kms/v1/verify", verifying).await.ok();
        let wrong = with(fields.clone(), json!({ "signature": base64(DATA) }));
        self.post("/kms/v1/verify", wrong).await.ok();
        let refused = with(fields, json!({ "algorithm": "A256GCM" }));
        let refused = self.post("/kms/v1/sign", refused).await;
        refused.refused_fields(&["algorithm"]);
        for step in ["rotate", "revoke"] {
            let path = format!("/kms/v1/keys/{key_id}/{step}");
            let refused = self.post(&path, json!({ "approval_token": 7 })).await;
            assert_eq!(refused.status, 400);
        }
        let path = format!("/kms/v1/keys/{key_id}/rotate");
        let token = json!({ "approval_token": TOKEN });
        self.post(&path, token).await.ok();
    }

    async fn encrypt_and_decrypt(&mut self) {
        let key_id = self
            .generate("AES-256", json!(["encrypt", "decrypt"]))
            .await;
        for algorithm in ["AES-256-GCM", "ChaCha20-Poly1305"] {
            let common = json!({
                "key_id": key_id, "aad": base64(AAD), "algorithm": algorithm,
                "approval_token": TOKEN,
            });
            let fields = with(common.clone(), json!({ "plaintext": base64(PLAINTEXT) }));
            let encrypted = self.post("/kms/v1/encrypt", fields).await;
            self.keep_secret(&encrypted.ok()["ciphertext"]);
            let sealed = json!({
                "ciphertext": encrypted.body["ciphertext"], "iv": encrypted.body["iv"],
            });
            let fields = with(common.clone(), sealed);
            self.post("/kms/v1/decrypt", fields.clone()).await.ok();
            let tampered = with(fields, json!({ "aad": base64(DATA) }));
            let refused = self.post("/kms/v1/decrypt", tampered).await;
            refused.refused(400, "INVALID_REQUEST");
        }
    }
}

/// Guards every place that writes: receipts, and log lines at the finest level.
#[tokio::test]
async fn neither_receipts_nor_logs_hold_what_was_given_in_confidence() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = KmsProcess::start(folder.path(), &[("KMS__LOG__LEVEL", "trace")]);
    let mut conversation = Conversation {
        process,
        client: reqwest::Client::new(),
        secrets: Vec::new(),
    };
    for secret in [DATA, PLAINTEXT, AAD, TOKEN] {
        conversation.secrets.push(secret.to_owned());
        conversation.secrets.push(base64(secret));
    }
    conversation.sign_and_verify("RSA-2048").await;
    conversation.sign_and_verify("Ed25519").await;
    conversation.encrypt_and_decrypt().await;

    let Conversation {
        process, secrets, ..
    } = conversation;
    process.signal("TERM");
    let (status, log) = process.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("request.end"), "{log}");
    let leaves = leaves(folder.path());
    assert!(leaves.len() > 15, "{}", leaves.len());
    let ledger = leaves.join("\n");
    for (place, written) in [("the log", &log), ("the ledger", &ledger)] {
        for secret in &secrets {
            assert!(!written.contains(secret), "{secret} in {place}");
        }
    }
}
