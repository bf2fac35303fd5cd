//! Tokens and key sets from a stranger.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{Claims, LEEWAY};
use super::key_set::KeySet;
use super::strict_json::parse_object;
use super::token;
use crate::domain::time::Timestamp;

/// A key whose private half is in nobody's hands but this file's.
static SIGNER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes"));

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let x = URL_SAFE_NO_PAD.encode(SIGNER.public_key());
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
    KeySet::parse(set.as_bytes()).expect("a key set")
});

/// A key set: whatever reads has keys that are found by their names.
pub(crate) fn key_set(bytes: &[u8]) {
    if let Ok(set) = KeySet::parse(bytes) {
        assert!(set.len() > 0, "a set without a key");
    }
}

/// JSON with each member once: what reads says the same to another reader.
pub(crate) fn strict_json(bytes: &[u8]) {
    if let Ok(object) = parse_object(bytes) {
        let again: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        assert_eq!(again.as_object(), Some(&object));
    }
}

/// A token: never a good one, since nobody signed it.
pub(crate) fn token(bytes: &[u8]) {
    assert!(token::verify(bytes, &KEYS).is_err(), "a forged token");
    // The form of one that is all right, with this as the signature or the payload.
    let part = URL_SAFE_NO_PAD.encode(bytes);
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","kid":"k"}"#);
    for forged in [
        format!("{header}.e30.{part}"),
        format!("{header}.{part}.{part}"),
        format!("{part}.e30.{part}"),
    ] {
        assert!(token::verify(forged.as_bytes(), &KEYS).is_err(), "{forged}");
    }
}

/// Claims that somebody with a key signed: all of them are read.
pub(crate) fn claims(bytes: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","kid":"k"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let signature = URL_SAFE_NO_PAD.encode(SIGNER.sign(signed.as_bytes()));
    let token = format!("{signed}.{signature}");
    let Ok(verified) = token::verify(token.as_bytes(), &KEYS) else {
        return;
    };
    assert!(
        parse_object(bytes).is_ok(),
        "claims that are no strict JSON"
    );
    read_all(&verified.claims);
}

fn read_all(claims: &Claims) {
    for name in ["iss", "sub", "jti", "module_id", "tenant_id", "environment"] {
        if let Ok(text) = claims.text(name) {
            assert!(!text.is_empty(), "an empty {name}");
        }
    }
    let _ = claims.texts("aud");
    let now = Timestamp::from_microseconds(1_700_000_000_000_000).expect("a time");
    if claims.require_not_expired(now).is_ok() {
        let end = claims
            .instant("exp")
            .expect("what is not expired has an end");
        assert!(end.plus(LEEWAY) > now, "an end in the past");
    }
    let _ = claims.require_begun(now);
    let _ = claims.optional_instant("iat");
}
