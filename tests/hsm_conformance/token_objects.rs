//! What stands in the token under a key's id, when it is not, or not only, the key:
//! nothing but the very key is ever used.

use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use kms::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};
use kms::domain::key::{KeyHandle, StoredKey};
use kms::domain::secret::SecretBytes;
use kms::ports::hsm::{HsmBackend, HsmError, HsmFault};

use super::harness::{Harness, erase_permit};
use super::token::OpenToken;

const GCM: AeadAlgorithm = AeadAlgorithm::Aes256Gcm;
const DATA: &[u8] = b"a message";

/// What comes of every use of a key's secret.
async fn uses(hsm: &dyn HsmBackend, key: &Arc<StoredKey>) -> Vec<Result<(), HsmError>> {
    let harness = Harness { hsm };
    if key.record.key_type == KeyType::Aes256 {
        let encrypted = harness.encrypt(key, GCM, DATA, b"").await;
        let decrypted = harness.decrypt(key, GCM, [0; 12], &[0; 40], b"").await;
        // It is no ciphertext of any key: the right one says so.
        let decrypted = match decrypted {
            Err(HsmError::Undecryptable) => Ok(()),
            other => other.map(|_: SecretBytes| ()),
        };
        return vec![encrypted.map(|_| ()), decrypted];
    }
    let mut signed = Vec::new();
    for algorithm in harness.offered::<SigningAlgorithm>(key.record.key_type) {
        signed.push(harness.sign(key, algorithm, DATA).await.map(|_| ()));
    }
    signed
}

#[track_caller]
fn all_well(used: Vec<Result<(), HsmError>>) {
    for used in used {
        used.expect("the key is well");
    }
}

#[track_caller]
fn all_at_fault(used: Vec<Result<(), HsmError>>, expected: HsmFault) {
    for used in used {
        match used {
            Err(HsmError::Fault(fault)) => assert_eq!(fault, expected),
            other => panic!("{expected:?} is wanted: {other:?}"),
        }
    }
}

/// Does something to a key in the token, once while the backend knows where it is and
/// once before it was ever used.
async fn for_each_type(
    token: &OpenToken,
    change: impl Fn(&StoredKey),
    check: impl AsyncFn(&Arc<StoredKey>),
) {
    let harness = Harness { hsm: &*token.hsm };
    for key_type in KeyType::ALL {
        for is_known in [true, false] {
            let key = harness.generate(key_type).await;
            if is_known {
                all_well(uses(&*token.hsm, &key).await);
            }
            change(&key);
            // Whatever was found out the first time stays so.
            for _ in 0..2 {
                check(&key).await;
            }
            token.destroy(key.record.key_id);
        }
    }
}

#[tokio::test]
async fn a_token_offers_no_chacha20() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    let offered = token.hsm.algorithms(KeyType::Aes256).expect("it is there");
    assert_eq!(offered, [Algorithm::Aead(GCM)]);
    let key = harness.generate(KeyType::Aes256).await;
    let chacha20 = AeadAlgorithm::ChaCha20Poly1305;
    let sealed = harness.encrypt(&key, chacha20, DATA, b"").await;
    assert!(matches!(sealed, Err(HsmError::Fault(HsmFault::Refused))));
    let opened = harness
        .decrypt(&key, chacha20, [0; 12], &[0; 40], b"")
        .await;
    assert!(matches!(opened, Err(HsmError::Fault(HsmFault::Refused))));
}

#[tokio::test]
async fn two_objects_of_one_id_are_a_fault_and_neither_is_used() {
    let token = OpenToken::new().await;
    for key_type in KeyType::ALL {
        let key = Harness { hsm: &*token.hsm }.generate(key_type).await;
        token.make(key_type, key.record.key_id);
        all_at_fault(uses(&*token.hsm, &key).await, HsmFault::Ambiguous);
        token.destroy(key.record.key_id);
    }
}

#[tokio::test]
async fn another_key_in_the_place_of_one_is_never_used() {
    let token = OpenToken::new().await;
    let swap = |key: &StoredKey| {
        token.destroy(key.record.key_id);
        token.make(key.record.key_type, key.record.key_id);
    };
    for_each_type(&token, swap, async |key| {
        all_at_fault(uses(&*token.hsm, key).await, HsmFault::ProofFailed);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_gone_is_missing() {
    let token = OpenToken::new().await;
    let lose = |key: &StoredKey| token.destroy(key.record.key_id);
    for_each_type(&token, lose, async |key| {
        all_at_fault(uses(&*token.hsm, key).await, HsmFault::Missing);
    })
    .await;
}

#[tokio::test]
async fn an_object_that_is_labelled_for_another_scope_is_refused() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    for key_type in KeyType::ALL {
        let key = harness.generate(key_type).await;
        for label in ["kms tenant-2/dev/tenant", "kms tenant-1/dev/tenant ", ""] {
            token.relabel(key.record.key_id, label);
            all_at_fault(uses(&*token.hsm, &key).await, HsmFault::ForeignObject);
            token.relabel(key.record.key_id, "kms tenant-1/dev/tenant");
            // What was refused was remembered as it was found, until it is looked for
            // under another connection.
            let found_anew = token.another_backend().await;
            all_well(uses(&found_anew, &key).await);
        }
    }
}

#[tokio::test]
async fn a_key_of_a_token_with_another_serial_is_unavailable() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    for key_type in KeyType::ALL {
        let key = harness.generate(key_type).await;
        let mut elsewhere = StoredKey::clone(&key);
        let mut handle = key.handle.as_ref().expect("one").as_bytes().to_vec();
        // Version, id and length come before the serial.
        handle[18] ^= 1;
        elsewhere.handle = Some(KeyHandle::from_bytes(handle));
        let elsewhere = Arc::new(elsewhere);
        for used in uses(&*token.hsm, &elsewhere).await {
            let Err(HsmError::Unavailable(why)) = used else {
                panic!("it was used: {used:?}");
            };
            let why = why.to_string();
            assert!(why.contains("the key is in the token with serial"), "{why}");
        }
        // Nor is it called erased, while its own token still has it.
        let erased = token.hsm.erase(&erase_permit(&elsewhere)).await;
        assert!(matches!(erased, Err(HsmError::Unavailable(_))));
        all_well(uses(&*token.hsm, &key).await);
    }
}

#[tokio::test]
async fn no_secret_leaves_the_token_and_none_can_be_told_to() {
    let token = OpenToken::new().await;
    for key_type in KeyType::ALL {
        let key = Harness { hsm: &*token.hsm }.generate(key_type).await;
        let mut secrets = 0;
        for object in token.objects(key.record.key_id) {
            let [Attribute::Class(class)] = token.told(object, &[AttributeType::Class])[..] else {
                panic!("every object has a class");
            };
            if class == ObjectClass::PUBLIC_KEY {
                continue;
            }
            secrets += 1;
            for secret in [
                AttributeType::Value,
                AttributeType::PrivateExponent,
                AttributeType::Prime1,
                AttributeType::Prime2,
                AttributeType::Exponent1,
                AttributeType::Exponent2,
                AttributeType::Coefficient,
            ] {
                assert_eq!(token.told(object, &[secret]), [], "{key_type}: {secret}");
            }
            for loosened in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
                assert!(token.refuses_to_set(object, &loosened), "{loosened:?}");
            }
        }
        assert_eq!(secrets, 1, "{key_type}");
    }
}
