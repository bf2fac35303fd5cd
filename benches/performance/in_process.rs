//! The use cases without HTTP: the service on its usual ports, in this process.

use std::path::Path;
use std::sync::Arc;

use kms::adapters::backlog::Backlog;
use kms::adapters::clock::SystemClock;
use kms::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions};
use kms::adapters::hsm::software::kek::KeyEncryptionKey;
use kms::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use kms::adapters::iam::PlatformIam;
use kms::adapters::ledger::LedgerSigner;
use kms::adapters::secret_file::LaidOutBy;
use kms::adapters::trust_plane::X509TrustPlane;
use kms::domain::algorithm::KeyType;
use kms::domain::caller::{Caller, Reach};
use kms::domain::ids::RequestId;
use kms::domain::key::KeyRecord;
use kms::domain::key_usage::{KeyUsage, KeyUsageSet};
use kms::domain::policy::{AccessPolicyChoice, ApprovalPolicy, KeyDefaults, RotationSchedule};
use kms::domain::scope::{Environment, Plane, Scope};
use kms::domain::time::Period;
use kms::ports::clock::Clock;
use kms::ports::data_plane::DataPlane;
use kms::ports::hsm::{HsmBackend, HsmBackends};
use kms::service::{GenerateKeyRequest, KmsService, Ports, RequestContext, ServicePolicy};
use kms::telemetry::metrics::Metrics;

/// A service in this process.
#[derive(Clone)]
pub(crate) struct InProcess {
    pub(crate) service: Arc<KmsService>,
    data_plane: Arc<dyn DataPlane>,
}

impl InProcess {
    /// On this data folder and the software HSM of it, with its key-encryption key made
    /// where there is none.
    pub(crate) async fn on_software(data_dir: &Path) -> Self {
        let path = data_dir.join("kek");
        let kek = KeyEncryptionKey::load(&path, LaidOutBy::Service).expect("a key, or none");
        let kek = kek.unwrap_or_else(|| KeyEncryptionKey::create(&path).expect("created"));
        let settings = SoftwareHsmSettings::default();
        let backlog = settings.backlog.clone();
        let hsm = Arc::new(SoftwareHsm::new(kek, settings));
        Self::open(data_dir, hsm, backlog).await
    }

    /// On this data folder and this HSM, which says there what waits for it.
    pub(crate) async fn open(data_dir: &Path, hsm: Arc<dyn HsmBackend>, backlog: Backlog) -> Self {
        let path = data_dir.join("ledger.key");
        let signer = LedgerSigner::load(&path).expect("a key, or none");
        let signer = signer.unwrap_or_else(|| LedgerSigner::create(&path).expect("created"));
        let signer = Arc::new(signer);
        let options = SqliteOptions {
            backlog,
            ..SqliteOptions::default()
        };
        let store = SqliteDataPlane::open(&data_dir.join("kms.db"), options);
        let data_plane: Arc<dyn DataPlane> = Arc::new(store.expect("a store"));
        data_plane
            .begin_ledger(Arc::clone(&signer) as _)
            .await
            .expect("a ledger that verifies");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ports = Ports {
            hsm: HsmBackends::new(hsm, Vec::new()),
            data_plane: Arc::clone(&data_plane),
            ledger: signer,
            iam: Arc::new(PlatformIam::development(Arc::clone(&clock))),
            trust_plane: Arc::new(X509TrustPlane::new()),
            clock,
            material: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new("benchmark").expect("metrics"));
        Self {
            service: Arc::new(KmsService::new(ports, policy(), metrics)),
            data_plane,
        }
    }

    /// Finishes what is under way.
    pub(crate) async fn close(&self) {
        self.data_plane.close().await;
    }

    /// Makes a key that may be used without end.
    pub(crate) async fn make_key(&self, scope: &Scope, key_type: KeyType) -> KeyRecord {
        let usages = match key_type {
            KeyType::Aes256 => [KeyUsage::Encrypt, KeyUsage::Decrypt],
            KeyType::Rsa2048 | KeyType::Ed25519 => [KeyUsage::Sign, KeyUsage::Verify],
        };
        let request = GenerateKeyRequest {
            scope: scope.clone(),
            key_type,
            key_usage: KeyUsageSet::of(usages).expect("some"),
            key_alias: None,
            access_policy: AccessPolicyChoice {
                max_usage_per_day: Some(1_000_000_000),
                ..AccessPolicyChoice::default()
            },
            rotation_period: None,
        };
        let made = self.service.generate_key(&context(), request).await;
        made.expect("a key").record
    }
}

/// Any caller.
pub(crate) fn context() -> RequestContext {
    RequestContext {
        request_id: RequestId::generate(),
        caller: Caller::new("M21".parse().expect("a module"), Reach::AnyScope),
        approval: None,
    }
}

/// Where the keys of a tenant live.
pub(crate) fn scope(tenant: &str) -> Scope {
    Scope {
        tenant_id: tenant.parse().expect("a tenant"),
        environment: Environment::Dev,
        plane: Plane::Tenant,
    }
}

/// The defaults of the configuration, without the second person.
fn policy() -> ServicePolicy {
    let modules = ["M21", "M23", "M27", "M29", "M34"];
    ServicePolicy {
        key_defaults: KeyDefaults {
            allowed_modules: modules
                .map(|module| module.parse().expect("a module"))
                .to_vec(),
            max_usage_per_day: 10_000,
            rotation_schedule: RotationSchedule {
                rsa_2048: Period::days(90),
                ed25519: Period::days(365),
                aes_256: Period::days(90),
            },
            rotation_grace_period: Period::days(7),
            erase_after: Period::days(7),
        },
        approvals: ApprovalPolicy {
            operations: Vec::new(),
        },
        auditors: Vec::new(),
    }
}
