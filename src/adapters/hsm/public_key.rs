//! Public keys: their SPKI PEM form, and checking signatures with them in
//! software, which is how every backend checks. Knows no secret.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::adapters::cache::CoherentCache;
use crate::domain::algorithm::{KeyType, SigningAlgorithm};
use crate::domain::key::KeyRecord;
use crate::ports::hsm::HsmFault;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
const PEM_END: &str = "-----END PUBLIC KEY-----\n";
/// Characters a line of PEM (RFC 7468 §2).
const PEM_COLUMNS: usize = 64;

/// The PEM of a `SubjectPublicKeyInfo` (RFC 7468 §13) in DER.
pub fn spki_pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = String::with_capacity(PEM_BEGIN.len() + PEM_END.len() + base64.len() * 66 / 64);
    pem.push_str(PEM_BEGIN);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so every index is a character's.
        let (line, after) = rest.split_at(rest.len().min(PEM_COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(PEM_END);
    pem
}

fn spki_der(pem: &str) -> Option<Vec<u8>> {
    let lines = pem.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    STANDARD.decode(lines.replace('\n', "")).ok()
}

/// A public key that is parsed and ready to check signatures.
pub struct PublicKey(Parsed);

enum Parsed {
    /// The library binds a parsed key to one algorithm, so there are two.
    Rsa {
        pss_sha256: ParsedPublicKey,
        pkcs1v15_sha256: ParsedPublicKey,
    },
    Ed25519(ParsedPublicKey),
}

impl PublicKey {
    /// What it takes of the memory together with its text, about, in bytes.
    fn bytes(&self) -> u64 {
        match &self.0 {
            Parsed::Rsa { .. } => 6 << 10,
            Parsed::Ed25519(_) => 640,
        }
    }

    /// Parses a key of this type: the canonical SPKI PEM of an RSA key with a
    /// modulus of exactly 2048 bits and exponent 65537 (RFC 3279 §2.3.1), or of an
    /// Ed25519 key (RFC 8410 §4).
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] for everything else.
    pub fn parse(key_type: KeyType, pem: &str) -> Result<Self, HsmFault> {
        let der = spki_der(pem).ok_or(HsmFault::MalformedKey)?;
        match key_type {
            KeyType::Rsa2048 => {
                let key = rsa::PublicKey::from_der(&der).map_err(|_| HsmFault::MalformedKey)?;
                require_rsa_2048(key.as_ref())?;
                require_canonical(&key, &der)?;
                Ok(Self(Parsed::Rsa {
                    pss_sha256: parse_for(&RSA_PSS_2048_8192_SHA256, &der)?,
                    pkcs1v15_sha256: parse_for(&RSA_PKCS1_2048_8192_SHA256, &der)?,
                }))
            }
            KeyType::Ed25519 => {
                let key = parse_for(&ED25519, &der)?;
                require_canonical(&key, &der)?;
                Ok(Self(Parsed::Ed25519(key)))
            }
            KeyType::Aes256 => Err(HsmFault::MalformedKey),
        }
    }

    /// Whether `signature` is this key's signature of `data`: PSS with SHA-256,
    /// MGF1 with SHA-256 and a salt of exactly 32 bytes, PKCS#1 v1.5 with SHA-256
    /// and a `DigestInfo` in DER, or Ed25519. A malformed signature is a wrong one.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] when keys of this type have no such algorithm.
    pub fn verify(
        &self,
        algorithm: SigningAlgorithm,
        data: &[u8],
        signature: &[u8],
    ) -> Result<bool, HsmFault> {
        let key = match (&self.0, algorithm) {
            (Parsed::Rsa { pss_sha256, .. }, SigningAlgorithm::RsaPssSha256) => pss_sha256,
            (
                Parsed::Rsa {
                    pkcs1v15_sha256, ..
                },
                SigningAlgorithm::RsaPkcs1v15Sha256,
            ) => pkcs1v15_sha256,
            (Parsed::Ed25519(key), SigningAlgorithm::Ed25519) => key,
            (
                Parsed::Rsa { .. } | Parsed::Ed25519(_),
                SigningAlgorithm::RsaPssSha256
                | SigningAlgorithm::RsaPkcs1v15Sha256
                | SigningAlgorithm::Ed25519,
            ) => return Err(HsmFault::MalformedKey),
        };
        Ok(key.verify_sig(data, signature).is_ok())
    }

    fn key_type(&self) -> KeyType {
        match self.0 {
            Parsed::Rsa { .. } => KeyType::Rsa2048,
            Parsed::Ed25519(_) => KeyType::Ed25519,
        }
    }
}

