//! A bit of everything that keys in a token do, with every answer checked: it is
//! right, or it says that the HSM is away.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::token_service::TokenService;
use super::{Answer, DEADLINE, KmsProcess, base64, in_scope, unbase64};

/// Within this time a service works again whose token is back.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(5);

const DATA: &[u8] = b"what the load is about";

/// Keys of both backends, and what was answered.
pub(crate) struct TokenLoad {
    rsa: Value,
    ed25519: Option<(Value, Value)>,
    cipher: Option<(Value, Value)>,
    software_signer: Value,
    software_cipher: Value,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    refused: BTreeMap<&'static str, usize>,
    answered: BTreeMap<&'static str, usize>,
    slowest: Duration,
}

/// Whether a request needs the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Token,
    NoToken,
}

impl TokenLoad {
    /// Makes keys in a service without a token first, and then in this one, which is
    /// well and has the same data folder.
    pub(crate) async fn new(
        service: &TokenService,
        start: impl FnOnce() -> KmsProcess,
    ) -> (Self, KmsProcess) {
        let often = || json!({ "access_policy": { "max_usage_per_day": 1_000_000 } });
        let before = service.start_without_token();
        let software_signer = before.generate("Ed25519", often()).await;
        let software_cipher = before.generate("AES-256", often()).await;
        before.stop();
        let kms = start();
        let rsa = kms.generate("RSA-2048", often()).await;
        let offered = async |key_type: &str, usage: Value| {
            let mut fields = often();
            fields["key_type"] = key_type.into();
            fields["key_usage"] = usage;
            let made = kms.post_approved("/kms/v1/keys", &in_scope(fields)).await;
            (made.status == StatusCode::CREATED).then_some(made.body)
        };
        let ed25519 = offered("Ed25519", json!(["sign", "verify"])).await;
        let cipher = offered("AES-256", json!(["encrypt", "decrypt"])).await;
        let mut load = Self {
            rsa,
            ed25519: None,
            cipher: None,
            software_signer,
            software_cipher,
            known: Mutex::default(),
        };
        if let Some(key) = ed25519 {
            let body = in_scope(json!({ "key_id": key["key_id"], "data": base64(DATA) }));
            let signed = kms.post("/kms/v1/sign", &body).await;
            load.ed25519 = Some((key, signed.ok()["signature"].clone()));
        }
        if let Some(key) = cipher {
            let body = in_scope(json!({ "key_id": key["key_id"], "plaintext": base64(DATA) }));
            let encrypted = kms.post("/kms/v1/encrypt", &body).await;
            load.cipher = Some((key, encrypted.ok().clone()));
        }
        (load, kms)
    }

    /// One request of each kind, all at the same time.
    pub(crate) async fn wave(&self, kms: &KmsProcess) {
        tokio::join!(
            self.sign_rsa(kms),
            self.sign_ed25519(kms),
            self.verify_ed25519(kms),
            self.encrypt(kms),
            self.decrypt(kms),
            self.software(kms),
        );
    }

