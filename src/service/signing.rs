//! Signing and verifying.

use bytes::Bytes;

use super::pipeline::{UseRequest, Used, Work};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::{Algorithm, SigningAlgorithm};
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyId, KeyRef, ReceiptId};
use crate::domain::permit::{Permit, Sign, Verify};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::ports::hsm::{HsmBackend, HsmError};

/// What to sign.
pub struct SignRequest {
    /// Where the key lives.
    pub scope: Scope,
    /// With which key.
    pub key: KeyRef,
    /// The message.
    pub data: Bytes,
    /// The algorithm; the key's default where absent.
    pub algorithm: Option<SigningAlgorithm>,
}

/// A signature, given out.
pub struct Signed {
    /// The signature.
    pub signature: Vec<u8>,
    /// The key that made it.
    pub key_id: KeyId,
    /// The algorithm that made it.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// What to verify.
pub struct VerifyRequest {
    /// Where the key lives.
    pub scope: Scope,
    /// With which key.
    pub key: KeyRef,
    /// The message.
    pub data: Bytes,
    /// The signature.
    pub signature: Bytes,
    /// The algorithm; the key's default where absent.
    pub algorithm: Option<SigningAlgorithm>,
}

/// What a verification found.
pub struct Verified {
    /// Whether the signature is good.
    pub valid: bool,
    /// The key.
    pub key_id: KeyId,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

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
    ) -> Result<Self::Output, HsmError> {
        hsm.sign(permit, self.data.clone()).await
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
    ) -> Result<Self::Output, HsmError> {
        hsm.verify(permit, self.data.clone(), self.signature.clone())
            .await
    }

    fn succeeded(valid: &bool) -> bool {
        *valid
    }
}

impl KmsService {
    /// Signs.
    ///
    /// # Errors
    /// Those of the pipeline: see `pipeline::KmsService::use_key`.
    pub async fn sign(
        &self,
        context: &RequestContext,
        request: SignRequest,
    ) -> Result<Signed, KmsError> {
        let work = SignWork { data: request.data };
        let Used {
            output,
            key_id,
            algorithm,
            receipt_id,
        } = self
            .use_key(
                UseRequest {
                    context,
                    scope: &request.scope,
                    key: &request.key,
                    algorithm: request.algorithm,
                },
                &work,
            )
            .await?;
        Ok(Signed {
            signature: output,
            key_id,
            algorithm,
            receipt_id,
        })
    }

    /// Verifies. A wrong signature is an answer and no error.
    ///
    /// # Errors
    /// Those of the pipeline.
    pub async fn verify(
        &self,
        context: &RequestContext,
        request: VerifyRequest,
    ) -> Result<Verified, KmsError> {
        let work = VerifyWork {
            data: request.data,
            signature: request.signature,
        };
        let used = self
            .use_key(
                UseRequest {
                    context,
                    scope: &request.scope,
                    key: &request.key,
                    algorithm: request.algorithm,
                },
                &work,
            )
            .await?;
        Ok(Verified {
            valid: used.output,
            key_id: used.key_id,
            algorithm: used.algorithm,
            receipt_id: used.receipt_id,
        })
    }
}
