//! The three units of renewable material, together.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs as engine};

use super::authorities::ClientAuthorities;
use super::revocation::RevocationLists;
use super::server_identity::{IdentityFiles, ServerIdentity};
use crate::ports::clock::Clock;
use crate::ports::material::{Material, MaterialFault};
use crate::telemetry::metrics::Metrics;

/// Where the material lies.
pub struct TlsFiles {
    /// `tls.certificate`: the server's certificate and the chain above it, PEM.
    pub certificate: PathBuf,
    /// `tls.private_key`: its key, PEM.
    pub private_key: PathBuf,
    /// `tls.client_ca`: the clients' authorities; a PEM file, or a folder of them.
    pub client_ca: PathBuf,
    /// `tls.crl`: revocation lists; a file, or a folder of them. Without it nothing
    /// counts as revoked.
    pub crl: Option<PathBuf>,
}

/// What is in force. Each unit is renewed by itself, so that one bad file keeps
/// no other from being taken.
#[derive(Clone)]
pub struct TlsMaterial {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) identity: Arc<ServerIdentity>,
    pub(super) authorities: Arc<ClientAuthorities>,
    pub(super) revocation: Option<Arc<RevocationLists>>,
}

impl TlsMaterial {
    /// Reads everything for the first time.
    ///
    /// # Errors
    /// Every [`MaterialFault`] at once, at most one a unit.
    pub fn load(
        files: TlsFiles,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<MaterialFault>> {
        let provider = Arc::new(engine::default_provider());
        let identity = ServerIdentity::load(
            IdentityFiles {
                certificate: files.certificate,
                private_key: files.private_key,
            },
            Arc::clone(&provider),
            Arc::clone(clock),
            Arc::clone(metrics),
        );
        let authorities = ClientAuthorities::load(files.client_ca, Arc::clone(clock));
        let revocation = files
            .crl
            .map(|path| RevocationLists::load(path, Arc::clone(metrics)))
            .transpose();
        match (identity, authorities, revocation) {
            (Ok(identity), Ok(authorities), Ok(revocation)) => Ok(Self {
                provider,
                identity: Arc::new(identity),
                authorities: Arc::new(authorities),
                revocation: revocation.map(Arc::new),
            }),
            (identity, authorities, revocation) => {
                Err([identity.err(), authorities.err(), revocation.err()]
                    .into_iter()
                    .flatten()
                    .collect())
            }
        }
    }

    /// The units, for whoever renews them and reports on them.
    pub fn units(&self) -> Vec<Arc<dyn Material>> {
        let mut units: Vec<Arc<dyn Material>> = vec![
            Arc::clone(&self.identity) as _,
            Arc::clone(&self.authorities) as _,
        ];
        units.extend(
            self.revocation
                .as_ref()
                .map(|lists| Arc::clone(lists) as Arc<dyn Material>),
        );
        units
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FixedClock, folder_with, metrics};
    use super::*;

    #[test]
    fn every_unit_at_fault_is_named_at_once() {
        let folder = folder_with(&[]);
        let file = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            certificate: file("tls.crt"),
            private_key: file("tls.key"),
            client_ca: file("clients"),
            crl: Some(file("crls")),
        };
        let clock: Arc<dyn Clock> = FixedClock::usual();
        let faults = TlsMaterial::load(files, &clock, &metrics())
            .err()
            .expect("faults");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
