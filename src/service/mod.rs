//! The use cases. Each is one function of [`KmsService`], and each use of a key
//! goes through the one pipeline in `pipeline`.
//!
//! This room knows ports and not adapters: it cannot tell an embedded store from
//! a remote one, nor a development identity from a certificate's.

mod anchors_in_doubt;
mod approvals;
mod batch;
mod doubts;
mod encryption;
mod health;
mod keys;
mod keys_in_doubt;
mod ledger;
mod lifecycle;
mod pipeline;
mod reconcile;
mod scheduler;
mod signing;
mod trust_anchors;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::domain::approval::ApprovalToken;
use crate::domain::caller::{Caller, Credentials};
use crate::domain::error::KmsError;
use crate::domain::ids::{ModuleId, RequestId};
use crate::domain::policy::{ApprovalPolicy, KeyDefaults};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::data_plane::{DataPlane, KeyCounts};
use crate::ports::hsm::HsmBackends;
use crate::ports::iam::IamClient;
use crate::ports::ledger::EvidenceLedger;
use crate::ports::material::Material;
use crate::ports::trust_plane::TrustPlane;
use crate::telemetry::metrics::Metrics;

pub use crate::ports::hsm::{Ciphertext, Encrypted, Plaintext, SignedMessage};
pub use crate::ports::ledger_store::{ReceiptPlace, ReceiptQuery};
pub use health::{Check, CheckStatus, HealthReport, HealthStatus};
pub use keys::{KeyListing, ListKeysRequest, UsageReport, VersionListing};
pub use ledger::{CheckpointRefusal, Consistency, FoundReceipt, VerifierOfLedger};
pub use lifecycle::{
    GenerateKeyRequest, Generated, KeyChanged, RevokeKeyRequest, Revoked, Rotated, Rotation,
};
pub use pipeline::{KeyChoice, UseOfBatch, Used, UsedBatch};
pub use scheduler::{Round, Scheduler};
pub use trust_anchors::{
    AddTrustAnchorRequest, ListTrustAnchorsRequest, TrustAnchorAdded, TrustAnchorListing,
    TrustAnchorRemoved,
};

/// Everything the service stands on.
pub struct Ports {
    /// Hold the keys.
    pub hsm: HsmBackends,
    /// Holds everything else.
    pub data_plane: Arc<dyn DataPlane>,
    /// Signs receipts.
    pub ledger: Arc<dyn EvidenceLedger>,
    /// Knows who calls and who agreed.
    pub iam: Arc<dyn IamClient>,
    /// Knows what makes an anchor.
    pub trust_plane: Arc<dyn TrustPlane>,
    /// Knows the time.
    pub clock: Arc<dyn Clock>,
    /// What the operator renews, for the health report.
    pub material: Vec<Arc<dyn Material>>,
}

/// The rules that the configuration sets.
#[derive(Clone, Debug)]
pub struct ServicePolicy {
    /// What a new key gets where its maker says nothing.
    pub key_defaults: KeyDefaults,
    /// Which operations need a second person.
    pub approvals: ApprovalPolicy,
    /// The modules that may read the receipts of every tenant.
    pub auditors: Vec<ModuleId>,
}

/// The key management service.
pub struct KmsService {
    ports: Ports,
    policy: ServicePolicy,
    health: health::HealthBoard,
    anchors_in_doubt: doubts::Doubts<anchors_in_doubt::Doubt>,
    keys_in_doubt: doubts::Doubts<keys_in_doubt::KeyDoubt>,
    quarantine: reconcile::Quarantine,
    scheduler: scheduler::SchedulerBoard,
    receipts_under_way: batch::ReceiptsUnderWay,
    /// When this process began to make keys.
    began_at: Timestamp,
    metrics: Arc<Metrics>,
}

/// What a use case knows of the request it serves.
pub struct RequestContext {
    /// The request's id, for the receipt.
    pub request_id: RequestId,
    /// Who calls.
    pub caller: Caller,
    /// The approval that came along, not yet looked at.
    pub approval: Option<ApprovalToken>,
}

impl KmsService {
    /// A service on these ports with these rules. It reports unhealthy until the
    /// first [`KmsService::probe_health`].
    pub fn new(ports: Ports, policy: ServicePolicy, metrics: Arc<Metrics>) -> Self {
        Self {
            began_at: ports.clock.now(),
            ports,
            policy,
            health: health::HealthBoard::default(),
            anchors_in_doubt: doubts::Doubts::default(),
            keys_in_doubt: doubts::Doubts::default(),
            quarantine: reconcile::Quarantine::default(),
            scheduler: scheduler::SchedulerBoard::default(),
            receipts_under_way: batch::ReceiptsUnderWay::default(),
            metrics,
        }
    }

    /// Establishes who calls.
    ///
    /// # Errors
    /// [`KmsError::Unauthenticated`] when nobody can be told.
    pub async fn authenticate(&self, credentials: Credentials) -> Result<Caller, KmsError> {
        self.ports.iam.authenticate(credentials).await
    }

    /// The rules in force.
    pub fn policy(&self) -> &ServicePolicy {
        &self.policy
    }

    /// How many keys there are of each type and state.
    pub fn key_counts(&self) -> KeyCounts {
        self.ports.data_plane.key_counts()
    }

    /// How many receipts the ledger holds.
    pub fn ledger_size(&self) -> u64 {
        self.ports.data_plane.ledger_size()
    }
}
