//! The key-encryption keys in use: one seals, all of them open. There is more
//! than one only while secrets are being sealed anew. Knows no files and no store.

use std::sync::Arc;

use super::kek::KeyEncryptionKey;

/// Key-encryption keys, of which the first seals.
pub struct KekRing {
    sealing: Arc<KeyEncryptionKey>,
    others: Vec<Arc<KeyEncryptionKey>>,
}

impl KekRing {
    /// A ring of one key, which seals and opens.
    pub fn of(sealing: KeyEncryptionKey) -> Self {
        Self {
            sealing: Arc::new(sealing),
            others: Vec::new(),
        }
    }

    /// The same with another key that opens; one that is in it already changes
    /// nothing.
    #[must_use]
    pub fn and(mut self, other: KeyEncryptionKey) -> Self {
        if self.opening(other.id_bytes()).is_none() {
            self.others.push(Arc::new(other));
        }
        self
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> &Arc<KeyEncryptionKey> {
        &self.sealing
    }

    /// The key of this id.
    pub(super) fn opening(&self, id: &[u8]) -> Option<&KeyEncryptionKey> {
        std::iter::once(&self.sealing)
            .chain(&self.others)
            .find(|kek| kek.id_bytes() == id)
            .map(|kek| &**kek)
    }

    /// A ring in which this key seals, and those of this one open.
    pub(super) fn led_by(&self, sealing: Arc<KeyEncryptionKey>) -> Self {
        let others = std::iter::once(&self.sealing)
            .chain(&self.others)
            .filter(|kek| kek.id_bytes() != sealing.id_bytes())
            .map(Arc::clone)
            .collect();
        Self { sealing, others }
    }

    /// A ring of the key that seals, alone.
    pub(super) fn sealing_alone(&self) -> Self {
        Self {
            sealing: Arc::clone(&self.sealing),
            others: Vec::new(),
        }
    }

    /// Whether somebody outside this ring holds a key of it that does not seal.
    pub(super) fn others_are_held(&self) -> bool {
        self.others.iter().any(|kek| Arc::strong_count(kek) > 1)
    }
}