fn parse_for(
    algorithm: &'static dyn VerificationAlgorithm,
    der: &[u8],
) -> Result<ParsedPublicKey, HsmFault> {
    ParsedPublicKey::new(algorithm, der).map_err(|_| HsmFault::MalformedKey)
}

/// Requires an `RSAPublicKey` (RFC 8017 appendix A.1.1) with a modulus of 2048
/// bits and exponent 65537, which in DER is a frame of 14 fixed bytes around the
/// 256 of the modulus.
fn require_rsa_2048(der: &[u8]) -> Result<(), HsmFault> {
    const HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    const TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
    let modulus = der
        .strip_prefix(&HEAD)
        .and_then(|rest| rest.strip_suffix(&TAIL));
    match modulus {
        Some([first, rest @ ..]) if *first >= 0x80 && rest.len() == 255 => Ok(()),
        _ => Err(HsmFault::MalformedKey),
    }
}

/// Requires that the bytes are the one SPKI encoding of the key: the library
/// reads other forms too, and the text is what callers compare and fingerprint.
fn require_canonical(
    key: &impl AsDer<PublicKeyX509Der<'static>>,
    der: &[u8],
) -> Result<(), HsmFault> {
    match key.as_der() {
        Ok(canonical) if canonical.as_ref() == der => Ok(()),
        _ => Err(HsmFault::MalformedKey),
    }
}

/// The parsed public keys that were used lately. They are found by their whole
/// text, so no entry can be out of date, whatever happens to the keys.
pub struct PublicKeys(CoherentCache<String, Arc<PublicKey>>);

impl PublicKeys {
    /// Keeps keys that together take about so many bytes.
    pub fn new(bytes: usize) -> Self {
        let weight = |key: &Arc<PublicKey>| key.bytes();
        Self(CoherentCache::weighing(
            bytes / (4 << 10),
            bytes as u64,
            weight,
        ))
    }

    /// The public key of a record, parsed.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] when the record has none of its type.
    pub fn of(&self, record: &KeyRecord) -> Result<Arc<PublicKey>, HsmFault> {
        let pem = record.public_key.as_ref().ok_or(HsmFault::MalformedKey)?;
        if let Some(key) = self.0.get(pem) {
            return match key.key_type() == record.key_type {
                true => Ok(key),
                false => Err(HsmFault::MalformedKey),
            };
        }
        let ticket = self.0.begin_fill();
        let key = Arc::new(PublicKey::parse(record.key_type, pem)?);
        self.0.fill(ticket, pem.clone(), Arc::clone(&key));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair};

    use super::*;
    use crate::domain::key::tests::active_key;

    fn rsa_der(size: KeySize) -> Vec<u8> {
        let pair = RsaKeyPair::generate(size).expect("generates");
        pair.public_key().as_der().expect("encodes").as_ref().into()
    }

    fn ed25519_der() -> Vec<u8> {
        let pair = Ed25519KeyPair::generate().expect("generates");
        pair.public_key().as_der().expect("encodes").as_ref().into()
    }

    fn refused(key_type: KeyType, pem: &str) -> bool {
        PublicKey::parse(key_type, pem).err() == Some(HsmFault::MalformedKey)
    }

    #[test]
    fn pem_has_lines_of_64_columns_and_ends_in_a_line_end() {
        let pem = spki_pem(&rsa_der(KeySize::Rsa2048));
        let lines: Vec<&str> = pem
            .strip_suffix('\n')
            .expect("ends so")
            .split('\n')
            .collect();
        let (first, rest) = lines.split_first().expect("lines");
        let (last, body) = rest.split_last().expect("lines");
        assert_eq!(*first, "-----BEGIN PUBLIC KEY-----");
        assert_eq!(*last, "-----END PUBLIC KEY-----");
        let (tail, whole) = body.split_last().expect("lines");
        assert!(whole.iter().all(|line| line.len() == 64));
        assert!((1..=64).contains(&tail.len()));
        assert!(PublicKey::parse(KeyType::Rsa2048, &pem).is_ok());
    }