    /// Waves from several connections until this comes true.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &self,
        kms: &KmsProcess,
        what: &str,
        mut is_so: impl FnMut() -> F,
    ) {
        let start = Instant::now();
        loop {
            tokio::join!(self.wave(kms), self.wave(kms), self.wave(kms));
            if is_so().await {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{what} did not come to be");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waves until several in a row are served whole, which comes within
    /// [`BACK_WITHIN`]; how long it took.
    pub(crate) async fn until_served(&self, kms: &KmsProcess) -> Duration {
        let start = Instant::now();
        let mut served = 0;
        while served < 5 {
            let (before, began) = (self.refusals(), start.elapsed());
            tokio::join!(self.wave(kms), self.wave(kms), self.wave(kms));
            match self.refusals() == before {
                true => served += 1,
                false => {
                    served = 0;
                    assert!(began < BACK_WITHIN, "it is not back after {began:?}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        start.elapsed()
    }

    /// How many requests were refused.
    pub(crate) fn refusals(&self) -> usize {
        self.known.lock().expect("no panic").refused.values().sum()
    }

    /// How many of this kind were refused.
    pub(crate) fn refused(&self, what: &str) -> usize {
        let known = self.known.lock().expect("no panic");
        known.refused.get(what).copied().unwrap_or(0)
    }

    /// How many of this kind came to a result.
    pub(crate) fn answered(&self, what: &str) -> usize {
        let known = self.known.lock().expect("no panic");
        known.answered.get(what).copied().unwrap_or(0)
    }

    /// The longest that anybody waited, and from now on the longest again.
    pub(crate) fn take_slowest(&self) -> Duration {
        std::mem::take(&mut self.known.lock().expect("no panic").slowest)
    }

    /// A signature of RSA-PSS, which anybody can check.
    pub(crate) async fn sign_rsa(&self, kms: &KmsProcess) {
        let fields = json!({ "key_id": self.rsa["key_id"], "data": base64(DATA) });
        let asked = self.ask(kms, "sign rsa", Needs::Token, "/kms/v1/sign", fields);
        if let Some(signed) = asked.await {
            let der = der_of(&self.rsa["public_key"]);
            // What comes before the key itself in an SPKI (RFC 3279 §2.3.1).
            let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &der[24..]);
            let signature = unbase64(&signed["signature"]);
            assert!(key.verify(DATA, &signature).is_ok(), "a wrong signature");
        }
    }

    async fn sign_ed25519(&self, kms: &KmsProcess) {
        let Some((key, _)) = &self.ed25519 else {
            return;
        };
        let fields = json!({ "key_id": key["key_id"], "data": base64(DATA) });
        let asked = self.ask(kms, "sign ed25519", Needs::Token, "/kms/v1/sign", fields);
        if let Some(signed) = asked.await {
            let pem = key["public_key"].as_str().expect("PEM");
            let key = VerifyingKey::from_public_key_pem(pem).expect("a key");
            let signature = ed25519_dalek::Signature::from_slice(&unbase64(&signed["signature"]));
            let verified = key.verify_strict(DATA, &signature.expect("64 bytes"));
            assert!(verified.is_ok(), "a wrong signature");
        }
    }

    /// The public key is ours: no token is asked.
    async fn verify_ed25519(&self, kms: &KmsProcess) {
        let Some((key, signature)) = &self.ed25519 else {
            return;
        };
        for (data, is_valid) in [(DATA, true), (b"something else", false)] {
            let fields = json!({
                "key_id": key["key_id"], "data": base64(data), "signature": signature,
            });
            let asked = self.ask(kms, "verify", Needs::NoToken, "/kms/v1/verify", fields);
            assert_eq!(asked.await.expect("served")["valid"], is_valid);
        }
    }

    /// What was encrypted decrypts, now or whenever the token is there.
    pub(crate) async fn encrypt(&self, kms: &KmsProcess) {
        let Some((key, first)) = &self.cipher else {
            return;
        };
        let fields = json!({ "key_id": key["key_id"], "plaintext": base64(DATA) });
        let asked = self.ask(kms, "encrypt", Needs::Token, "/kms/v1/encrypt", fields);
        if let Some(encrypted) = asked.await {
            assert_ne!(encrypted["iv"], first["iv"]);
            self.decrypt_this(kms, &encrypted).await;
        }
    }

    async fn decrypt(&self, kms: &KmsProcess) {
        if let Some((_, encrypted)) = &self.cipher {
            self.decrypt_this(kms, encrypted).await;
        }
    }

    async fn decrypt_this(&self, kms: &KmsProcess, encrypted: &Value) {
        let fields = json!({
            "key_id": encrypted["key_id"],
            "ciphertext": encrypted["ciphertext"],
            "iv": encrypted["iv"],
        });
        let asked = self.ask(kms, "decrypt", Needs::Token, "/kms/v1/decrypt", fields);
        if let Some(decrypted) = asked.await {
            assert_eq!(unbase64(&decrypted["plaintext"]), DATA);
        }
    }

    /// Keys of the other backend do not notice.
    async fn software(&self, kms: &KmsProcess) {
        let fields = json!({ "key_id": self.software_signer["key_id"], "data": base64(DATA) });
        let asked = self.ask(kms, "software", Needs::NoToken, "/kms/v1/sign", fields);
        asked.await.expect("served");
        let cipher = &self.software_cipher["key_id"];
        let fields = json!({ "key_id": cipher, "plaintext": base64(DATA) });
        let asked = self.ask(kms, "software", Needs::NoToken, "/kms/v1/encrypt", fields);
        asked.await.expect("served");
    }

    /// The answer, if the token was there.
    async fn ask(
        &self,
        kms: &KmsProcess,
        what: &'static str,
        needs: Needs,
        path: &str,
        fields: Value,
    ) -> Option<Value> {
        let started = Instant::now();
        let request = kms.request(Method::POST, path).json(&in_scope(fields));
        let answer = Answer::of(request).await;
        let took = started.elapsed();
        let mut known = self.known.lock().expect("no panic");
        known.slowest = known.slowest.max(took);
        if answer.status == StatusCode::OK {
            *known.answered.entry(what).or_default() += 1;
            return Some(answer.body);
        }
        let is_excused = needs == Needs::Token;
        assert!(is_excused, "{what}: {} {}", answer.status, answer.text);
        let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
        assert_eq!(*details, json!({ "dependency": "hsm" }), "{what}");
        *known.refused.entry(what).or_default() += 1;
        None
    }
}

fn der_of(pem: &Value) -> Vec<u8> {
    let pem = pem.as_str().expect("PEM");
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.expect("base64")
}
