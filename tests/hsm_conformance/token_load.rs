//! Many callers of one token at once.

use std::sync::Arc;
use std::time::Duration;

use kms::adapters::backlog::Backlog;
use kms::domain::algorithm::{AeadAlgorithm, KeyType};
use kms::domain::key::StoredKey;
use kms::ports::hsm::{HsmBackend, HsmError, HsmFault};

use super::harness::{Harness, erase_permit};
use super::token::OpenToken;

/// Callers, each with a key of its own.
const CALLERS: usize = 210;

/// What becomes of a caller's key in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Erased,
    Discarded,
}

/// Makes a key, uses it and a key of everybody's, and leaves it to its fate.
async fn live(
    hsm: &dyn HsmBackend,
    number: usize,
    shared: &[Arc<StoredKey>],
) -> (Arc<StoredKey>, Fate) {
    let harness = Harness { hsm };
    // RSA keys take some hundred milliseconds each.
    let key_type = match number % 35 {
        0 => KeyType::Rsa2048,
        odd if odd % 2 == 1 => KeyType::Ed25519,
        _ => KeyType::Aes256,
    };
    let key = harness.generate(key_type).await;
    for round in 0..3 {
        for key in [&key, &shared[(number + round) % shared.len()]] {
            round_trip(&harness, key, &number.to_be_bytes()).await;
        }
    }
    let fate = match number % 3 {
        0 => Fate::Kept,
        1 => Fate::Erased,
        _ => Fate::Discarded,
    };
    match fate {
        Fate::Kept => {}
        Fate::Erased => hsm.erase(&erase_permit(&key)).await.expect("erases"),
        Fate::Discarded => hsm.discard(key.record.key_id).await.expect("discards"),
    }
    (key, fate)
}

async fn round_trip(harness: &Harness<'_>, key: &Arc<StoredKey>, data: &[u8]) {
    let aad = key.record.key_id.as_bytes();
    if key.record.key_type == KeyType::Aes256 {
        let gcm = AeadAlgorithm::Aes256Gcm;
        let sealed = harness.encrypt(key, gcm, data, aad).await;
        let sealed = sealed.expect("encrypts");
        let open = async |ciphertext: &[u8]| {
            harness
                .decrypt(key, gcm, sealed.nonce, ciphertext, aad)
                .await
        };
        let opened = open(&sealed.ciphertext).await.expect("decrypts");
        assert_eq!(opened.expose(), data);
        let mut altered = sealed.ciphertext.clone();
        altered[0] ^= 1;
        let opened = open(&altered).await;
        assert!(matches!(opened, Err(HsmError::Undecryptable)));
        return;
    }
    for algorithm in harness.offered(key.record.key_type) {
        let signature = harness.sign(key, algorithm, data).await.expect("signs");
        let is_valid = harness.verify(key, algorithm, data, &signature).await;
        assert!(is_valid.expect("verifies"), "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_callers_at_once_each_get_what_is_theirs() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    let mut shared = Vec::new();
    for key_type in KeyType::ALL {
        shared.push(harness.generate(key_type).await);
    }
    let shared: Arc<[Arc<StoredKey>]> = shared.into();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (hsm, shared) = (Arc::clone(&token.hsm), Arc::clone(&shared));
            tokio::spawn(async move { live(&*hsm, number, &shared).await })
        })
        .collect();
    let mut fates = Vec::new();
    for caller in callers {
        fates.push(caller.await.expect("it got all it asked for"));
    }

    let inventory = token.hsm.inventory().await.expect("it is there");
    let inventory = inventory.expect("a token keeps its keys");
    for (key, fate) in &fates {
        let (key_id, key_type) = (key.record.key_id, key.record.key_type);
        let is_kept = *fate == Fate::Kept;
        assert_eq!(inventory.contains(&key_id), is_kept, "{key_type} {fate:?}");
        let objects = match (is_kept, key_type) {
            (false, _) => 0,
            (true, KeyType::Aes256) => 1,
            (true, KeyType::Rsa2048 | KeyType::Ed25519) => 2,
        };
        assert_eq!(token.objects(key_id).len(), objects, "{key_type} {fate:?}");
        if is_kept {
            round_trip(&harness, key, b"afterwards").await;
            token.destroy(key_id);
        } else {
            let algorithm = harness.offered(key_type);
            if let [algorithm, ..] = algorithm[..] {
                let signed = harness.sign(key, algorithm, b"afterwards").await;
                assert!(matches!(signed, Err(HsmError::Fault(HsmFault::Missing))));
            }
        }
    }
}

/// Waits for the HSM to be in this condition, and the backlog with it.
async fn until(hsm: &dyn HsmBackend, backlog: &Backlog, condition: &str, waiting: usize) {
    let seen = async || {
        loop {
            let now = hsm.condition().expect("a condition");
            if now.contains(condition) && backlog.waiting() == waiting {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen())
        .await
        .unwrap_or_else(|_| panic!("never {condition}, and {waiting} in the backlog"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_in_the_backlog_until_a_session_has_it() {
    let token = OpenToken::new().await;
    let backlog = Backlog::default();
    let hsm = Arc::new(token.backend_with(&backlog).await);
    // It has the only session for as long as one RSA key after the other takes.
    let busy = tokio::spawn({
        let hsm = Arc::clone(&hsm);
        async move {
            loop {
                let key = Harness { hsm: &*hsm }.generate(KeyType::Rsa2048).await;
                let discarded = hsm.discard(key.record.key_id).await;
                discarded.expect("discards");
            }
        }
    });
    let in_use = "1 of 1 sessions in use, 0 calls waiting";
    until(&*hsm, &backlog, in_use, 0).await;
    let second = tokio::spawn({
        let hsm = Arc::clone(&hsm);
        async move {
            loop {
                hsm.self_test().await.expect("it is well");
            }
        }
    });
    let one_waits = "1 of 1 sessions in use, 1 calls waiting";
    until(&*hsm, &backlog, one_waits, 1).await;
    second.abort();
    busy.abort();
    until(&*hsm, &backlog, "0 of 1 sessions in use, 0 calls", 0).await;
}