    #[test]
    fn an_ed25519_key_in_pem_is_the_one_of_rfc_8410() {
        // RFC 8410 §10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
        assert!(PublicKey::parse(KeyType::Ed25519, pem).is_ok());
        let der = spki_der(pem).expect("decodes");
        assert_eq!(spki_pem(&der), pem);
    }

    #[test]
    fn a_modulus_of_another_length_is_refused() {
        for size in [KeySize::Rsa3072, KeySize::Rsa4096] {
            assert!(refused(KeyType::Rsa2048, &spki_pem(&rsa_der(size))));
        }
    }

    #[test]
    fn a_modulus_of_2047_bits_is_refused() {
        let mut der = [0u8; 270];
        der[..9].copy_from_slice(&[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00]);
        der[265..].copy_from_slice(&[0x02, 0x03, 0x01, 0x00, 0x01]);
        der[9] = 0x80;
        assert!(require_rsa_2048(&der).is_ok());
        der[9] = 0x7f;
        assert!(require_rsa_2048(&der).is_err());
        der[9] = 0x80;
        der[269] = 0x03;
        assert!(require_rsa_2048(&der).is_err(), "another exponent");
    }

    #[test]
    fn a_key_of_another_type_or_form_is_refused() {
        let rsa = rsa_der(KeySize::Rsa2048);
        let ed25519 = ed25519_der();
        assert!(refused(KeyType::Ed25519, &spki_pem(&rsa)));
        assert!(refused(KeyType::Rsa2048, &spki_pem(&ed25519)));
        assert!(refused(KeyType::Aes256, &spki_pem(&ed25519)));
        // The bare keys inside, which the library would take.
        assert!(refused(KeyType::Ed25519, &spki_pem(&ed25519[12..])));
        assert!(refused(KeyType::Rsa2048, &spki_pem(&rsa[24..])));
        // Something behind the key.
        let longer = [&rsa[..], &[0]].concat();
        assert!(refused(KeyType::Rsa2048, &spki_pem(&longer)));
        let pem = spki_pem(&ed25519);
        assert!(refused(KeyType::Ed25519, &pem.replace("PUBLIC", "PRIVATE")));
        assert!(refused(KeyType::Ed25519, ""));
    }

    #[test]
    fn an_algorithm_of_another_type_is_a_fault_and_no_answer() {
        let key = PublicKey::parse(KeyType::Ed25519, &spki_pem(&ed25519_der())).expect("parses");
        let answer = key.verify(SigningAlgorithm::RsaPssSha256, b"data", b"signature");
        assert_eq!(answer, Err(HsmFault::MalformedKey));
    }

    #[test]
    fn a_cached_key_is_not_found_under_another_type() {
        let keys = PublicKeys::new(1 << 20);
        let mut record = active_key();
        record.public_key = Some(spki_pem(&ed25519_der()));
        let first = keys.of(&record).expect("parses");
        assert!(Arc::ptr_eq(&first, &keys.of(&record).expect("is cached")));
        record.key_type = KeyType::Rsa2048;
        assert_eq!(keys.of(&record).err(), Some(HsmFault::MalformedKey));
        record.public_key = None;
        assert_eq!(keys.of(&record).err(), Some(HsmFault::MalformedKey));
    }

    #[test]
    fn another_public_key_in_the_record_is_another_key() {
        let keys = PublicKeys::new(1 << 20);
        let mut record = active_key();
        let pair = Ed25519KeyPair::generate().expect("generates");
        let signature = pair.sign(b"data");
        let der = pair.public_key().as_der().expect("encodes");
        record.public_key = Some(spki_pem(der.as_ref()));
        let verifies = |record: &KeyRecord| {
            keys.of(record)
                .and_then(|key| key.verify(SigningAlgorithm::Ed25519, b"data", signature.as_ref()))
        };
        assert_eq!(verifies(&record), Ok(true));
        record.public_key = Some(spki_pem(&ed25519_der()));
        assert_eq!(verifies(&record), Ok(false));
    }
}
