//! One handshake after another, each with what is in force then.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::material::TlsMaterial;
use super::refusal::Refusal;
use super::refusal_log::RefusalLog;
use super::verifier::{Found, OneClient, Verified};
use crate::domain::peer::PeerIdentity;
use crate::ports::clock::Clock;
use crate::ports::trust_plane::TrustPlane;
use crate::telemetry::metrics::Metrics;

/// How long a handshake may take, and how long once half of the places are taken:
/// an honest one takes milliseconds, and whoever stalls on purpose must not keep
/// everybody else out with a few thousand sockets.
const PATIENT: Duration = Duration::from_secs(10);
const HURRIED: Duration = Duration::from_secs(1);

/// How many handshakes are under way at once. They hold a file descriptor and a
/// few kilobytes each; past that they are refused on the spot, so that those who
/// are through keep room for their own connections.
const PLACES: usize = 8_192;

/// How long a refused client's bytes are still taken, and how many. A socket that
/// is closed with bytes unread is reset, and the alert that says why is lost.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// Makes TLS connections of sockets.
pub struct Acceptor {
    material: TlsMaterial,
    trust_plane: Arc<dyn TrustPlane>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    places: Semaphore,
    log: RefusalLog,
    patience: Patience,
}

/// How long handshakes may take.
struct Patience {
    usually: Duration,
    hurried: Duration,
}

/// A client that has shown who it is.
#[derive(Debug)]
pub struct Admitted<IO> {
    /// Its bytes.
    pub stream: TlsStream<IO>,
    /// Who it is.
    pub peer: PeerIdentity,
    /// Where an anchor of the trust plane vouched for it: errs in `changed()` as
    /// soon as that is no longer in force, and the connection has to end.
    pub in_force: Option<watch::Receiver<()>>,
}

impl Acceptor {
    /// An acceptor with this material, which renews itself under it.
    pub fn new(
        material: TlsMaterial,
        trust_plane: Arc<dyn TrustPlane>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.expect_handshake_refusals(Refusal::ALL.iter().map(|reason| reason.as_str()));
        Self {
            material,
            trust_plane,
            clock,
            metrics,
            places: Semaphore::new(PLACES),
            log: RefusalLog::new(),
            patience: Patience {
                usually: PATIENT,
                hurried: HURRIED,
            },
        }
    }

    /// Makes the handshake (RFC 8446 §4), in bounded time. The cryptography runs
    /// where it stands: with keys on P-256 a whole connection costs about 0.25 ms
    /// of CPU, in pieces between which others have their turn.
    ///
    /// # Errors
    /// [`Refusal`], which has been logged and counted, and told to the client as
    /// an alert where there is one.
    pub async fn establish<IO>(
        &self,
        stream: IO,
        address: SocketAddr,
    ) -> Result<Admitted<IO>, Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let client = Arc::new(self.one_client());
        let admitted = self.establish_as(&client, stream).await;
        self.metrics
            .count_handshake(admitted.as_ref().err().map(|refusal| refusal.as_str()));
        if let Err(refusal) = &admitted {
            let name = client.found.get().and_then(|found| found.name.as_ref());
            self.log.refused(address, *refusal, name);
        }
        admitted
    }

    async fn establish_as<IO>(
        &self,
        client: &Arc<OneClient>,
        stream: IO,
    ) -> Result<Admitted<IO>, Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let _place = self.places.try_acquire().map_err(|_| Refusal::Busy)?;
        let accepting = TlsAcceptor::from(self.config(client)).accept(stream);
        match within(self.deadline(), accepting.into_fallible()).await {
            None => Err(Refusal::Timeout),
            Some(Ok(stream)) => match client.found.get() {
                Some(Found {
                    verified: Ok(Verified { peer, in_force }),
                    ..
                }) => Ok(Admitted {
                    stream,
                    peer: peer.clone(),
                    in_force: in_force.clone(),
                }),
                // A handshake without a client that was verified: rustls has been
                // told that one is mandatory, and nothing is believed without.
                _ => Err(Refusal::NoCertificate),
            },
            Some(Err((error, stream))) => {
                linger(stream).await;
                Err(match client.found.get() {
                    Some(Found {
                        verified: Err(refusal),
                        ..
                    }) => *refusal,
                    _ => Refusal::of_handshake(&error),
                })
            }
        }
    }

    fn deadline(&self) -> Duration {
        if self.places.available_permits() < PLACES / 2 {
            self.patience.hurried
        } else {
            self.patience.usually
        }
    }

    fn one_client(&self) -> OneClient {
        OneClient {
            material: self.material.clone(),
            trust_plane: Arc::clone(&self.trust_plane),
            clock: Arc::clone(&self.clock),
            found: OnceLock::new(),
        }
    }

    /// The configuration of one handshake: a few allocations, next to nothing
    /// beside its cryptography.
    fn config(&self, client: &Arc<OneClient>) -> Arc<ServerConfig> {
        let identity = self.material.identity.in_force();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.material.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider of aws-lc-rs speaks TLS 1.3")
            .with_client_cert_verifier(Arc::clone(client) as _)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.key))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Nothing is resumed (RFC 8446 §2.2) and nothing comes early (§2.3): a
        // resumed connection would not show its certificate again, which may have
        // been revoked, and early data can be replayed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Arc::new(config)
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(deadline, work).await.ok()
}

/// Says that nothing more comes, and takes what still does, within bounds.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO) {
    // Whatever fails here: the connection is over.
    let _ = within(LINGER, async {
        let _ = stream.flush().await;
        let _ = stream.shutdown().await;
        let mut buffer = [0; 2_048];
        let mut taken = 0;
        while taken < LINGER_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(some) => taken += some,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
