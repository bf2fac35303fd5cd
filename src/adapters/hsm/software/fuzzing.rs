//! Stored blobs from somebody who can write to the store.

use std::sync::LazyLock;

use super::kek::KeyEncryptionKey;
use super::ring::KekRing;
use super::seal::{self, SecretBinding};
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyId;
use crate::domain::key::KeyHandle;
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;

struct Sealed {
    ring: KekRing,
    binding: SecretBinding,
    handle: KeyHandle,
}

static SEALED: LazyLock<Sealed> = LazyLock::new(|| {
    let kek = || KeyEncryptionKey::derive(&[3; 32]).expect("derives");
    let binding = SecretBinding {
        key_id: KeyId::from_bytes([1; 16]),
        scope: Scope {
            tenant_id: "t".parse().expect("a tenant"),
            environment: Environment::Dev,
            plane: Plane::Shared,
        },
        key_type: KeyType::Aes256,
    };
    let secret = SecretBytes::new(vec![9; 32]);
    let handle = seal::seal(&kek(), &binding, &secret).expect("seals");
    Sealed {
        ring: KekRing::of(kek()),
        binding,
        handle,
    }
});

/// A sealed secret: opens only where it is the one that was sealed.
pub(crate) fn sealed(bytes: &[u8]) {
    let Sealed {
        ring,
        binding,
        handle,
    } = &*SEALED;
    let _ = seal::sealed_under(bytes);
    assert!(seal::open_stock(ring, bytes).is_err(), "a forged pair");
    let forged = KeyHandle::from_bytes(bytes.to_vec());
    assert!(
        seal::open(ring, binding, &forged).is_err(),
        "a forged secret"
    );
    // The real one with changes: each pair of bytes says where and what.
    let mut changed = handle.as_bytes().to_vec();
    for change in bytes.chunks_exact(2) {
        let place = usize::from(change[0]) % changed.len();
        changed[place] ^= change[1];
    }
    let is_same = changed == handle.as_bytes();
    let opened = seal::open(ring, binding, &KeyHandle::from_bytes(changed));
    assert_eq!(opened.is_ok(), is_same, "a changed secret");
}
