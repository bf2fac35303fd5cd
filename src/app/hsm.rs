//! The HSM backends that the configuration names, and the token's PIN as something
//! that is renewed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::StartError;
use super::kek::{KekFiles, KekKeeper, KekKeeperPorts, keks_at_start};
use crate::adapters::backlog::Backlog;
use crate::adapters::hsm::pkcs11::{Pkcs11Hsm, Pkcs11Settings, TokenName};
use crate::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use crate::config::{Config, HsmKind, Source};
use crate::domain::secret::SecretBytes;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::data_plane::DataPlane;
use crate::ports::hsm::{HsmBackend, HsmBackends};
use crate::ports::material::{Material, MaterialFault, Standing};
use crate::telemetry::metrics::Metrics;

/// How long after its deadline a request can still be at work.
const REQUEST_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The backends, and what is kept for them.
pub(super) struct Backends {
    pub(super) hsm: HsmBackends,
    /// What the operator renews: the token's PIN, the key-encryption key.
    pub(super) material: Vec<Arc<dyn Material>>,
    /// Whoever keeps the key-encryption keys, where there is a software HSM.
    pub(super) kek_keeper: Option<KekKeeper>,
    /// The software HSM, where there is one: it makes pairs beforehand while the service
    /// serves.
    pub(super) software: Option<Arc<SoftwareHsm>>,
}

/// What the backends stand on.
pub(super) struct Ground<'a> {
    pub(super) config: &'a Config,
    pub(super) source: Option<Arc<Source>>,
    pub(super) data_plane: &'a Arc<dyn DataPlane>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) backlog: &'a Backlog,
}

/// Sets up the configured backend, and the other one where it is configured too, or
/// where its key-encryption key is there: it holds keys of before.
pub(super) async fn backends(ground: Ground<'_>) -> Result<Backends, StartError> {
    let config = ground.config;
    let token = token_hsm(&ground);
    let mut material: Vec<Arc<dyn Material>> = Vec::new();
    if let Some(hsm) = &token {
        material.push(Arc::new(TokenPin {
            hsm: Arc::clone(hsm),
            source: ground.source.clone(),
        }));
    }
    let token = token.map(|hsm| hsm as Arc<dyn HsmBackend>);
    let files = KekFiles::of(config);
    let has_software = match config.hsm.backend {
        HsmKind::Software => true,
        HsmKind::Pkcs11 => files.kek().exists() || files.next().exists(),
    };
    let (in_process, kek_keeper) = match has_software {
        true => {
            let (software, keeper, kek) = software_hsm(&ground, files).await?;
            material.push(kek);
            (Some(software), Some(keeper))
        }
        false => (None, None),
    };
    let software = in_process.clone().map(|hsm| hsm as Arc<dyn HsmBackend>);
    let (for_new_keys, others) = match config.hsm.backend {
        HsmKind::Software => (software, token),
        HsmKind::Pkcs11 => (token, software),
    };
    // The rules of the configuration ask for all that a token needs.
    let for_new_keys = for_new_keys.ok_or(StartError::Unsupported)?;
    Ok(Backends {
        hsm: HsmBackends::new(for_new_keys, others.into_iter().collect()),
        material,
        kek_keeper,
        software: in_process,
    })
}

async fn software_hsm(
    ground: &Ground<'_>,
    files: KekFiles,
) -> Result<(Arc<SoftwareHsm>, KekKeeper, Arc<dyn Material>), StartError> {
    let keks = keks_at_start(&files, ground.data_plane.as_ref()).await?;
    let settings = SoftwareHsmSettings {
        rsa_stock: match ground.config.hsm.backend {
            HsmKind::Software => ground.config.hsm.software.rsa_stock,
            // New keys are made in the token.
            HsmKind::Pkcs11 => 0,
        },
        backlog: ground.backlog.clone(),
        ..SoftwareHsmSettings::default()
    };
    ground.metrics.set_rsa_stock_target(settings.rsa_stock);
    let hsm = Arc::new(SoftwareHsm::with_ring(keks.ring, settings));
    let deadline = ground.config.server.request_timeout.as_duration();
    let ports = KekKeeperPorts {
        hsm: Arc::clone(&hsm),
        data_plane: Arc::clone(ground.data_plane),
        metrics: Arc::clone(ground.metrics),
        files,
        longest_request: deadline + REQUEST_ENDS_WITHIN,
    };
    let (keeper, material) = KekKeeper::start(ports, keks.ids).await;
    Ok((hsm, keeper, material))
}

fn token_hsm(ground: &Ground<'_>) -> Option<Arc<Pkcs11Hsm>> {
    let pkcs11 = &ground.config.hsm.pkcs11;
    let token = pkcs11.token()?;
    let settings = Pkcs11Settings {
        module: token.module.to_owned(),
        token: TokenName {
            label: token.label.to_owned(),
            serial: token.serial.map(str::to_owned),
        },
        pin: shared(token.pin),
        sessions: pkcs11.sessions(),
        deadline: pkcs11.deadline.as_duration(),
        backlog: ground.backlog.clone(),
    };
    let clock = Arc::clone(ground.clock);
    Some(Arc::new(Pkcs11Hsm::new(settings, clock)))
}

fn shared(pin: &SecretBytes) -> Arc<SecretBytes> {
    Arc::new(SecretBytes::new(pin.expose().to_vec()))
}

/// The token's PIN. After it was refused the token is not asked again before this is
/// read anew, which SIGHUP does.
pub(super) struct TokenPin {
    hsm: Arc<Pkcs11Hsm>,
    /// Where the configuration is read from; `None` where it was handed over.
    source: Option<Arc<Source>>,
}

#[async_trait]
impl Material for TokenPin {
    fn name(&self) -> &'static str {
        "hsm_pin"
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let loaded = Config::load(source).map_err(|faults| MaterialFault {
            what: "the configuration is at fault, and the token's PIN stays as it was".to_owned(),
            source: Some(Box::new(faults)),
        })?;
        let Some(token) = loaded.config.hsm.pkcs11.token() else {
            let what = "the configuration no longer names a token; it stays until the next start";
            return Err(MaterialFault::new(what));
        };
        self.hsm
            .renew_pin(shared(token.pin))
            .await
            .map_err(|error| MaterialFault {
                what: "the token cannot be used with the PIN that was read".to_owned(),
                source: Some(Box::new(error)),
            })
    }

    fn standing(&self, _: Timestamp) -> Standing {
        Standing::Good("read with the configuration; SIGHUP reads it again".to_owned())
    }
}
