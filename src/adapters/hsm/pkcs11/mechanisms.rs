//! What a token can do, from the list of its mechanisms, and with which mechanism
//! each algorithm is done (PKCS#11 v3.1 §6).

use cryptoki::mechanism::MechanismType;

use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};

/// Who hashes a message that RSA signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashedBy {
    /// The token, in the same call.
    Token,
    /// This process: the token gets the hash. For tokens behind a proxy that does
    /// not know the mechanisms that hash.
    Us,
}

/// What a token can do of what is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    rsa_generation: bool,
    rsa_pss: Option<HashedBy>,
    rsa_pkcs1v15: Option<HashedBy>,
    ed25519_generation: bool,
    eddsa: bool,
    aes_generation: bool,
    aes_gcm: bool,
}

/// One mechanism that is needed, and what for.
pub(super) struct Need {
    /// What it does, in words.
    pub(super) what: &'static str,
    /// The names of mechanisms of which one is enough, in PKCS#11's words.
    pub(super) any_of: &'static [MechanismType],
}

/// Every mechanism that is asked for.
pub(super) const NEEDS: &[Need] = &[
    Need {
        what: "making RSA-2048 keys",
        any_of: &[MechanismType::RSA_PKCS_KEY_PAIR_GEN],
    },
    Need {
        what: "RSA-PSS-SHA256",
        any_of: &[
            MechanismType::SHA256_RSA_PKCS_PSS,
            MechanismType::RSA_PKCS_PSS,
        ],
    },
    Need {
        what: "RSA-PKCS1v15-SHA256",
        any_of: &[MechanismType::SHA256_RSA_PKCS, MechanismType::RSA_PKCS],
    },
    Need {
        what: "making Ed25519 keys",
        any_of: &[MechanismType::ECC_EDWARDS_KEY_PAIR_GEN],
    },
    Need {
        what: "Ed25519",
        any_of: &[MechanismType::EDDSA],
    },
    Need {
        what: "making AES-256 keys",
        any_of: &[MechanismType::AES_KEY_GEN],
    },
    Need {
        what: "AES-256-GCM",
        any_of: &[MechanismType::AES_GCM],
    },
];

impl Abilities {
    /// What a token with these mechanisms can do.
    pub(super) fn of(mechanisms: &[MechanismType]) -> Self {
        let has = |mechanism| mechanisms.contains(&mechanism);
        let signs = |hashing, bare| match (has(hashing), has(bare)) {
            (true, _) => Some(HashedBy::Token),
            (false, true) => Some(HashedBy::Us),
            (false, false) => None,
        };
        Self {
            rsa_generation: has(MechanismType::RSA_PKCS_KEY_PAIR_GEN),
            rsa_pss: signs(
                MechanismType::SHA256_RSA_PKCS_PSS,
                MechanismType::RSA_PKCS_PSS,
            ),
            rsa_pkcs1v15: signs(MechanismType::SHA256_RSA_PKCS, MechanismType::RSA_PKCS),
            ed25519_generation: has(MechanismType::ECC_EDWARDS_KEY_PAIR_GEN),
            eddsa: has(MechanismType::EDDSA),
            aes_generation: has(MechanismType::AES_KEY_GEN),
            aes_gcm: has(MechanismType::AES_GCM),
        }
    }

    /// What a key of this type can do in the token, the default first; nothing
    /// where it cannot be made there.
    pub(super) fn algorithms(&self, key_type: KeyType) -> Vec<Algorithm> {
        let can_make = match key_type {
            KeyType::Rsa2048 => self.rsa_generation,
            KeyType::Ed25519 => self.ed25519_generation,
            KeyType::Aes256 => self.aes_generation,
        };
        let mut algorithms = key_type.algorithms().to_vec();
        algorithms.retain(|algorithm| can_make && self.can(*algorithm));
        algorithms
    }

    fn can(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Signing(SigningAlgorithm::RsaPssSha256) => self.rsa_pss.is_some(),
            Algorithm::Signing(SigningAlgorithm::RsaPkcs1v15Sha256) => self.rsa_pkcs1v15.is_some(),
            Algorithm::Signing(SigningAlgorithm::Ed25519) => self.eddsa,
            Algorithm::Aead(AeadAlgorithm::Aes256Gcm) => self.aes_gcm,
            // A token's secret cannot be derived from by HKDF in a standard way that
            // keeps the derived key inside, and one secret serves one AEAD.
            Algorithm::Aead(AeadAlgorithm::ChaCha20Poly1305) => false,
        }
    }

    /// Who hashes for RSA-PSS.
    pub(super) fn rsa_pss(&self) -> Option<HashedBy> {
        self.rsa_pss
    }

    /// Who hashes for RSA with PKCS#1 v1.5.
    pub(super) fn rsa_pkcs1v15(&self) -> Option<HashedBy> {
        self.rsa_pkcs1v15
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_token_does_all_but_chacha20() {
        let all: Vec<MechanismType> = NEEDS.iter().map(|need| need.any_of[0]).collect();
        let abilities = Abilities::of(&all);
        assert_eq!(
            abilities.algorithms(KeyType::Rsa2048),
            KeyType::Rsa2048.algorithms()
        );
        assert_eq!(
            abilities.algorithms(KeyType::Ed25519),
            KeyType::Ed25519.algorithms()
        );
        assert_eq!(
            abilities.algorithms(KeyType::Aes256),
            [Algorithm::Aead(AeadAlgorithm::Aes256Gcm)]
        );
        assert_eq!(abilities.rsa_pss(), Some(HashedBy::Token));
    }

    #[test]
    fn each_mechanism_that_is_missing_takes_its_algorithm_away() {
        for missing in NEEDS {
            let rest: Vec<MechanismType> = NEEDS
                .iter()
                .filter(|need| need.what != missing.what)
                .map(|need| need.any_of[0])
                .collect();
            let abilities = Abilities::of(&rest);
            let offered: usize = KeyType::ALL
                .into_iter()
                .map(|key_type| abilities.algorithms(key_type).len())
                .sum();
            let gone = match missing.what {
                "making RSA-2048 keys" => 2,
                _ => 1,
            };
            assert_eq!(offered, 4 - gone, "without {}", missing.what);
        }
    }

    #[test]
    fn a_token_that_does_not_hash_is_given_the_hash() {
        let abilities = Abilities::of(&[
            MechanismType::RSA_PKCS_KEY_PAIR_GEN,
            MechanismType::RSA_PKCS_PSS,
            MechanismType::RSA_PKCS,
        ]);
        assert_eq!(abilities.rsa_pss(), Some(HashedBy::Us));
        assert_eq!(abilities.rsa_pkcs1v15(), Some(HashedBy::Us));
        assert!(abilities.algorithms(KeyType::Ed25519).is_empty());
    }
}
