//! What the cryptographic library alone takes, on one core: the part of an operation
//! that no service can save.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RSA_PKCS1_SHA256,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};

use crate::process::thread_seconds;
use crate::report::Line;
use crate::requests::{KIBIBYTE, MESSAGE};

/// An operation of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    SignEd25519,
    VerifyEd25519,
    SignRsaPss,
    SignRsaPkcs1v15,
    VerifyRsaPss,
    SealAesGcm,
    OpenAesGcm,
    SealChaCha,
    OpenChaCha,
    GenerateEd25519,
    GenerateAes,
    GenerateRsa,
}

use Primitive as P;

impl Primitive {
    pub(crate) const ALL: [Self; 12] = [
        P::SignEd25519,
        P::VerifyEd25519,
        P::SignRsaPss,
        P::SignRsaPkcs1v15,
        P::VerifyRsaPss,
        P::SealAesGcm,
        P::OpenAesGcm,
        P::SealChaCha,
        P::OpenChaCha,
        P::GenerateEd25519,
        P::GenerateAes,
        P::GenerateRsa,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            P::SignEd25519 => "sign Ed25519",
            P::VerifyEd25519 => "verify Ed25519",
            P::SignRsaPss => "sign RSA-PSS",
            P::SignRsaPkcs1v15 => "sign RSA-PKCS1v15",
            P::VerifyRsaPss => "verify RSA-PSS",
            P::SealAesGcm => "encrypt AES-256-GCM 1 KiB",
            P::OpenAesGcm => "decrypt AES-256-GCM 1 KiB",
            P::SealChaCha => "encrypt ChaCha20-Poly1305 1 KiB",
            P::OpenChaCha => "decrypt ChaCha20-Poly1305 1 KiB",
            P::GenerateEd25519 => "generate Ed25519",
            P::GenerateAes => "generate AES-256",
            P::GenerateRsa => "generate RSA-2048",
        }
    }
}

/// What each took in this run.
pub(crate) struct Primitives(Vec<(Primitive, f64)>);

impl Primitives {
    /// Measures all of them, each for that long.
    pub(crate) fn measure(each: Duration) -> Self {
        let ed25519 = Ed25519KeyPair::generate().expect("randomness");
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness");
        Self(
            Primitive::ALL
                .into_iter()
                .map(|primitive| (primitive, one(primitive, &ed25519, &rsa, each)))
                .collect(),
        )
    }

    /// A line of each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Line> {
        self.0.iter().map(|(primitive, cpu_us)| Line {
            name: primitive.name().to_owned(),
            through: "library".to_owned(),
            at_once: 1,
            per_second: 1e6 / cpu_us,
            cpu_us: *cpu_us,
            ..Line::default()
        })
    }

    /// Microseconds of one core.
    pub(crate) fn of(&self, primitive: Primitive) -> f64 {
        let found = self.0.iter().find(|(measured, _)| *measured == primitive);
        found.expect("all of them are measured").1
    }
}

fn one(primitive: Primitive, ed25519: &Ed25519KeyPair, rsa: &RsaKeyPair, each: Duration) -> f64 {
    let random = SystemRandom::new();
    let sign_rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        let signed = rsa.sign(encoding, &random, &MESSAGE, &mut signature);
        signed.expect("a signature");
        signature
    };
    match primitive {
        P::SignEd25519 => mean(each, || ed25519.sign(&MESSAGE)),
        P::VerifyEd25519 => {
            let signature = ed25519.sign(&MESSAGE);
            let public = ed25519.public_key().as_ref();
            let key = ParsedPublicKey::new(&ED25519, public).expect("a key");
            mean(each, || {
                key.verify_sig(&MESSAGE, signature.as_ref()).expect("valid");
            })
        }
        P::SignRsaPss => mean(each, || sign_rsa(&RSA_PSS_SHA256)),
        P::SignRsaPkcs1v15 => mean(each, || sign_rsa(&RSA_PKCS1_SHA256)),
        P::VerifyRsaPss => {
            let signature = sign_rsa(&RSA_PSS_SHA256);
            let public = rsa.public_key().as_ref();
            let key = ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public).expect("a key");
            mean(each, || {
                key.verify_sig(&MESSAGE, &signature).expect("valid");
            })
        }
        P::SealAesGcm => seal(&AES_256_GCM, each),
        P::OpenAesGcm => open(&AES_256_GCM, each),
        P::SealChaCha => seal(&CHACHA20_POLY1305, each),
        P::OpenChaCha => open(&CHACHA20_POLY1305, each),
        P::GenerateEd25519 => mean(each, || Ed25519KeyPair::generate().expect("randomness")),
        P::GenerateAes => mean(each, || {
            let mut key = [0u8; 32];
            aws_lc_rs::rand::fill(&mut key).expect("randomness");
            key
        }),
        // Each takes another time, so it takes some of them.
        P::GenerateRsa => mean(each * 5, || {
            RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness")
        }),
    }
}

fn aead_key(algorithm: &'static Algorithm) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes"))
}

fn sealed(key: &LessSafeKey) -> Vec<u8> {
    let mut text = Vec::with_capacity(KIBIBYTE.len() + 16);
    text.extend_from_slice(&KIBIBYTE);
    let nonce = Nonce::assume_unique_for_key([7; 12]);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut text)
        .expect("sealed");
    text
}

fn seal(algorithm: &'static Algorithm, each: Duration) -> f64 {
    let key = aead_key(algorithm);
    mean(each, || sealed(&key))
}

fn open(algorithm: &'static Algorithm, each: Duration) -> f64 {
    let key = aead_key(algorithm);
    let text = sealed(&key);
    mean(each, || {
        let mut text = text.clone();
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        key.open_in_place(nonce, Aad::empty(), &mut text)
            .expect("opened");
        text
    })
}

/// Microseconds of CPU that one takes, over as many as fit into that time.
fn mean<T>(each: Duration, mut work: impl FnMut() -> T) -> f64 {
    black_box(work());
    let (before, started, mut done) = (thread_seconds(), Instant::now(), 0u32);
    while started.elapsed() < each {
        black_box(work());
        done += 1;
    }
    (thread_seconds() - before) * 1e6 / f64::from(done.max(1))
}
