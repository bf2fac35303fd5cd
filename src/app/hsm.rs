//! The HSM backends that the configuration names, and the token's PIN as something
//! that is renewed.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::StartError;
use super::key_encryption_key;
use crate::adapters::hsm::pkcs11::{Pkcs11Hsm, Pkcs11Settings, TokenName};
use crate::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use crate::config::{Config, HsmKind, Source};
use crate::domain::secret::SecretBytes;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::data_plane::DataPlane;
use crate::ports::hsm::{HsmBackend, HsmBackends};
use crate::ports::material::{Material, MaterialFault, Standing};

/// The backends, and the token's PIN where there is a token.
pub(super) struct Backends {
    pub(super) hsm: HsmBackends,
    pub(super) pin: Option<TokenPin>,
}

/// Sets up the configured backend, and the other one where it is configured too, or
/// where its key-encryption key is there: it holds keys of before.
pub(super) async fn backends(
    config: &Config,
    source: Option<Arc<Source>>,
    data_plane: &dyn DataPlane,
    clock: &Arc<dyn Clock>,
) -> Result<Backends, StartError> {
    let token = token_hsm(config, clock);
    let pin = token.as_ref().map(|hsm| TokenPin {
        hsm: Arc::clone(hsm),
        source,
    });
    let token = token.map(|hsm| hsm as Arc<dyn HsmBackend>);
    let hsm = match config.hsm.backend {
        HsmKind::Software => {
            let software = software_hsm(config, data_plane).await?;
            HsmBackends::new(software, token.into_iter().collect())
        }
        HsmKind::Pkcs11 => {
            // The rules of the configuration ask for all that a token needs.
            let token = token.ok_or(StartError::Unsupported)?;
            let software = match config.kek_file().exists() {
                true => Some(software_hsm(config, data_plane).await?),
                false => None,
            };
            HsmBackends::new(token, software.into_iter().collect())
        }
    };
    Ok(Backends { hsm, pin })
}

async fn software_hsm(
    config: &Config,
    data_plane: &dyn DataPlane,
) -> Result<Arc<dyn HsmBackend>, StartError> {
    let kek = key_encryption_key(config, data_plane).await?;
    Ok(Arc::new(SoftwareHsm::new(
        kek,
        SoftwareHsmSettings::default(),
    )))
}

fn token_hsm(config: &Config, clock: &Arc<dyn Clock>) -> Option<Arc<Pkcs11Hsm>> {
    let pkcs11 = &config.hsm.pkcs11;
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
    };
    Some(Arc::new(Pkcs11Hsm::new(settings, Arc::clone(clock))))
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
        Standing::Good("tried".to_owned())
    }
}
