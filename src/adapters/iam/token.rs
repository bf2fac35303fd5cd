//! Tokens: compact JWS (RFC 7515 §7.1) with JSON claims (RFC 7519), checked by
//! the rules of RFC 8725.
//!
//! What nobody has verified is an [`UnverifiedToken`], which has no claims to
//! read; only [`UnverifiedToken::verify`] makes [`Claims`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::jwk::{JwsAlgorithm, VerifyingKey};
use super::key_set::KeySet;
use super::strict_json::parse_object;

/// The longest token, in bytes.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Why a token was not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JwsFault {
    /// Not three parts of base64url, or a header that is not ours to read.
    Malformed,
    /// An algorithm that the key does not have, `none` and HMAC included.
    Algorithm,
    /// No such key.
    UnknownKey,
    /// The signature does not verify.
    Signature,
}

/// A token that anyone may have made.
pub(super) struct UnverifiedToken<'t> {
    algorithm: JwsAlgorithm,
    kid: Option<String>,
    signed: &'t str,
    payload: &'t str,
    signature: &'t str,
}

/// A token that the holder of a key has signed.
pub(super) struct VerifiedToken<'k> {
    /// What it says.
    pub(super) claims: Claims,
    /// With which key.
    pub(super) key: &'k VerifyingKey,
}

impl<'t> UnverifiedToken<'t> {
    /// Takes a token apart and reads its header, as far as it takes to find a key.
    ///
    /// # Errors
    /// [`JwsFault::Malformed`] and [`JwsFault::Algorithm`].
    pub(super) fn parse(token: &'t [u8]) -> Result<Self, JwsFault> {
        if token.len() > LONGEST_TOKEN {
            return Err(JwsFault::Malformed);
        }
        let token = std::str::from_utf8(token).map_err(|_| JwsFault::Malformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsFault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsFault::Malformed)?;
        // A fourth part would be in the payload, where a dot is no base64url.
        if [header, payload, signature].contains(&"") || payload.contains('.') {
            return Err(JwsFault::Malformed);
        }
        let header = decode_object(header)?;
        let (algorithm, kid) = read_header(&header)?;
        Ok(Self {
            algorithm,
            kid,
            signed,
            payload,
            signature,
        })
    }

    /// Checks the signature with the key of the set that the token names, and
    /// only then reads what it says.
    ///
    /// # Errors
    /// Every [`JwsFault`].
    pub(super) fn verify(self, keys: &KeySet) -> Result<VerifiedToken<'_>, JwsFault> {
        let key = keys.find(self.kid.as_deref()).ok_or(JwsFault::UnknownKey)?;
        if !key.allows(self.algorithm) {
            return Err(JwsFault::Algorithm);
        }
        if URL_SAFE_NO_PAD.decode(self.signature).is_err() {
            return Err(JwsFault::Malformed);
        }
        if !key.is_signature(self.algorithm, self.signed.as_bytes(), self.signature) {
            return Err(JwsFault::Signature);
        }
        let claims = Claims::verified(decode_object(self.payload)?);
        Ok(VerifiedToken { claims, key })
    }
}

/// Parses and verifies in one step.
///
/// # Errors
/// Every [`JwsFault`].
pub(super) fn verify<'k>(token: &[u8], keys: &'k KeySet) -> Result<VerifiedToken<'k>, JwsFault> {
    UnverifiedToken::parse(token)?.verify(keys)
}

fn decode_object(part: &str) -> Result<Map<String, Value>, JwsFault> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwsFault::Malformed)?;
    parse_object(&bytes).map_err(|_| JwsFault::Malformed)
}

/// Algorithm and key of a header. Keys that it brings along or points to (`jwk`,
/// `jku`, `x5c`, `x5u`) are never looked at (RFC 8725 §3.10).
fn read_header(header: &Map<String, Value>) -> Result<(JwsAlgorithm, Option<String>), JwsFault> {
    // Whatever it lists we do not understand, so it must be refused (RFC 7515 §4.1.11).
    if header.contains_key("crit") {
        return Err(JwsFault::Malformed);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_token_type(typ) => {}
        Some(_) => return Err(JwsFault::Malformed),
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(JwsFault::Malformed),
    };
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => JwsAlgorithm::parse(name).ok_or(JwsFault::Algorithm)?,
        _ => return Err(JwsFault::Malformed),
    };
    Ok((algorithm, kid))
}

