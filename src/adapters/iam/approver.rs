//! An approver's own key, and the approvals it signs: the other side of
//! `approvals`. Used at an approver's desk and never by the service.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    Ed25519KeyPair, KeyPair as _, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::domain::approval::{ApprovalSubject, ApprovalTarget};
use crate::domain::peer::PublicKeyNumbers;
use crate::domain::secret::SecretBytes;
use crate::domain::time::{Period, Timestamp};

use super::approvals::{AUDIENCE, LONGEST_LIFE};
use super::jwk::{self, JwsAlgorithm};

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The private key of an approver: Ed25519 (signs EdDSA), or RSA of at least
/// 2048 bits (signs PS256).
pub struct ApproverKey {
    key: Key,
    numbers: PublicKeyNumbers,
    kid: String,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// Why a text is no approver's key. Never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApproverKeyFault {
    /// Not PEM with the label of PKCS#8 (RFC 7468 §10).
    #[error(
        "it is not a private key in PKCS#8 PEM (BEGIN PRIVATE KEY); make one with `openssl \
         genpkey -algorithm ed25519`, or convert one with `openssl pkcs8 -topk8 -nocrypt`"
    )]
    NotPkcs8,
    /// Encrypted (RFC 7468 §11).
    #[error("it is encrypted; decrypt it with `openssl pkcs8` into a file of your own first")]
    Encrypted,
    /// Another kind of key.
    #[error("it is neither an Ed25519 nor an RSA key")]
    Kind,
    /// RSA with too few bits.
    #[error("it is an RSA key of fewer than 2048 bits; make another")]
    Weak,
    /// The engine would not sign.
    #[error("it cannot sign")]
    CannotSign,
}

/// What an approver agrees to.
pub struct Statement<'a> {
    /// Who agrees.
    pub approver: &'a str,
    /// To what.
    pub subject: &'a ApprovalSubject,
    /// The name of the key in the approvers' key set.
    pub kid: &'a str,
    /// The statement's own name, which works once.
    pub token_id: &'a str,
    /// When.
    pub issued_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

impl ApproverKey {
    /// The longest that a statement may live.
    pub const LONGEST_LIFE: Period = LONGEST_LIFE;

    /// Reads a private key in PKCS#8 PEM (RFC 5958, RFC 7468 §10).
    ///
    /// # Errors
    /// [`ApproverKeyFault`].
    pub fn from_pem(pem: &SecretBytes) -> Result<Self, ApproverKeyFault> {
        let text = std::str::from_utf8(pem.expose()).map_err(|_| ApproverKeyFault::NotPkcs8)?;
        if text.contains("ENCRYPTED") {
            return Err(ApproverKeyFault::Encrypted);
        }
        let (_, after) = text
            .split_once(PEM_BEGIN)
            .ok_or(ApproverKeyFault::NotPkcs8)?;
        let (body, _) = after
            .split_once(PEM_END)
            .ok_or(ApproverKeyFault::NotPkcs8)?;
        let base64: Zeroizing<Vec<u8>> = Zeroizing::new(
            body.bytes()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect(),
        );
        let der = STANDARD
            .decode(&base64)
            .map(Zeroizing::new)
            .map_err(|_| ApproverKeyFault::NotPkcs8)?;
        let key = match Ed25519KeyPair::from_pkcs8(&der) {
            Ok(key) => Key::Ed25519(key),
            Err(_) => Key::Rsa(rsa(&der)?),
        };
        let numbers = key.numbers();
        jwk::require_strong_rsa(&numbers).map_err(|_| ApproverKeyFault::Weak)?;
        let kid = jwk::thumbprint(&numbers).ok_or(ApproverKeyFault::Kind)?;
        Ok(Self { key, numbers, kid })
    }

    /// The name that the key has where nobody gives it another: the thumbprint of
    /// its public part (RFC 7638).
    pub fn thumbprint(&self) -> &str {
        &self.kid
    }

    /// The algorithm that it signs with.
    pub fn algorithm(&self) -> &'static str {
        self.key.algorithm().as_str()
    }

    /// The public part as an entry of the approvers' key set, bound to its owner.
    pub fn public_jwk(&self, kid: &str, owner: &str) -> Value {
        jwk::write(&self.numbers, kid, self.key.algorithm(), owner)
            .expect("the key is RSA or Ed25519, which both can be written")
    }

    /// Signs an approval.
    ///
    /// # Errors
    /// [`ApproverKeyFault::CannotSign`] when the engine fails.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<String, ApproverKeyFault> {
        let header = json!({
            "alg": self.algorithm(), "kid": statement.kid, "typ": "JWT",
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims(statement)));
        let signature = self.key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn rsa(der: &[u8]) -> Result<RsaKeyPair, ApproverKeyFault> {
    RsaKeyPair::from_pkcs8(der).map_err(|rejected| {
        // The engine takes no modulus below 2048 bits, and says so.
        if rejected.to_string() == "TooSmall" {
            ApproverKeyFault::Weak
        } else {
            ApproverKeyFault::Kind
        }
    })
}

