//! The identity service: its keys and its tokens, by implementations that are
//! not the service's.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use serde_json::{Value, json};

use super::approver::{compact, seconds_since_1970};
use super::{Answer, with};

/// One key of the identity service.
pub(crate) struct Issuer {
    kid: &'static str,
    key: Key,
}

enum Key {
    Ed25519(SigningKey),
    Rsa(RsaUse),
}

/// What the one RSA key of a run is used for.
struct RsaUse {
    alg: &'static str,
    padding: &'static dyn RsaEncoding,
}

impl Issuer {
    /// A key for EdDSA.
    pub(crate) fn ed25519(kid: &'static str, seed: u8) -> Self {
        let key = Key::Ed25519(SigningKey::from_bytes(&[seed; 32]));
        Self { kid, key }
    }

    /// The RSA key of the run, for RS256.
    pub(crate) fn rs256(kid: &'static str) -> Self {
        let (alg, padding) = ("RS256", &RSA_PKCS1_SHA256);
        let key = Key::Rsa(RsaUse { alg, padding });
        Self { kid, key }
    }

    /// The RSA key of the run, for PS256.
    pub(crate) fn ps256(kid: &'static str) -> Self {
        let (alg, padding) = ("PS256", &RSA_PSS_SHA256);
        let key = Key::Rsa(RsaUse { alg, padding });
        Self { kid, key }
    }

    /// The key set of these keys.
    pub(crate) fn key_set(issuers: &[&Self]) -> String {
        let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
        json!({ "keys": keys }).to_string()
    }

    /// The public key as an entry of a key set.
    pub(crate) fn jwk(&self) -> Value {
        let named = json!({ "use": "sig", "alg": self.alg(), "kid": self.kid });
        let numbers = match &self.key {
            Key::Ed25519(key) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key.verifying_key()),
            }),
            Key::Rsa(_) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(rsa().signer.public());
                json!({
                    "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(public.n),
                    "e": URL_SAFE_NO_PAD.encode(public.e),
                })
            }
        };
        with(named, numbers)
    }

    /// A token of the usual workload (module M21 of the usual scope) with these
    /// claims beside its own or in their place; `null` takes one away.
    pub(crate) fn token(&self, changes: Value) -> String {
        self.sign(&self.header(), &Self::claims(changes))
    }

    /// The claims of such a token.
    pub(crate) fn claims(changes: Value) -> Value {
        let claims = json!({
            "sub": "workload-7", "module_id": "M21", "tenant_id": "tenant123",
            "environment": "prod", "exp": seconds_since_1970() + 300, "aud": "M33",
        });
        let mut claims = with(claims, changes);
        let object = claims.as_object_mut().expect("an object");
        object.retain(|_, value| !value.is_null());
        claims
    }

    /// The header of such a token.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.alg(), "kid": self.kid, "typ": "at+jwt" })
    }

    /// A token of this very header and these claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        compact(header, claims, |message| self.signature(message))
    }

    fn alg(&self) -> &'static str {
        match &self.key {
            Key::Ed25519(_) => "EdDSA",
            Key::Rsa(usage) => usage.alg,
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let padding = match &self.key {
            Key::Ed25519(key) => return key.sign(message).to_bytes().to_vec(),
            Key::Rsa(usage) => usage.padding,
        };
        let key = &rsa().signer;
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut signature)
            .expect("signed");
        signature
    }
}

/// The public RSA key of the run in the forms that somebody might take for the
/// secret of an HMAC.
pub(crate) fn public_rsa_forms() -> Vec<Vec<u8>> {
    let RsaKey { signer, spki } = rsa();
    let modulus = PublicKeyComponents::<Vec<u8>>::from(signer.public()).n;
    let base64 = super::base64(spki);
    let lines: Vec<&str> = (0..base64.len())
        .step_by(64)
        .map(|start| &base64[start..base64.len().min(start + 64)])
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    let text = URL_SAFE_NO_PAD.encode(&modulus).into_bytes();
    vec![pem.into_bytes(), spki.clone(), modulus, text]
}

/// A key pair, and its public half as SubjectPublicKeyInfo.
struct RsaKey {
    signer: RsaKeyPair,
    spki: Vec<u8>,
}

/// One RSA key for all tests: making one takes its time.
fn rsa() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| {
        use aws_lc_rs::rsa::{KeyPair, KeySize};
        use aws_lc_rs::signature::KeyPair as _;
        let maker = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = maker.as_der().expect("DER");
        let spki: PublicKeyX509Der<'_> = maker.public_key().as_der().expect("DER");
        RsaKey {
            signer: RsaKeyPair::from_pkcs8(der.as_ref()).expect("a key"),
            spki: spki.as_ref().to_vec(),
        }
    })
}

impl Answer {
    /// Checks that nobody was identified by the rule whose words these are, and
    /// that the answer says how to identify oneself (RFC 6750 §3).
    #[track_caller]
    pub(crate) fn refused_token(&self, rule: &str) {
        self.refused(401, "UNAUTHENTICATED");
        let message = self.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(rule), "{rule:?} is not in {message:?}");
        assert_eq!(self.headers["www-authenticate"], "Bearer");
    }
}