/// Other types are other kinds of tokens, such as of a log-out or a proof of
/// possession, and must not pass for these (RFC 8725 §3.11, RFC 9068 §2.1).
fn is_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(typ, "jwt" | "at+jwt")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Signer, compact, header_of};
    use super::*;

    fn fault(token: &str, keys: &KeySet) -> Option<JwsFault> {
        verify(token.as_bytes(), keys).err()
    }

    #[track_caller]
    fn verified<'k>(token: &str, keys: &'k KeySet) -> VerifiedToken<'k> {
        verify(token.as_bytes(), keys).unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    fn claims() -> Value {
        json!({ "sub": "someone" })
    }

    #[test]
    fn each_algorithm_verifies_with_its_key() {
        for signer in [
            Signer::rs256("a"),
            Signer::ps256("a"),
            Signer::ed25519("a", 1),
        ] {
            let keys = Signer::set(&[&signer]);
            let token = signer.token(&claims());
            let verified = verified(&token, &keys);
            assert_eq!(verified.key.kid(), "a");
            assert_eq!(verified.claims.text("sub"), Ok("someone"));
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        for signer in [
            Signer::rs256("a"),
            Signer::ps256("a"),
            Signer::ed25519("a", 1),
        ] {
            let keys = Signer::set(&[&signer]);
            let token = signer.token(&claims());
            for place in (0..token.len()).step_by(7) {
                let mut changed = token.clone().into_bytes();
                changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
                assert!(verify(&changed, &keys).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn claims_under_another_tokens_signature_are_refused() {
        let signer = Signer::ed25519("a", 1);
        let keys = Signer::set(&[&signer]);
        let token = signer.token(&claims());
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        let other = compact(
            &header_of("EdDSA", "a"),
            &json!({ "sub": "other" }),
            signature,
        );
        assert_eq!(fault(&other, &keys), Some(JwsFault::Signature));
        let nobody = Signer::ed25519("a", 2).token(&claims());
        assert_eq!(fault(&nobody, &keys), Some(JwsFault::Signature));
    }

    #[test]
    fn none_and_every_spelling_of_it_is_refused() {
        let signer = Signer::ed25519("a", 1);
        let keys = Signer::set(&[&signer]);
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let token = compact(&header_of(alg, "a"), &claims(), "AAAA");
            assert_eq!(fault(&token, &keys), Some(JwsFault::Algorithm), "{alg:?}");
            let unsigned = compact(&header_of(alg, "a"), &claims(), "");
            assert_eq!(
                fault(&unsigned, &keys),
                Some(JwsFault::Malformed),
                "{alg:?}"
            );
        }
    }

    #[test]
    fn names_of_algorithms_are_taken_exactly() {
        let signer = Signer::rs256("a");
        let keys = Signer::set(&[&signer]);
        for alg in [
            "rs256", "RS256 ", "RS384", "RS512", "ES256", "PS512", "HS256", "RSA1_5",
        ] {
            let token = signer.sign_as(&header_of(alg, "a"), &claims());
            assert_eq!(fault(&token, &keys), Some(JwsFault::Algorithm), "{alg:?}");
        }
    }

    #[test]
    fn an_rsa_key_is_no_hmac_secret() {
        let signer = Signer::rs256("a");
        let keys = Signer::set(&[&signer]);
        for secret in signer.public_forms() {
            let key = jsonwebtoken::EncodingKey::from_secret(&secret);
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            header.kid = Some("a".to_owned());
            let token = jsonwebtoken::encode(&header, &claims(), &key).expect("signed");
            assert_eq!(fault(&token, &keys), Some(JwsFault::Algorithm));
        }
    }

    #[test]
    fn a_token_of_another_algorithm_than_its_keys_is_refused() {
        let (rsa, ed25519) = (Signer::rs256("rsa"), Signer::ed25519("ed", 1));
        let keys = Signer::set(&[&rsa, &ed25519]);
        let eddsa_for_rsa = ed25519.sign_as(&header_of("EdDSA", "rsa"), &claims());
        assert_eq!(fault(&eddsa_for_rsa, &keys), Some(JwsFault::Algorithm));
        let rsa_for_eddsa = rsa.sign_as(&header_of("RS256", "ed"), &claims());
        assert_eq!(fault(&rsa_for_eddsa, &keys), Some(JwsFault::Algorithm));
        // The set pins this key to RS256; its holder signs with PS256.
        let pinned = Signer::ps256("rsa").token(&claims());
        assert_eq!(fault(&pinned, &keys), Some(JwsFault::Algorithm));
    }

    #[test]
    fn a_key_that_the_set_does_not_have_is_unknown() {
        let (one, two) = (Signer::ed25519("a", 1), Signer::ed25519("b", 2));
        let keys = Signer::set(&[&one]);
        assert_eq!(
            fault(&two.token(&claims()), &keys),
            Some(JwsFault::UnknownKey)
        );
        let both = Signer::set(&[&one, &two]);
        let unnamed = one.sign_as(&json!({ "alg": "EdDSA" }), &claims());
        assert_eq!(fault(&unnamed, &both), Some(JwsFault::UnknownKey));
        assert_eq!(fault(&unnamed, &keys), None);
    }

    #[test]
    fn a_key_that_the_token_brings_along_is_not_used() {
        let (known, own) = (Signer::ed25519("a", 1), Signer::ed25519("b", 2));
        let keys = Signer::set(&[&known]);
        let header = json!({
            "alg": "EdDSA", "kid": "a", "jwk": own.jwk(),
            "jku": "http://127.0.0.1/", "x5u": "http://127.0.0.1/", "x5c": ["AAAA"],
        });
        let token = own.sign_as(&header, &claims());
        assert_eq!(fault(&token, &keys), Some(JwsFault::Signature));
    }

    #[test]
    fn headers_that_are_not_ours_to_read_are_refused() {
        let signer = Signer::ed25519("a", 1);
        let keys = Signer::set(&[&signer]);
        for header in [
            json!({ "kid": "a" }),
            json!({ "alg": "EdDSA", "kid": "a", "crit": ["exp"] }),
            json!({ "alg": "EdDSA", "kid": "a", "crit": [] }),
            json!({ "alg": "EdDSA", "kid": 1 }),
            json!({ "alg": ["EdDSA"], "kid": "a" }),
            json!({ "alg": "EdDSA", "kid": "a", "typ": "logout+jwt" }),
            json!({ "alg": "EdDSA", "kid": "a", "typ": "dpop+jwt" }),
            json!({ "alg": "EdDSA", "kid": "a", "typ": null }),
            json!(["EdDSA"]),
        ] {
            let token = signer.sign_as(&header, &claims());
            assert_eq!(fault(&token, &keys), Some(JwsFault::Malformed), "{header}");
        }
        for typ in [
            "JWT",
            "jwt",
            "at+jwt",
            "application/at+jwt",
            "application/jwt",
        ] {
            let header = json!({ "alg": "EdDSA", "kid": "a", "typ": typ });
            assert_eq!(
                fault(&signer.sign_as(&header, &claims()), &keys),
                None,
                "{typ}"
            );
        }
    }

    #[test]
    fn two_members_of_one_name_are_refused_in_header_and_claims() {
        let signer = Signer::ed25519("a", 1);
        let keys = Signer::set(&[&signer]);
        let header = r#"{"alg":"EdDSA","kid":"a"}"#;
        for (header, claims) in [
            (header, r#"{"sub":"a","sub":"b"}"#),
            (r#"{"alg":"EdDSA","kid":"b","kid":"a"}"#, r#"{"sub":"a"}"#),
            (
                r#"{"alg":"none","alg":"EdDSA","kid":"a"}"#,
                r#"{"sub":"a"}"#,
            ),
            (header, r#"{"sub":"a"} x"#),
            (header, r#"["a"]"#),
        ] {
            let token = signer.sign_texts(header, claims);
            assert_eq!(
                fault(&token, &keys),
                Some(JwsFault::Malformed),
                "{header} {claims}"
            );
        }
        assert_eq!(
            fault(&signer.sign_texts(header, r#"{"sub":"a"}"#), &keys),
            None
        );
    }

    #[test]
    fn only_three_parts_of_base64url_are_a_token() {
        let signer = Signer::ed25519("a", 1);
        let keys = Signer::set(&[&signer]);
        let token = signer.token(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        for other in [
            String::new(),
            "..".to_owned(),
            format!("{}.{}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{token}."),
            format!("{token}.AAAA"),
            format!(".{token}"),
            format!("{token}="),
            format!("{token} "),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
            token.replace('.', ".."),
            format!("{token}{}", "A".repeat(LONGEST_TOKEN)),
        ] {
            let refused = fault(&other, &keys);
            assert_eq!(refused, Some(JwsFault::Malformed), "{other:.80}");
        }
        assert_eq!(verify(b"\xff.a.b", &keys).err(), Some(JwsFault::Malformed));
    }

    #[test]
    fn the_published_examples_verify() {
        // RFC 7515 appendix A.2.
        let rs256 = json!({ "keys": [{
            "kty": "RSA", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        }]});
        let token = concat!(
            "eyJhbGciOiJSUzI1NiJ9.",
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        let keys = KeySet::parse(rs256.to_string().as_bytes()).expect("a set");
        let verified = verified(token, &keys);
        assert_eq!(verified.claims.text("iss"), Ok("joe"));

        // RFC 8037 appendix A.4, whose payload is no claims: the signature is
        // good, and what it is under is still no token.
        let eddsa = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }]});
        let keys = KeySet::parse(eddsa.to_string().as_bytes()).expect("a set");
        let token = concat!(
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
        let key = keys.find(None).expect("the only one");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        assert!(key.is_signature(JwsAlgorithm::EdDsa, signed.as_bytes(), signature));
        assert_eq!(fault(token, &keys), Some(JwsFault::Malformed));
    }
}
