//! Keys, key sets and tokens for the tests of this folder. The signatures are
//! those of other implementations than the one that checks them.

use std::sync::{Mutex, OnceLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use serde_json::{Value, json};

use super::jwk::{self, JwsAlgorithm};
use super::key_set::KeySet;
use crate::domain::peer::PublicKeyNumbers;
use crate::domain::time::{Period, Timestamp};
use crate::ports::clock::Clock;

/// Somebody who signs tokens.
pub(super) struct Signer {
    kid: String,
    algorithm: JwsAlgorithm,
    key: Key,
    owner: Option<String>,
}

enum Key {
    Rsa(&'static RsaKey),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// One key in two implementations.
struct RsaKey {
    /// Makes it and knows its public half.
    maker: RsaKeyPair,
    /// Signs with it.
    signer: ring::signature::RsaKeyPair,
}

/// One RSA key for all tests: making one takes its time.
fn rsa() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let maker = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = maker.as_der().expect("DER");
        let signer = ring::signature::RsaKeyPair::from_pkcs8(der.as_ref()).expect("a key");
        drop(der);
        RsaKey { maker, signer }
    })
}

impl Signer {
    pub(super) fn rs256(kid: &str) -> Self {
        Self::new(kid, JwsAlgorithm::Rs256, Key::Rsa(rsa()))
    }

    pub(super) fn ps256(kid: &str) -> Self {
        Self::new(kid, JwsAlgorithm::Ps256, Key::Rsa(rsa()))
    }

    pub(super) fn ed25519(kid: &str, seed: u8) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        Self::new(kid, JwsAlgorithm::EdDsa, Key::Ed25519(Box::new(key)))
    }

    fn new(kid: &str, algorithm: JwsAlgorithm, key: Key) -> Self {
        Self {
            kid: kid.to_owned(),
            algorithm,
            key,
            owner: None,
        }
    }

    pub(super) fn owned_by(mut self, owner: &str) -> Self {
        self.owner = Some(owner.to_owned());
        self
    }

    pub(super) fn numbers(&self) -> PublicKeyNumbers {
        match &self.key {
            Key::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.maker.public_key());
                PublicKeyNumbers::rsa(&public.n, &public.e)
            }
            Key::Ed25519(key) => PublicKeyNumbers::Ed25519 {
                key: key.verifying_key().to_bytes().to_vec(),
            },
        }
    }

    /// Every form of the public key that somebody might take for a secret.
    pub(super) fn public_forms(&self) -> Vec<Vec<u8>> {
        let Key::Rsa(key) = &self.key else {
            panic!("only for RSA keys");
        };
        let public = key.maker.public_key();
        let spki: PublicKeyX509Der<'_> = public.as_der().expect("DER");
        let PublicKeyNumbers::Rsa { modulus, .. } = self.numbers() else {
            panic!("an RSA key has RSA numbers");
        };
        let text = URL_SAFE_NO_PAD.encode(&modulus).into_bytes();
        let spki = spki.as_ref().to_vec();
        vec![spki, public.as_ref().to_vec(), modulus, text]
    }

    pub(super) fn jwk(&self) -> Value {
        let owner = self.owner.as_deref().unwrap_or_default();
        let mut jwk = jwk::write(&self.numbers(), &self.kid, self.algorithm, owner)
            .expect("of a kind that signs tokens");
        if self.owner.is_none() {
            jwk.as_object_mut().expect("an object").remove("sub");
        }
        jwk
    }

    pub(super) fn set_text(signers: &[&Self]) -> String {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        json!({ "keys": keys }).to_string()
    }

    pub(super) fn set(signers: &[&Self]) -> KeySet {
        KeySet::parse(Self::set_text(signers).as_bytes()).expect("a key set")
    }

    /// A token with these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign_as(&header_of(self.algorithm.as_str(), &self.kid), claims)
    }

    /// A token with any header, signed with this key in its own algorithm.
    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        self.sign_texts(&header.to_string(), &claims.to_string())
    }

    pub(super) fn sign_texts(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let key = match &self.key {
            Key::Ed25519(key) => return key.sign(message).to_bytes().to_vec(),
            Key::Rsa(key) => &key.signer,
        };
        let mut signature = vec![0; key.public().modulus_len()];
        let padding: &dyn RsaEncoding = match self.algorithm {
            JwsAlgorithm::Rs256 => &RSA_PKCS1_SHA256,
            _ => &RSA_PSS_SHA256,
        };
        key.sign(padding, &SystemRandom::new(), message, &mut signature)
            .expect("signed");
        signature
    }
}

pub(super) fn header_of(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "JWT" })
}

/// A token with this very text in the place of the signature.
pub(super) fn compact(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

/// A clock that stands until it is told to go on.
pub(super) struct StoppedClock(Mutex<Timestamp>);

impl StoppedClock {
    pub(super) fn new() -> Self {
        Self(Mutex::new("2026-03-01T12:00:00Z".parse().expect("valid")))
    }

    pub(super) fn advance(&self, period: Period) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(period);
    }

    /// Seconds since 1970, from now.
    pub(super) fn seconds(&self, from_now: i64) -> i64 {
        self.now().microseconds() / 1_000_000 + from_now
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
