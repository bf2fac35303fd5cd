//! One public key in the form of RFC 7517: reading, writing and naming it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value, json};

use crate::domain::peer::PublicKeyNumbers;

/// The signature algorithms that tokens may have. HMAC and `none` have no name
/// here, so no text makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    Rs256,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes (RFC 7518 §3.5).
    Ps256,
    /// Ed25519 (RFC 8037 §3.1).
    EdDsa,
}

impl JwsAlgorithm {
    /// The algorithm of this very name: names are case-sensitive (RFC 7515 §4.1.1).
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Ps256, Self::EdDsa]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// The name in `alg`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn of_the_library(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A key that tokens are checked with.
pub(super) struct VerifyingKey {
    kid: String,
    algorithms: &'static [JwsAlgorithm],
    numbers: PublicKeyNumbers,
    owner: Option<String>,
    decoding: DecodingKey,
}

impl VerifyingKey {
    /// What tokens call the key: its `kid`, and where it has none its thumbprint.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// The key itself, for comparisons.
    pub(super) fn numbers(&self) -> &PublicKeyNumbers {
        &self.numbers
    }

    /// Whose key it is, where the set says so (`sub`).
    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Whether tokens signed with this key may have this algorithm (RFC 8725 §3.1).
    pub(super) fn allows(&self, algorithm: JwsAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` (base64url) is this key's signature of `message`.
    pub(super) fn is_signature(
        &self,
        algorithm: JwsAlgorithm,
        message: &[u8],
        signature: &str,
    ) -> bool {
        let library = algorithm.of_the_library();
        self.allows(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.decoding, library)
                .unwrap_or(false)
    }
}

/// What became of one entry of a key set.
pub(super) enum Entry {
    /// A key.
    Key(Box<VerifyingKey>),
    /// Something that is no fault and no use here, and why.
    Ignored(&'static str),
}

/// What is wrong with one entry of a key set; texts for the operator.
pub(super) type EntryFault = &'static str;

/// The smallest modulus, in bits (RFC 7518 §3.3), and the largest that the
/// engine takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The longest name (`kid`, `sub`) in bytes.
const LONGEST_NAME: usize = 256;

/// The members of a private key (RFC 7518 §6.2.2 and §6.3.2, RFC 8037 §2). A
/// symmetric key (`k`) is ignored with its kind.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// Reads one entry of a key set.
///
/// # Errors
/// What is wrong with it, where it is of a kind that is known, or private.
pub(super) fn read(jwk: &Map<String, Value>) -> Result<Entry, EntryFault> {
    if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
        return Err(
            "it is a private key; publish public keys only, and replace this one, which \
             others may have read",
        );
    }
    let kty = text(jwk, "kty")?.ok_or("it has no kty")?;
    if !matches!(kty, "RSA" | "OKP") {
        return Ok(Entry::Ignored("its kty is neither RSA nor OKP"));
    }
    if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Ok(Entry::Ignored("its use is not sig"));
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|name| name == "verify") => {}
        Some(Value::Array(_)) => return Ok(Entry::Ignored("its key_ops lack verify")),
        Some(_) => return Err("its key_ops is not a list"),
    }
    let (numbers, all): (_, &'static [JwsAlgorithm]) = if kty == "RSA" {
        (rsa(jwk)?, &[JwsAlgorithm::Rs256, JwsAlgorithm::Ps256])
    } else if text(jwk, "crv")? == Some("Ed25519") {
        (ed25519(jwk)?, &[JwsAlgorithm::EdDsa])
    } else {
        return Ok(Entry::Ignored("its crv is not Ed25519"));
    };
    let algorithms = match text(jwk, "alg")? {
        None => all,
        Some(name) => {
            let pinned = all.iter().position(|algorithm| algorithm.as_str() == name);
            match pinned {
                Some(place) => &all[place..=place],
                None => return Ok(Entry::Ignored("its alg is none of RS256, PS256, EdDSA")),
            }
        }
    };
    let kid = match name(jwk, "kid")? {
        Some(kid) => kid,
        None => thumbprint(&numbers).ok_or("it cannot be named")?,
    };
    let decoding = decoding_key(&numbers).ok_or("it cannot be used")?;
    Ok(Entry::Key(Box::new(VerifyingKey {
        kid,
        algorithms,
        numbers,
        owner: name(jwk, "sub")?,
        decoding,
    })))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, EntryFault> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("one of its members is not the text that it must be"),
    }
}

fn name(jwk: &Map<String, Value>, member: &str) -> Result<Option<String>, EntryFault> {
    match text(jwk, member)? {
        Some(name) if name.is_empty() || name.len() > LONGEST_NAME => {
            Err("its kid and sub must have 1 to 256 bytes")
        }
        name => Ok(name.map(str::to_owned)),
    }
}

fn number(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, EntryFault> {
    text(jwk, name)?
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or("one of its numbers is missing or not base64url without padding")
}

fn rsa(jwk: &Map<String, Value>) -> Result<PublicKeyNumbers, EntryFault> {
    let numbers = PublicKeyNumbers::rsa(&number(jwk, "n")?, &number(jwk, "e")?);
    require_strong_rsa(&numbers)?;
    Ok(numbers)
}

/// Whether an RSA key is one that signatures may stand on.
///
/// # Errors
/// What is wrong with it.
pub(super) fn require_strong_rsa(numbers: &PublicKeyNumbers) -> Result<(), EntryFault> {
    let PublicKeyNumbers::Rsa { modulus, exponent } = numbers else {
        return Ok(());
    };
    let leading = modulus
        .first()
        .map_or(8, |byte| byte.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(leading);
    if !RSA_BITS.contains(&bits) {
        return Err("its modulus must have 2048 to 8192 bits");
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    // Up to 2^33, the largest that the engine takes; 1 would make every message
    // its own signature.
    let is_exponent = is_odd(exponent) && exponent.len() <= 4 && exponent.as_slice() != [1];
    if !is_odd(modulus) || !is_exponent {
        return Err("its modulus or exponent is no RSA key's");
    }
    Ok(())
}

fn ed25519(jwk: &Map<String, Value>) -> Result<PublicKeyNumbers, EntryFault> {
    let key = number(jwk, "x")?;
    if key.len() != 32 {
        return Err("its x must have 32 bytes");
    }
    Ok(PublicKeyNumbers::Ed25519 { key })
}

fn decoding_key(numbers: &PublicKeyNumbers) -> Option<DecodingKey> {
    match numbers {
        PublicKeyNumbers::Rsa { modulus, exponent } => {
            Some(DecodingKey::from_rsa_raw_components(modulus, exponent))
        }
        PublicKeyNumbers::Ed25519 { key } => Some(DecodingKey::from_ed_der(key)),
        PublicKeyNumbers::Ec { .. } => None,
    }
}

/// The members that make the key (RFC 7518 §6.3.1, RFC 8037 §2), in the order of
/// RFC 7638 §3.2, which is also that of `serde_json`'s maps; `None` for a kind
/// that signs no token.
fn required_members(numbers: &PublicKeyNumbers) -> Option<Value> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match numbers {
        PublicKeyNumbers::Rsa { modulus, exponent } => {
            Some(json!({ "e": text(exponent), "kty": "RSA", "n": text(modulus) }))
        }
        PublicKeyNumbers::Ed25519 { key } => {
            Some(json!({ "crv": "Ed25519", "kty": "OKP", "x": text(key) }))
        }
        PublicKeyNumbers::Ec { .. } => None,
    }
}

/// The key's thumbprint with SHA-256, in base64url (RFC 7638 §3); `None` for a
/// kind that signs no token.
pub(super) fn thumbprint(numbers: &PublicKeyNumbers) -> Option<String> {
    use aws_lc_rs::digest::{SHA256, digest};
    let members = required_members(numbers)?.to_string();
    Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())))
}

/// The key as an entry of a key set, with its owner; `None` for a kind that
/// signs no token.
pub(super) fn write(
    numbers: &PublicKeyNumbers,
    kid: &str,
    algorithm: JwsAlgorithm,
    owner: &str,
) -> Option<Value> {
    let mut jwk = required_members(numbers)?;
    jwk["kid"] = kid.into();
    jwk["alg"] = algorithm.as_str().into();
    jwk["use"] = "sig".into();
    jwk["sub"] = owner.into();
    Some(jwk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn ed25519_jwk() -> Value {
        // RFC 8037 appendix A.2.
        json!({
            "kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
    }

    fn rsa_jwk() -> Value {
        // RFC 7638 §3.1.
        json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
        })
    }

    fn with(mut jwk: Value, member: &str, value: impl Into<Value>) -> Value {
        jwk[member] = value.into();
        jwk
    }

    fn key(jwk: Value) -> VerifyingKey {
        match read(&object(jwk)) {
            Ok(Entry::Key(key)) => *key,
            Ok(Entry::Ignored(why)) => panic!("ignored: {why}"),
            Err(fault) => panic!("{fault}"),
        }
    }

    #[test]
    fn a_key_without_a_kid_is_named_by_its_thumbprint() {
        assert_eq!(
            key(ed25519_jwk()).kid(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(
            key(rsa_jwk()).kid(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        assert_eq!(key(with(ed25519_jwk(), "kid", "a")).kid(), "a");
    }

    #[test]
    fn an_algorithm_is_pinned_by_the_kind_and_by_alg() {
        let rsa = key(rsa_jwk());
        assert!(rsa.allows(JwsAlgorithm::Rs256) && rsa.allows(JwsAlgorithm::Ps256));
        assert!(!rsa.allows(JwsAlgorithm::EdDsa));
        let pinned = key(with(rsa_jwk(), "alg", "PS256"));
        assert!(pinned.allows(JwsAlgorithm::Ps256) && !pinned.allows(JwsAlgorithm::Rs256));
        let ed25519 = key(ed25519_jwk());
        assert!(ed25519.allows(JwsAlgorithm::EdDsa) && !ed25519.allows(JwsAlgorithm::Rs256));
    }

    #[test]
    fn what_cannot_sign_tokens_is_ignored() {
        for jwk in [
            json!({ "kty": "oct", "k": "c2VjcmV0" }),
            json!({ "kty": "EC", "crv": "P-256", "x": "a", "y": "b" }),
            json!({ "kty": "new" }),
            with(rsa_jwk(), "use", "enc"),
            with(rsa_jwk(), "key_ops", json!(["encrypt"])),
            with(rsa_jwk(), "alg", "RS512"),
            with(rsa_jwk(), "alg", "HS256"),
            with(rsa_jwk(), "alg", "EdDSA"),
            with(ed25519_jwk(), "crv", "Ed448"),
            with(ed25519_jwk(), "alg", "rs256"),
        ] {
            let entry = read(&object(jwk.clone()));
            assert!(matches!(entry, Ok(Entry::Ignored(_))), "{jwk}");
        }
    }

    #[test]
    fn a_private_key_is_a_fault_whatever_its_kind() {
        for member in PRIVATE_MEMBERS {
            for jwk in [ed25519_jwk(), rsa_jwk(), json!({ "kty": "EC" })] {
                let fault = read(&object(with(jwk, member, "AQAB"))).err();
                assert!(
                    fault.is_some_and(|fault| fault.contains("private")),
                    "{member}"
                );
            }
        }
    }

    #[test]
    fn a_weak_or_malformed_key_is_a_fault() {
        let n = rsa_jwk()["n"].as_str().expect("text").to_owned();
        for jwk in [
            with(rsa_jwk(), "n", &n[..200]),
            with(rsa_jwk(), "n", format!("{n}=")),
            with(rsa_jwk(), "n", n.repeat(5)),
            with(rsa_jwk(), "n", Value::Null),
            with(rsa_jwk(), "e", "AQ"),
            with(rsa_jwk(), "e", "AAE"),
            with(rsa_jwk(), "e", "AQAA"),
            with(rsa_jwk(), "e", ""),
            with(ed25519_jwk(), "x", "AQAB"),
            with(ed25519_jwk(), "kid", ""),
            with(ed25519_jwk(), "kid", "k".repeat(257)),
            with(ed25519_jwk(), "sub", ""),
            with(ed25519_jwk(), "sub", 7),
            with(ed25519_jwk(), "use", json!(["sig"])),
            with(ed25519_jwk(), "kty", Value::Null),
            json!({}),
        ] {
            assert!(read(&object(jwk.clone())).is_err(), "{jwk}");
        }
    }

    #[test]
    fn leading_zeros_make_no_longer_key() {
        // 2040 bits with a zero before them.
        let short = [vec![0], vec![0xFF; 255]].concat();
        let jwk = with(rsa_jwk(), "n", URL_SAFE_NO_PAD.encode(short));
        assert!(read(&object(jwk)).is_err());
    }

    #[test]
    fn a_key_that_was_written_reads_back_with_its_owner() {
        let numbers = key(rsa_jwk()).numbers().clone();
        let written = write(&numbers, "k1", JwsAlgorithm::Ps256, "alice").expect("RSA");
        let back = key(written);
        assert_eq!((back.kid(), back.owner()), ("k1", Some("alice")));
        assert_eq!(back.numbers(), &numbers);
        assert!(!back.allows(JwsAlgorithm::Rs256));
    }
}
