//! Key types and the algorithms they serve.

use super::wire::text_form;

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// RSA with a modulus of 2048 bits and exponent 65537.
    Rsa2048,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// A 256-bit secret for authenticated encryption.
    Aes256,
}

impl KeyType {
    /// Every key type.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::Ed25519, Self::Aes256];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Ed25519 => "Ed25519",
            Self::Aes256 => "AES-256",
        }
    }

    /// The key's size in bits, as receipts state it.
    pub const fn size_bits(self) -> u32 {
        match self {
            Self::Rsa2048 => 2048,
            Self::Ed25519 | Self::Aes256 => 256,
        }
    }

    /// Whether there is a public half.
    pub const fn is_asymmetric(self) -> bool {
        match self {
            Self::Rsa2048 | Self::Ed25519 => true,
            Self::Aes256 => false,
        }
    }

    /// The algorithms of this key type, the default first.
    pub const fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Rsa2048 => &[
                Algorithm::Signing(SigningAlgorithm::RsaPssSha256),
                Algorithm::Signing(SigningAlgorithm::RsaPkcs1v15Sha256),
            ],
            Self::Ed25519 => &[Algorithm::Signing(SigningAlgorithm::Ed25519)],
            Self::Aes256 => &[
                Algorithm::Aead(AeadAlgorithm::Aes256Gcm),
                Algorithm::Aead(AeadAlgorithm::ChaCha20Poly1305),
            ],
        }
    }
}

text_form!(KeyType, "one of RSA-2048, Ed25519, AES-256");

/// What bears this name among these.
fn by_name<T: Copy>(names: &[(&'static str, T)], text: &str) -> Option<T> {
    names
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, named)| *named)
}

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 8017 §8.1, RFC 7518 §3.5).
    RsaPssSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2, RFC 7518 §3.3).
    RsaPkcs1v15Sha256,
    /// Ed25519 without context or prehash (RFC 8032 §5.1, RFC 8037 §3.1).
    Ed25519,
}

impl SigningAlgorithm {
    /// Every algorithm by every name that requests may use: its own and that of JOSE.
    pub const NAMES: [(&'static str, Self); 6] = [
        (Self::RsaPssSha256.as_str(), Self::RsaPssSha256),
        ("PS256", Self::RsaPssSha256),
        (Self::RsaPkcs1v15Sha256.as_str(), Self::RsaPkcs1v15Sha256),
        ("RS256", Self::RsaPkcs1v15Sha256),
        (Self::Ed25519.as_str(), Self::Ed25519),
        ("EdDSA", Self::Ed25519),
    ];

    fn parse(text: &str) -> Option<Self> {
        by_name(&Self::NAMES, text)
    }

    /// The name in answers; requests may use the JOSE names too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaPssSha256 => "RSA-PSS-SHA256",
            Self::RsaPkcs1v15Sha256 => "RSA-PKCS1v15-SHA256",
            Self::Ed25519 => "Ed25519",
        }
    }
}

text_form!(
    SigningAlgorithm,
    "one of RSA-PSS-SHA256 (PS256), RSA-PKCS1v15-SHA256 (RS256), Ed25519 (EdDSA)"
);

/// An algorithm of authenticated encryption with associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AeadAlgorithm {
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D), tag of 16 bytes.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439), tag of 16 bytes.
    ChaCha20Poly1305,
}

impl AeadAlgorithm {
    /// Every algorithm by every name that requests may use.
    pub const NAMES: [(&'static str, Self); 4] = [
        (Self::Aes256Gcm.as_str(), Self::Aes256Gcm),
        ("A256GCM", Self::Aes256Gcm),
        (Self::ChaCha20Poly1305.as_str(), Self::ChaCha20Poly1305),
        ("CHACHA20-POLY1305", Self::ChaCha20Poly1305),
    ];

    fn parse(text: &str) -> Option<Self> {
        by_name(&Self::NAMES, text)
    }

    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

text_form!(
    AeadAlgorithm,
    "one of AES-256-GCM (A256GCM), ChaCha20-Poly1305 (CHACHA20-POLY1305)"
);

/// Any algorithm, as a key's metadata lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// For signing and verifying.
    Signing(SigningAlgorithm),
    /// For encrypting and decrypting.
    Aead(AeadAlgorithm),
}

impl Algorithm {
    fn parse(text: &str) -> Option<Self> {
        SigningAlgorithm::parse(text)
            .map(Self::Signing)
            .or_else(|| AeadAlgorithm::parse(text).map(Self::Aead))
    }

    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing(algorithm) => algorithm.as_str(),
            Self::Aead(algorithm) => algorithm.as_str(),
        }
    }
}

text_form!(Algorithm, "the name of an algorithm");

/// One of the two families, so that a signing operation can only be asked for
/// with a signature algorithm.
pub trait AlgorithmFamily: Copy + Send + Sync + 'static {
    /// This algorithm among all.
    fn widen(self) -> Algorithm;

    /// The algorithm back from among all, where it is of this family.
    fn narrow(algorithm: Algorithm) -> Option<Self>;
}

impl AlgorithmFamily for SigningAlgorithm {
    fn widen(self) -> Algorithm {
        Algorithm::Signing(self)
    }

    fn narrow(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Signing(signing) => Some(signing),
            Algorithm::Aead(_) => None,
        }
    }
}

impl AlgorithmFamily for AeadAlgorithm {
    fn widen(self) -> Algorithm {
        Algorithm::Aead(self)
    }

    fn narrow(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Aead(aead) => Some(aead),
            Algorithm::Signing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_reads_its_own_name_and_its_alias() {
        for (alias, name) in [
            ("PS256", "RSA-PSS-SHA256"),
            ("RS256", "RSA-PKCS1v15-SHA256"),
            ("EdDSA", "Ed25519"),
            ("A256GCM", "AES-256-GCM"),
            ("CHACHA20-POLY1305", "ChaCha20-Poly1305"),
        ] {
            let by_alias: Algorithm = alias.parse().expect(alias);
            assert_eq!(by_alias.as_str(), name);
            assert_eq!(name.parse(), Ok(by_alias));
        }
        for bad in ["none", "HS256", "rs256", "RSA-PSS", ""] {
            assert!(bad.parse::<Algorithm>().is_err(), "{bad}");
        }
    }
}