fn claims(statement: &Statement<'_>) -> Value {
    let subject = statement.subject;
    let seconds = |instant: Timestamp| instant.microseconds().div_euclid(1_000_000);
    let mut claims = json!({
        "aud": AUDIENCE,
        "iss": statement.approver,
        "sub": statement.approver,
        "jti": statement.token_id,
        "iat": seconds(statement.issued_at),
        "exp": seconds(statement.expires_at),
        "operation": subject.operation.as_str(),
        "tenant_id": subject.scope.tenant_id,
        "environment": subject.scope.environment,
        "plane": subject.scope.plane,
    });
    match &subject.target {
        ApprovalTarget::Key(key_id) => claims["key_id"] = json!(key_id),
        ApprovalTarget::NewKey {
            key_type,
            key_usage,
        } => {
            claims["key_type"] = json!(key_type);
            claims["key_usage"] = json!(key_usage);
        }
        ApprovalTarget::Certificate { fingerprint } => claims["fingerprint"] = json!(fingerprint),
    }
    claims
}

impl Key {
    const fn algorithm(&self) -> JwsAlgorithm {
        match self {
            Self::Ed25519(_) => JwsAlgorithm::EdDsa,
            Self::Rsa(_) => JwsAlgorithm::Ps256,
        }
    }

    fn numbers(&self) -> PublicKeyNumbers {
        match self {
            Self::Ed25519(key) => PublicKeyNumbers::Ed25519 {
                key: key.public_key().as_ref().to_vec(),
            },
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                PublicKeyNumbers::rsa(&public.n, &public.e)
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ApproverKeyFault> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PSS_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .map_err(|_| ApproverKeyFault::CannotSign)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::approvals;
    use super::super::key_set::KeySet;
    use super::super::testing::StoppedClock;
    use super::*;
    use crate::domain::algorithm::KeyType;
    use crate::domain::approval::ApprovalOperation;
    use crate::domain::caller::{Caller, Reach};
    use crate::domain::ids::KeyId;
    use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
    use crate::domain::scope::{Environment, Plane, Scope};
    use crate::ports::clock::Clock as _;

    fn pem(label: &str, der: &[u8]) -> SecretBytes {
        let body = STANDARD.encode(der);
        SecretBytes::from(format!(
            "-----BEGIN {label}-----\n{}\n{}\n-----END {label}-----\n",
            &body[..20],
            &body[20..]
        ))
    }

    fn ed25519_der() -> Vec<u8> {
        // PKCS#8 v1 of RFC 8410 §10.3.
        let seed = [7; 32];
        let prefix = [
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ];
        [prefix.as_slice(), seed.as_slice()].concat()
    }

    fn rsa_der() -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
        let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = key.as_der().expect("DER");
        der.as_ref().to_vec()
    }

    fn subjects() -> Vec<ApprovalSubject> {
        let scope = Scope {
            tenant_id: "t".parse().expect("valid"),
            environment: Environment::Prod,
            plane: Plane::Shared,
        };
        let subject = |operation, target| ApprovalSubject {
            operation,
            scope: scope.clone(),
            target,
        };
        let new_key = ApprovalTarget::NewKey {
            key_type: KeyType::Rsa2048,
            key_usage: KeyUsageSet::of([KeyUsage::Sign, KeyUsage::Verify]).expect("not empty"),
        };
        let certificate = ApprovalTarget::Certificate {
            fingerprint: "ab".repeat(32),
        };
        vec![
            subject(ApprovalOperation::KeyGenerate, new_key),
            subject(
                ApprovalOperation::KeyUse,
                ApprovalTarget::Key(KeyId::generate()),
            ),
            subject(ApprovalOperation::TrustAnchorAdd, certificate),
        ]
    }

    #[test]
    fn what_an_approver_signs_the_service_accepts() {
        let clock = StoppedClock::new();
        let caller = Caller::new("M21".parse().expect("valid"), Reach::AnyScope);
        for (der, algorithm) in [(ed25519_der(), "EdDSA"), (rsa_der(), "PS256")] {
            let key = ApproverKey::from_pem(&pem("PRIVATE KEY", &der)).expect("a key");
            assert_eq!(key.algorithm(), algorithm);
            let jwk = key.public_jwk(key.thumbprint(), "alice");
            let set = json!({ "keys": [jwk] }).to_string();
            let keys = KeySet::parse(set.as_bytes()).expect("a key set");
            for subject in subjects() {
                let statement = Statement {
                    approver: "alice",
                    subject: &subject,
                    kid: key.thumbprint(),
                    token_id: "1",
                    issued_at: clock.now(),
                    expires_at: clock.now().plus(ApproverKey::LONGEST_LIFE),
                };
                let token = key.sign(&statement).expect("signed");
                let now = clock.now();
                let approval =
                    approvals::verify(token.as_bytes(), &keys, &caller, &subject, 1, now)
                        .expect("accepted");
                assert_eq!(approval.grants()[0].approver, "alice");
                assert_eq!(approval.grants()[0].token_id, "1");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_how_to_make_one() {
        let fault = |pem: SecretBytes| ApproverKey::from_pem(&pem).err();
        let der = ed25519_der();
        let wrong_label = pem("RSA PRIVATE KEY", &der);
        assert_eq!(fault(wrong_label), Some(ApproverKeyFault::NotPkcs8));
        let encrypted = pem("ENCRYPTED PRIVATE KEY", &der);
        assert_eq!(fault(encrypted), Some(ApproverKeyFault::Encrypted));
        let not_a_key = pem("PRIVATE KEY", &der[..30]);
        assert_eq!(fault(not_a_key), Some(ApproverKeyFault::Kind));
        let public = pem("PUBLIC KEY", &der);
        assert_eq!(fault(public), Some(ApproverKeyFault::NotPkcs8));
        assert_eq!(
            fault(SecretBytes::new(vec![0xFF])),
            Some(ApproverKeyFault::NotPkcs8)
        );
    }
}
