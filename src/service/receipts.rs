//! Looking receipts up.

use super::{KmsService, RequestContext};
use crate::domain::error::{Dependency, KmsError, RequestFault};
use crate::domain::ids::ReceiptId;
use crate::domain::scope::Scope;

/// A receipt in its place.
pub struct FoundReceipt {
    /// Its place in the ledger, from 0.
    pub leaf_index: u64,
    /// The canonical JSON with the signature, byte for byte as it was kept.
    pub leaf: Vec<u8>,
}

impl KmsService {
    /// One receipt of a scope.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`RequestFault::UnknownReceipt`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn get_receipt(
        &self,
        context: &RequestContext,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<FoundReceipt, KmsError> {
        context.caller.authorize(scope)?;
        let kept = self
            .ports
            .data_plane
            .find_receipt(scope, receipt_id)
            .await
            .map_err(|away| KmsError::unavailable(Dependency::Ledger, away))?
            .ok_or(RequestFault::UnknownReceipt)?;
        Ok(FoundReceipt {
            leaf_index: kept.leaf_index,
            leaf: kept.leaf,
        })
    }
}
