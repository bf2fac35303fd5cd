//! Tokens that somebody else than the identity service made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Gate, issuer};
use crate::support::approver::compact;
use crate::support::{Issuer, public_rsa_forms, with};

/// A service that knows a key of each kind.
async fn gate_of_three() -> Gate {
    let (ed, rs, ps) = (issuer(), Issuer::rs256("rs"), Issuer::ps256("ps"));
    Gate::start(&[&ed, &rs, &ps], &[]).await
}

fn claims() -> Value {
    Issuer::claims(json!({}))
}

#[tokio::test]
async fn a_token_without_a_signature_is_nobodys() {
    let gate = gate_of_three().await;
    for kid in ["ed", "rs", "ps"] {
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let header = json!({ "alg": alg, "kid": kid });
            let guessed = compact(&header, &claims(), |_| vec![0; 64]);
            gate.list_with(&guessed).await.refused_token("its alg");
            // Without a third part there is nothing that it could be.
            let bare = compact(&header, &claims(), |_| Vec::new());
            gate.list_with(&bare).await.refused_token("not a JWT");
            let two = bare.trim_end_matches('.');
            gate.list_with(two).await.refused_token("not a JWT");
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let gate = gate_of_three().await;
    for kid in ["ed", "rs", "ps"] {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        for secret in public_rsa_forms() {
            let key = jsonwebtoken::EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &claims(), &key).expect("signed");
            gate.list_with(&token).await.refused_token("its alg");
        }
    }
}

#[tokio::test]
async fn a_key_has_its_own_algorithm_and_no_other() {
    let gate = gate_of_three().await;
    let signers = [issuer(), Issuer::rs256("rs"), Issuer::ps256("ps")];
    for signer in &signers {
        let alg = &signer.header()["alg"];
        for kid in ["ed", "rs", "ps"] {
            let header = json!({ "alg": alg, "kid": kid });
            let answer = gate.list_with(&signer.sign(&header, &claims())).await;
            match signer.header()["kid"] == kid {
                true => drop(answer.ok()),
                false => answer.refused_token("its alg"),
            }
        }
        // Signed in one way, and said to be signed in another.
        for named in &signers {
            if named.header() != signer.header() {
                let token = signer.sign(&named.header(), &claims());
                gate.list_with(&token).await.refused_token("signature");
            }
        }
        for alg in ["eddsa", "rs256", "RS512", "PS384", "ES256", "Ed25519"] {
            let header = with(signer.header(), json!({ "alg": alg }));
            let token = signer.sign(&header, &claims());
            gate.list_with(&token).await.refused_token("its alg");
        }
    }
}

#[tokio::test]
async fn only_a_key_of_the_set_signs_whatever_a_token_brings_along() {
    let gate = gate_of_three().await;
    let forger = Issuer::ed25519("ed", 9);
    let forged = forger.token(json!({}));
    gate.list_with(&forged).await.refused_token("signature");
    let unknown = Issuer::ed25519("new", 5).token(json!({}));
    gate.list_with(&unknown).await.refused_token("kid");
    // Of three keys, none is meant by a token that names none.
    let unnamed = issuer().sign(&json!({ "alg": "EdDSA" }), &claims());
    gate.list_with(&unnamed).await.refused_token("kid");
    for (kid, rule) in [
        (json!("ed"), "signature"),
        (json!("forged"), "kid"),
        (json!(["ed"]), "not a JWT"),
        (json!(null), "not a JWT"),
    ] {
        for brought in [
            json!({ "jwk": forger.jwk() }),
            json!({ "jku": "https://forger.example/keys.json" }),
            json!({ "x5u": "https://forger.example/chain.pem" }),
            json!({ "x5c": ["AAAA"] }),
        ] {
            let header = json!({ "alg": "EdDSA", "kid": kid });
            let token = forger.sign(&with(header, brought), &claims());
            gate.list_with(&token).await.refused_token(rule);
        }
    }
}

#[tokio::test]
async fn a_changed_token_is_no_token() {
    let gate = gate_of_three().await;
    for issuer in [issuer(), Issuer::rs256("rs"), Issuer::ps256("ps")] {
        let good = issuer.token(json!({}));
        let parts: Vec<&str> = good.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            panic!("three parts: {good}");
        };
        let other = URL_SAFE_NO_PAD.encode(Issuer::claims(json!({ "sub": "root" })).to_string());
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        bytes[7] ^= 1;
        let changed = URL_SAFE_NO_PAD.encode(&bytes);
        let short = URL_SAFE_NO_PAD.encode(&bytes[1..]);
        for (token, rule) in [
            (format!("{header}.{other}.{signature}"), "signature"),
            (format!("{header}.{payload}.{changed}"), "signature"),
            (format!("{header}.{payload}.{short}"), "signature"),
            (format!("{header}.{payload}."), "not a JWT"),
            (format!("{header}.{payload}"), "not a JWT"),
            (format!("{good}.{signature}"), "not a JWT"),
            (format!("{good}="), "not a JWT"),
            (format!(".{payload}.{signature}"), "not a JWT"),
        ] {
            gate.list_with(&token).await.refused_token(rule);
        }
        gate.list_with(&good).await.ok();
    }
}

#[tokio::test]
async fn a_header_that_asks_for_more_than_is_understood_is_refused() {
    let gate = gate_of_three().await;
    let issuer = issuer();
    for odd in [
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": [] }),
        json!({ "typ": "logout+jwt" }),
        json!({ "typ": "dpop+jwt" }),
        json!({ "typ": 1 }),
        json!({ "alg": null }),
        json!({ "alg": ["EdDSA"] }),
    ] {
        let token = issuer.sign(&with(issuer.header(), odd), &claims());
        gate.list_with(&token).await.refused_token("not a JWT");
    }
    let endless = issuer.token(json!({ "extra": "x".repeat(8_192) }));
    gate.list_with(&endless).await.refused_token("not a JWT");
}
