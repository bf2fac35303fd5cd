//! Signing and verifying.

use bytes::Bytes;

use super::pipeline::{KeyChoice, Used, Work};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::SigningAlgorithm;
use crate::domain::error::KmsError;
use crate::domain::permit::{Permit, Sign, Verify};
use crate::domain::receipt::ReceiptOperation;
use crate::ports::hsm::{HsmBackend, HsmError};

struct SignWork {
    data: Bytes,
}

impl Work<Sign> for SignWork {
    type Output = Vec<u8>;
    const RECEIPT: ReceiptOperation = ReceiptOperation::SignatureCreated;

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Sign>,
    ) -> Result<Vec<Option<Vec<u8>>>, HsmError> {
        let signature = hsm.sign(permit, self.data.clone()).await?;
        Ok(vec![Some(signature)])
    }
}

struct VerifyWork {
    data: Bytes,
    signature: Bytes,
}

impl Work<Verify> for VerifyWork {
    type Output = bool;
    const RECEIPT: ReceiptOperation = ReceiptOperation::SignatureVerified;

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Verify>,
    ) -> Result<Vec<Option<bool>>, HsmError> {
        let (data, signature) = (self.data.clone(), self.signature.clone());
        let valid = hsm.verify(permit, data, signature).await?;
        Ok(vec![Some(valid)])
    }

    fn succeeded(valid: &bool) -> bool {
        *valid
    }
}

impl KmsService {
    /// Signs a message.
    ///
    /// # Errors
    /// Every refusal of `domain::permit::check_use`; [`KmsError::KeyNotFound`],
    /// [`KmsError::Unauthorized`], [`KmsError::DailyLimitReached`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn sign(
        &self,
        context: &RequestContext,
        key: &KeyChoice<SigningAlgorithm>,
        data: Bytes,
    ) -> Result<Used<Vec<u8>>, KmsError> {
        self.use_key(context, key, &SignWork { data }).await
    }

    /// Verifies a signature of a message. A wrong one is an answer and no error.
    ///
    /// # Errors
    /// As for [`KmsService::sign`].
    pub async fn verify(
        &self,
        context: &RequestContext,
        key: &KeyChoice<SigningAlgorithm>,
        data: Bytes,
        signature: Bytes,
    ) -> Result<Used<bool>, KmsError> {
        self.use_key(context, key, &VerifyWork { data, signature })
            .await
    }
}
