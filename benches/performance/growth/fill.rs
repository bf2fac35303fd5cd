//! Filling a data folder, through the use cases: every key, anchor and receipt is as
//! genuine as any.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::trust_anchor::AnchorType;
use kms::service::{AddTrustAnchorRequest, KeyChoice};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::in_process::{InProcess, context, scope};
use crate::requests::{MESSAGE, base64};

/// At work at once: many share one write.
const TASKS: usize = 256;

/// Of a hundred keys the first is RSA-2048, which takes as long to make as thousands of
/// others, so many are Ed25519, and the others AES-256.
const ED25519_IN_100: usize = 55;

/// Who has more keys than the others, for lists that go deep.
pub(crate) const FIRST_TENANT: &str = "tenant-0";

/// How much there is to be.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) tenants: usize,
    /// Of the first tenant.
    pub(crate) keys_of_the_first: usize,
    pub(crate) anchors: usize,
    /// At least; making keys and anchors leaves some of them.
    pub(crate) receipts: usize,
}

/// A key that was made.
pub(crate) struct Made {
    pub(crate) tenant: String,
    pub(crate) key_id: String,
    pub(crate) key_type: KeyType,
    /// A signature of the message, in base64.
    pub(crate) signature: OnceLock<String>,
}

/// One step of the filling, for one place.
#[derive(Clone, Copy)]
enum Step {
    MakeKeys,
    AddAnchors,
    UseKeys,
}

/// Fills it, and answers its keys.
pub(crate) fn fill(data_dir: &Path, size: Size, say: impl Fn(&str)) -> Vec<Made> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let filling = Arc::new(Filling {
            on: InProcess::on_software(data_dir).await,
            size,
            keys: (0..size.keys).map(|_| OnceLock::new()).collect(),
        });
        say(&format!("{} keys of {} tenants\n", size.keys, size.tenants));
        filling.all(size.keys, Step::MakeKeys).await;
        say(&format!("{} trust anchors\n", size.anchors));
        filling.all(size.anchors, Step::AddAnchors).await;
        // Each at least once, for a signature of it.
        let left = size.receipts.saturating_sub(size.keys + size.anchors);
        let uses = left.max(size.keys);
        say(&format!("{uses} uses of the keys\n"));
        filling.all(uses, Step::UseKeys).await;
        filling.on.close().await;
        let filling = Arc::into_inner(filling).expect("every task has ended");
        let keys = filling.keys.into_iter();
        keys.map(|key| key.into_inner().expect("it was made"))
            .collect()
    })
}

struct Filling {
    on: InProcess,
    size: Size,
    keys: Vec<OnceLock<Made>>,
}

impl Filling {
    /// Takes a step for each place below `end`, many at once.
    async fn all(self: &Arc<Self>, end: usize, step: Step) {
        let next = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (filling, next) = (Arc::clone(self), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        match next.fetch_add(1, Ordering::Relaxed) {
                            place if place < end => filling.one(place, step).await,
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    }

    async fn one(&self, place: usize, step: Step) {
        match step {
            Step::MakeKeys => {
                let made = self.make_key(place).await;
                assert!(self.keys[place].set(made).is_ok(), "made once");
            }
            Step::AddAnchors => self.add_anchor(place).await,
            Step::UseKeys => {
                let key = self.keys[place % self.keys.len()].get();
                self.use_key(key.expect("it was made")).await;
            }
        }
    }

    async fn make_key(&self, place: usize) -> Made {
        let key_type = match place % 100 {
            0 => KeyType::Rsa2048,
            within if within <= ED25519_IN_100 => KeyType::Ed25519,
            _ => KeyType::Aes256,
        };
        let tenant = match place < self.size.keys_of_the_first {
            true => FIRST_TENANT.to_owned(),
            false => tenant(place % self.size.tenants),
        };
        let record = self.on.make_key(&scope(&tenant), key_type).await;
        Made {
            tenant,
            key_id: record.key_id.to_string(),
            key_type,
            signature: OnceLock::new(),
        }
    }

    async fn add_anchor(&self, place: usize) {
        let request = AddTrustAnchorRequest {
            scope: scope(&tenant(place % self.size.tenants)),
            certificate: authority(place).into(),
            anchor_type: AnchorType::Root,
        };
        let added = self.on.service.add_trust_anchor(&context(), request).await;
        added.expect("an anchor");
    }

    async fn use_key(&self, key: &Made) {
        let signing = match key.key_type {
            KeyType::Rsa2048 => SigningAlgorithm::RsaPssSha256,
            KeyType::Ed25519 => SigningAlgorithm::Ed25519,
            KeyType::Aes256 => {
                let choice = key.choice(AeadAlgorithm::Aes256Gcm);
                let plaintext = Bytes::from_static(&MESSAGE);
                let service = &self.on.service;
                let sealed = service
                    .encrypt(&context(), &choice, plaintext, Bytes::new())
                    .await;
                sealed.expect("a ciphertext");
                return;
            }
        };
        let message = Bytes::from_static(&MESSAGE);
        let choice = key.choice(signing);
        let signed = self.on.service.sign(&context(), &choice, message).await;
        let signature = base64(&signed.expect("a signature").output);
        // One is as good as another.
        let _ = key.signature.set(signature);
    }
}

impl Made {
    fn choice<A>(&self, algorithm: A) -> KeyChoice<A> {
        KeyChoice {
            scope: scope(&self.tenant),
            key: self.key_id.parse().expect("an id"),
            algorithm: Some(algorithm),
        }
    }
}

fn tenant(place: usize) -> String {
    format!("tenant-{place}")
}

/// A root of a subject of its own, in DER.
fn authority(place: usize) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("authority {place}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("randomness");
    let certificate = params.self_signed(&key).expect("a certificate");
    certificate.der().to_vec()
}
