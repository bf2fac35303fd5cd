//! The TLS in front of the API, as the HTTP room wants it: `tls` knows no HTTP, and
//! `http` knows no TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::config;
use crate::http::server::{Established, Handshake};
use crate::ports::clock::Clock;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Acceptor, TlsFiles, TlsMaterial};

use super::StartError;

/// Connections over TLS with client certificates.
pub(super) struct TlsFront(pub(super) Acceptor);

#[async_trait]
impl Handshake for TlsFront {
    async fn establish(&self, stream: TcpStream, address: SocketAddr) -> Option<Established> {
        // A refusal is logged and counted where it is decided.
        let admitted = self.0.establish(stream, address).await.ok()?;
        let in_force = admitted.in_force;
        Some(Established {
            stream: Box::new(admitted.stream),
            peer: Some(Arc::new(admitted.peer)),
            ended: Box::pin(async move {
                match in_force {
                    // Errs once its anchor is no longer in force.
                    Some(mut in_force) => while in_force.changed().await.is_ok() {},
                    None => std::future::pending().await,
                }
            }),
        })
    }
}

/// The material of a configuration; `None` where it asks for plain HTTP.
///
/// # Errors
/// [`StartError::Tls`] with every fault in the files.
pub(super) fn load_material(
    config: &config::Tls,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Option<TlsMaterial>, StartError> {
    // The configuration's rules let only all three pass, or none.
    let (Some(certificate), Some(private_key), Some(client_ca)) = (
        config.certificate.clone(),
        config.private_key.clone(),
        config.client_ca.clone(),
    ) else {
        return Ok(None);
    };
    let files = TlsFiles {
        certificate,
        private_key,
        client_ca,
        crl: config.crl.clone(),
    };
    match TlsMaterial::load(files, clock, metrics) {
        Ok(material) => Ok(Some(material)),
        Err(faults) => {
            let faults: Vec<String> = faults
                .iter()
                .map(|fault| match &fault.source {
                    Some(cause) => format!("{fault}: {cause}"),
                    None => fault.to_string(),
                })
                .collect();
            Err(StartError::Tls {
                faults: faults.join("; "),
            })
        }
    }
}
