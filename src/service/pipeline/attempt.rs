//! What comes of walking the road to a key: for the caller, and on the way there.

use std::sync::Arc;

use crate::domain::algorithm::Algorithm;
use crate::domain::approval::Grant;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyId, ReceiptId};
use crate::domain::key::StoredKey;
use crate::domain::usage::UsageReservation;

/// A use that is done, and whose receipt is durable.
pub struct Used<T> {
    /// What came of it.
    pub output: T,
    /// The key that was used.
    pub key_id: KeyId,
    /// The algorithm that was used.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// Uses that are done or were refused one by one, and whose receipts are durable.
pub struct UsedBatch<T> {
    /// The key that was used.
    pub key_id: KeyId,
    /// The algorithm that was used.
    pub algorithm: Algorithm,
    /// What came of each, in the order in which they were asked for.
    pub uses: Vec<UseOfBatch<T>>,
}

/// What came of one use among several.
pub struct UseOfBatch<T> {
    /// What it gives out; or why it alone came to nothing.
    pub outcome: Result<T, KmsError>,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// One walk down the road, up to the receipts.
pub(super) struct Attempt<T> {
    /// What came of each use; or why there was none at all.
    pub(super) outcome: Result<Vec<Result<T, KmsError>>, KmsError>,
    pub(super) key: Option<Arc<StoredKey>>,
    pub(super) algorithm: Option<Algorithm>,
    /// The counted uses; `None` where the key was never reached.
    pub(super) counted: Option<UsageReservation>,
    /// Who agreed to it, where the key asks for that.
    pub(super) grants: Vec<Grant>,
    /// Whether the permit was there and the HSM did not deliver.
    pub(super) hsm_failed: bool,
    /// Whether that was because the HSM does not have the key.
    pub(super) is_missing: bool,
}

impl<T> Attempt<T> {
    /// One receipt a use, or one for the refusal of all.
    pub(super) fn receipts(&self) -> usize {
        self.outcome.as_ref().map_or(1, Vec::len)
    }

    /// What the receipt in this place is about.
    pub(super) fn result(&self, place: usize) -> Result<&T, &KmsError> {
        match &self.outcome {
            Ok(uses) => uses[place].as_ref(),
            Err(refusal) => Err(refusal),
        }
    }

    /// The approval that was acted on, if anything was done.
    pub(super) fn acted_on(&self) -> &[Grant] {
        match (0..self.receipts()).any(|place| self.result(place).is_ok()) {
            true => &self.grants,
            false => &[],
        }
    }
}
