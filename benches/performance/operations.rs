//! The operations that are measured: what each sends, what it stands on, and how its
//! answers are looked at.

use ed25519_dalek::pkcs8::DecodePublicKey as _;
use rsa::signature::Verifier as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::load::connection::Request;
use crate::primitives::Primitive;
use crate::requests::{
    BATCH, KIBIBYTE, Key, MESSAGE, TENANT, base64, decoded, generate, scope_query,
};
use crate::servers::Server;

const KEYS: &str = "/kms/v1/keys";

/// One operation of the service.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) request: Request,
    /// The same body, or none, for the bare handler.
    pub(crate) bare: Bare,
    /// What the library has to do for it, and how often.
    pub(crate) primitive: Option<(Primitive, usize)>,
    /// How many receipts it leaves, each with a signature.
    pub(crate) receipts: usize,
    pub(crate) check: Check,
}

/// The request of the bare handler that is as large as an operation's, there and back.
pub(crate) struct Bare {
    pub(crate) request: Request,
    /// Operations of one class share a measurement: bytes of the request's body and
    /// of the answer's, in steps of 64.
    pub(crate) class: (usize, usize),
}

/// What an answer has to be, beside a success.
pub(crate) enum Check {
    /// Has these texts in it.
    Says(&'static str),
    /// Has signatures of the message under this key: checked by an implementation
    /// that is not the service's.
    Signed { key: Key, algorithm: &'static str },
    /// Has the plaintext.
    Opened,
    /// The service opens what it sealed.
    Sealed { key: Key, algorithm: &'static str },
}

/// Every operation, with keys made for it; those of a batch only where the service
/// has batches.
pub(crate) async fn operations(kms: &Server) -> Vec<Operation> {
    let rsa = Key::make(kms, TENANT, "RSA-2048").await;
    let ed25519 = Key::make(kms, TENANT, "Ed25519").await;
    let aes = Key::make(kms, TENANT, "AES-256").await;
    let mut all = Vec::new();
    for (key, algorithm, sign, verify) in [
        (
            &ed25519,
            "Ed25519",
            Primitive::SignEd25519,
            Some(Primitive::VerifyEd25519),
        ),
        (
            &rsa,
            "RSA-PSS-SHA256",
            Primitive::SignRsaPss,
            Some(Primitive::VerifyRsaPss),
        ),
        (
            &rsa,
            "RSA-PKCS1v15-SHA256",
            Primitive::SignRsaPkcs1v15,
            None,
        ),
    ] {
        all.extend(signing(kms, key, algorithm, sign, verify).await);
    }
    for (algorithm, seal, open) in [
        ("AES-256-GCM", Primitive::SealAesGcm, Primitive::OpenAesGcm),
        (
            "ChaCha20-Poly1305",
            Primitive::SealChaCha,
            Primitive::OpenChaCha,
        ),
    ] {
        all.extend(encrypting(kms, &aes, algorithm, seal, open).await);
    }
    let path = format!("{KEYS}/{}?{}", ed25519.id, scope_query(TENANT));
    all.push(reading(kms, "get key", &path, "\"active\"").await);
    let signed = kms.post("/kms/v1/sign", &ed25519.sign("Ed25519")).await;
    let receipt_id = signed["receipt_id"].as_str().expect("an id");
    let path = format!("/kms/v1/receipts/{receipt_id}?{}", scope_query(TENANT));
    all.push(reading(kms, "get receipt with its proof", &path, "\"receipt_id\"").await);
    for (primitive, key_type) in [
        (Primitive::GenerateEd25519, "Ed25519"),
        (Primitive::GenerateAes, "AES-256"),
        (Primitive::GenerateRsa, "RSA-2048"),
    ] {
        let body = generate(TENANT, key_type);
        let check = Check::Says("\"active\"");
        let made = posting(kms, KEYS, &body, primitive.name(), (primitive, 1), check).await;
        all.extend(made);
    }
    all
}

/// Those of a token, which need not have every algorithm.
pub(crate) async fn operations_on_token(kms: &Server) -> Vec<Operation> {
    let rsa = Key::make(kms, TENANT, "RSA-2048").await;
    let ed25519 = Key::make(kms, TENANT, "Ed25519").await;
    let aes = Key::make(kms, TENANT, "AES-256").await;
    let mut all = signing(kms, &rsa, "RSA-PSS-SHA256", Primitive::SignRsaPss, None).await;
    all.extend(signing(kms, &ed25519, "Ed25519", Primitive::SignEd25519, None).await);
    let (seal, open) = (Primitive::SealAesGcm, Primitive::OpenAesGcm);
    all.extend(encrypting(kms, &aes, "AES-256-GCM", seal, open).await);
    all.retain(|operation| {
        crate::token::MEASURED
            .iter()
            .any(|one| one.name() == operation.name)
    });
    all
}

async fn signing(
    kms: &Server,
    key: &Key,
    algorithm: &'static str,
    sign: Primitive,
    verify: Option<Primitive>,
) -> Vec<Operation> {
    let check = || Check::Signed {
        key: key.clone(),
        algorithm,
    };
    let item = json!({ "data": base64(&MESSAGE) });
    let body = key.one(algorithm, item.clone());
    let signature = kms.post("/kms/v1/sign", &body).await["signature"].clone();
    let mut made = Vec::new();
    made.extend(posting(kms, "/kms/v1/sign", &body, sign.name(), (sign, 1), check()).await);
    if algorithm == "Ed25519" {
        let (path, name) = ("/kms/v1/sign/batch", "sign 100 × Ed25519 in a batch");
        let body = key.batch(algorithm, &item);
        made.extend(posting(kms, path, &body, name, (sign, BATCH), check()).await);
    }
    let Some(verify) = verify else { return made };
    let valid = || Check::Says("\"valid\":true");
    let item = json!({ "data": base64(&MESSAGE), "signature": signature });
    let body = key.one(algorithm, item.clone());
    made.extend(
        posting(
            kms,
            "/kms/v1/verify",
            &body,
            verify.name(),
            (verify, 1),
            valid(),
        )
        .await,
    );
    if algorithm == "Ed25519" {
        let (path, name) = ("/kms/v1/verify/batch", "verify 100 × Ed25519 in a batch");
        let body = key.batch(algorithm, &item);
        made.extend(posting(kms, path, &body, name, (verify, BATCH), valid()).await);
    }
    made
}

async fn encrypting(
    kms: &Server,
    key: &Key,
    algorithm: &'static str,
    seal: Primitive,
    open: Primitive,
) -> Vec<Operation> {
    let sealed = || Check::Sealed {
        key: key.clone(),
        algorithm,
    };
    let plain = json!({ "plaintext": base64(&KIBIBYTE) });
    let body = key.one(algorithm, plain.clone());
    let answer = kms.post("/kms/v1/encrypt", &body).await;
    let cipher = json!({ "ciphertext": answer["ciphertext"], "iv": answer["iv"] });
    let mut made = Vec::new();
    made.extend(
        posting(
            kms,
            "/kms/v1/encrypt",
            &body,
            seal.name(),
            (seal, 1),
            sealed(),
        )
        .await,
    );
    let body = key.one(algorithm, cipher.clone());
    let opened = Check::Opened;
    made.extend(
        posting(
            kms,
            "/kms/v1/decrypt",
            &body,
            open.name(),
            (open, 1),
            opened,
        )
        .await,
    );
    if algorithm == "AES-256-GCM" {
        let (path, name) = (
            "/kms/v1/encrypt/batch",
            "encrypt 100 × AES-256-GCM in a batch",
        );
        let body = key.batch(algorithm, &plain);
        made.extend(posting(kms, path, &body, name, (seal, BATCH), sealed()).await);
        let (path, name) = (
            "/kms/v1/decrypt/batch",
            "decrypt 100 × AES-256-GCM in a batch",
        );
        let body = key.batch(algorithm, &cipher);
        made.extend(posting(kms, path, &body, name, (open, BATCH), Check::Opened).await);
    }
    made
}

async fn posting(
    kms: &Server,
    path: &str,
    body: &Value,
    name: &'static str,
    primitive: (Primitive, usize),
    check: Check,
) -> Option<Operation> {
    if !kms.has(path).await {
        return None;
    }
    let answer = kms.post(path, body).await;
    let class = class(body.to_string().len(), answer.to_string().len());
    let bare = Request::post(&format!("/bare/{}", class.1), body);
    Some(Operation {
        name,
        request: Request::post(path, body),
        bare: Bare {
            request: bare,
            class,
        },
        primitive: Some(primitive),
        receipts: primitive.1,
        check,
    })
}

async fn reading(kms: &Server, name: &'static str, path: &str, says: &'static str) -> Operation {
    let answer = kms.get(path).await;
    let class = class(0, answer.to_string().len());
    Operation {
        name,
        request: Request::get(path),
        bare: Bare {
            request: Request::get(&format!("/bare/{}", class.1)),
            class,
        },
        primitive: None,
        receipts: 0,
        check: Check::Says(says),
    }
}

fn class(asked: usize, answered: usize) -> (usize, usize) {
    (asked.next_multiple_of(64), answered.next_multiple_of(64))
}

impl Check {
    /// Holds answers to it.
    pub(crate) async fn hold(&self, name: &str, kms: &Server, answers: &[Vec<u8>]) {
        for answer in answers {
            let text = String::from_utf8_lossy(answer);
            let json: Value = serde_json::from_str(&text).expect("JSON");
            let results = match json["results"].as_array() {
                Some(results) => results.clone(),
                None => vec![json.clone()],
            };
            for result in &results {
                let holds = match self {
                    Self::Says(said) => result.to_string().contains(said),
                    Self::Opened => decoded(&result["plaintext"]) == KIBIBYTE,
                    Self::Signed { key, algorithm } => {
                        verifies(key, algorithm, &decoded(&result["signature"]))
                    }
                    Self::Sealed { key, algorithm } => {
                        let item = json!({
                            "ciphertext": result["ciphertext"], "iv": result["iv"],
                        });
                        let body = key.one(algorithm, item);
                        let opened = kms.post("/kms/v1/decrypt", &body).await;
                        decoded(&opened["plaintext"]) == KIBIBYTE
                    }
                };
                assert!(holds, "{name}: not what was asked for: {text}");
            }
        }
    }
}

fn verifies(key: &Key, algorithm: &str, signature: &[u8]) -> bool {
    let rsa = || rsa::PublicKey::from_public_key_pem(&key.public_key).expect("a key");
    match algorithm {
        "Ed25519" => {
            let key = ed25519_dalek::VerifyingKey::from_public_key_pem(&key.public_key);
            let signature = ed25519_dalek::Signature::from_slice(signature);
            let signature = signature.expect("64 bytes");
            key.expect("a key")
                .verify_strict(&MESSAGE, &signature)
                .is_ok()
        }
        "RSA-PSS-SHA256" => {
            let signature = rsa::pss::Signature::try_from(signature).expect("a signature");
            rsa::pss::VerifyingKey::<Sha256>::new(rsa())
                .verify(&MESSAGE, &signature)
                .is_ok()
        }
        _ => {
            let signature = rsa::pkcs1v15::Signature::try_from(signature).expect("a signature");
            rsa::pkcs1v15::VerifyingKey::<Sha256>::new(rsa())
                .verify(&MESSAGE, &signature)
                .is_ok()
        }
    }
}
