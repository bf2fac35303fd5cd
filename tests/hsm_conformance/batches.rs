//! What a batch promises, whatever the backend.

use bytes::Bytes;
use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::permit::{Decrypt, Encrypt, Sign, Verify};
use kms::ports::hsm::{Ciphertext, HsmBackend, Plaintext, SignedMessage};

use super::harness::{Harness, erase_permit, permit_for};

/// Few enough for where it stands, and enough for several pieces.
const SIZES: [usize; 3] = [1, 3, 300];

/// An RSA signature takes 230 µs, so these are enough for several pieces.
const RSA_SIZES: [usize; 2] = [1, 10];

/// Each another, and one that is long.
fn message(place: usize) -> Bytes {
    match place {
        2 => vec![2; 20_000].into(),
        _ => format!("message {place}").into(),
    }
}

pub(crate) async fn a_batch_signs_and_verifies_each_in_its_place(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for (key_type, sizes) in [
        (KeyType::Ed25519, SIZES.as_slice()),
        (KeyType::Rsa2048, &RSA_SIZES),
    ] {
        let key = harness.generate(key_type).await;
        for algorithm in harness.offered::<SigningAlgorithm>(key_type) {
            for &size in sizes {
                let permit = permit_for::<Sign>(&key, algorithm, size);
                let batch = permit.batch((0..size).map(message));
                let signatures = hsm.sign_batch(batch).await.expect("signs");
                assert_eq!(signatures.len(), size);
                let alone = harness
                    .verify(&key, algorithm, &message(size - 1), &signatures[size - 1])
                    .await;
                assert!(alone.expect("verifies"), "{algorithm}");

                let wrong = size / 2;
                let signed = signatures.into_iter().enumerate();
                let signed = signed.map(|(place, signature)| SignedMessage {
                    data: match place == wrong {
                        true => Bytes::from_static(b"another message"),
                        false => message(place),
                    },
                    signature: signature.into(),
                });
                let permit = permit_for::<Verify>(&key, algorithm, size);
                let verdicts = hsm.verify_batch(permit.batch(signed)).await;
                let wanted: Vec<bool> = (0..size).map(|place| place != wrong).collect();
                assert_eq!(verdicts.expect("verifies"), wanted, "{algorithm}");
            }
        }
    }
}

pub(crate) async fn a_batch_encrypts_and_decrypts_each_in_its_place(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Aes256).await;
    let aad = |place: usize| Bytes::from(format!("row {place}"));
    for algorithm in harness.offered::<AeadAlgorithm>(KeyType::Aes256) {
        for size in SIZES {
            let permit = permit_for::<Encrypt>(&key, algorithm, size);
            let batch = permit.batch((0..size).map(|place| Plaintext {
                plaintext: message(place),
                aad: aad(place),
            }));
            let sealed = hsm.encrypt_batch(batch).await.expect("encrypts");
            assert_eq!(sealed.len(), size);
            let nonces: std::collections::HashSet<_> =
                sealed.iter().map(|sealed| sealed.nonce).collect();
            assert_eq!(nonces.len(), size);
            let last = &sealed[size - 1];
            let alone = harness
                .decrypt(
                    &key,
                    algorithm,
                    last.nonce,
                    &last.ciphertext,
                    &aad(size - 1),
                )
                .await;
            assert_eq!(alone.expect("decrypts").expose(), message(size - 1));

            let wrong = size / 2;
            let permit = permit_for::<Decrypt>(&key, algorithm, size);
            let batch =
                permit.batch(
                    sealed
                        .into_iter()
                        .enumerate()
                        .map(|(place, sealed)| Ciphertext {
                            ciphertext: sealed.ciphertext.into(),
                            nonce: sealed.nonce,
                            aad: match place == wrong {
                                true => Bytes::from_static(b"another row"),
                                false => aad(place),
                            },
                        }),
                );
            let opened = hsm.decrypt_batch(batch).await.expect("decrypts");
            assert_eq!(opened.len(), size);
            for (place, opened) in opened.iter().enumerate() {
                let opened = opened.as_ref().map(|opened| opened.expose().to_vec());
                let wanted = (place != wrong).then(|| message(place).to_vec());
                assert_eq!(opened, wanted, "{algorithm} {place}");
            }
        }
    }
}

pub(crate) async fn a_batch_of_an_erased_key_comes_to_nothing(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Ed25519).await;
    hsm.erase(&erase_permit(&key)).await.expect("erases");
    let permit = permit_for::<Sign>(&key, SigningAlgorithm::Ed25519, 3);
    let signed = hsm.sign_batch(permit.batch((0..3).map(message))).await;
    assert!(signed.is_err());
}
