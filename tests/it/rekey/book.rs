//! Keys, and what was once made with each, so that it can be told whether a key is
//! still the same.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{APPROVAL, Answer, KmsProcess, all, base64, in_scope, text};

/// Requests at once.
const CLIENTS: usize = 8;

/// A key, and something that was made with it.
pub(super) struct Known {
    key_id: String,
    key_type: String,
    /// A signature of "data", or what an encryption of it answered.
    made: Value,
}

/// Keys that are known.
pub(super) struct Book(pub(super) Vec<Known>);

impl Book {
    /// Makes so many keys of each type, and uses each once.
    pub(super) async fn fill(kms: &KmsProcess, wanted: &[(&'static str, usize)]) -> Self {
        let known = Mutex::new(Vec::new());
        let types: Vec<&str> = wanted
            .iter()
            .flat_map(|(key_type, number)| std::iter::repeat_n(*key_type, *number))
            .collect();
        for_each(&types, |key_type| async {
            let key_type = *key_type;
            let key_id = kms.generate_id(key_type).await;
            let made = make_something(kms, &key_id, key_type).await;
            known.lock().expect("no panic").push(Known {
                key_id,
                key_type: key_type.to_owned(),
                made,
            });
        })
        .await;
        Self(known.into_inner().expect("no panic"))
    }

    /// Makes so many keys and uses none.
    pub(super) async fn generate_only(kms: &KmsProcess, key_type: &str, number: usize) -> Self {
        let known = Mutex::new(Vec::new());
        for_each(&vec![(); number], |()| async {
            let key_id = kms.generate_id(key_type).await;
            known.lock().expect("no panic").push(Known {
                key_id,
                key_type: key_type.to_owned(),
                made: Value::Null,
            });
        })
        .await;
        Self(known.into_inner().expect("no panic"))
    }

    /// Uses the keys in turn for as long as this is so; none fails.
    pub(super) async fn use_all_while(&self, kms: &KmsProcess, is_so: impl Fn() -> bool) {
        while is_so() {
            for known in &self.0 {
                known.check(kms).await;
                if !is_so() {
                    return;
                }
            }
        }
    }

    /// Each key still is what it was, and makes something new.
    pub(super) async fn check(&self, kms: &KmsProcess) {
        for_each(&self.0, |known| async {
            known.check(kms).await;
            make_something(kms, &known.key_id, &known.key_type).await;
        })
        .await;
    }

    /// Revokes one after the other, with a little time between.
    pub(super) async fn revoke_all(&self, kms: &KmsProcess) {
        for known in &self.0 {
            known.revoke(kms).await.ok();
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    }

    pub(super) async fn check_revoked(&self, kms: &KmsProcess) {
        for known in &self.0 {
            let body = in_scope(json!({ "key_id": known.key_id, "data": base64("data") }));
            let refused = kms.post("/kms/v1/sign", &body).await;
            refused.refused(409, "KEY_REVOKED");
        }
    }
}

impl Known {
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    async fn check(&self, kms: &KmsProcess) {
        if self.key_type == "AES-256" {
            let body = in_scope(json!({
                "key_id": self.key_id,
                "ciphertext": self.made["ciphertext"],
                "iv": self.made["iv"],
            }));
            let opened = kms.post("/kms/v1/decrypt", &body).await;
            assert_eq!(opened.ok()["plaintext"], base64("data"));
        } else {
            // The public half, and a signature that it accepts.
            let signature = make_something(kms, &self.key_id, &self.key_type).await;
            for signature in [&self.made, &signature] {
                let body = in_scope(json!({
                    "key_id": self.key_id, "data": base64("data"), "signature": signature,
                }));
                let verified = kms.post("/kms/v1/verify", &body).await;
                assert_eq!(verified.ok()["valid"], true);
            }
        }
    }

    pub(super) async fn revoke(&self, kms: &KmsProcess) -> Answer {
        let path = format!("/kms/v1/keys/{}/revoke", self.key_id);
        let body = in_scope(json!({
            "revocation_reason": "compromised", "approval_token": APPROVAL,
        }));
        Answer::of(kms.request(Method::POST, &path).json(&body)).await
    }
}

/// A signature of "data", or what an encryption of it answers.
async fn make_something(kms: &KmsProcess, key_id: &str, key_type: &str) -> Value {
    if key_type == "AES-256" {
        let body = in_scope(json!({ "key_id": key_id, "plaintext": base64("data") }));
        return kms.post("/kms/v1/encrypt", &body).await.ok().clone();
    }
    let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    let signed = kms.post("/kms/v1/sign", &body).await;
    Value::from(text(&signed.ok()["signature"]))
}

/// Does this with each, several at once.
async fn for_each<'a, T, F: Future<Output = ()>>(things: &'a [T], work: impl Fn(&'a T) -> F) {
    let next = Mutex::new(things.iter());
    let client = async || loop {
        let thing = next.lock().expect("no panic").next();
        match thing {
            Some(thing) => work(thing).await,
            None => return,
        }
    };
    all((0..CLIENTS).map(|_| client())).await;
}
