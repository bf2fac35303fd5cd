//! Accepting connections, and letting them finish.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::drain::{Drain, serve_until};
use crate::domain::peer::PeerIdentity;

/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long accepting pauses when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is known of a connection before its first request; every request of it
/// carries this as an extension.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end's address.
    pub address: SocketAddr,
    /// Who the other end is, where its certificate says so.
    pub peer: Option<Arc<PeerIdentity>>,
    /// Whether it has lost its right to be, so that no new request is taken.
    pub has_lapsed: Arc<AtomicBool>,
}

/// The bytes of a connection, whatever they travel in.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that may speak.
pub struct Established {
    /// Its bytes.
    pub stream: Box<dyn Stream>,
    /// Who the other end is.
    pub peer: Option<Arc<PeerIdentity>>,
    /// Completes when the connection has lost its right to be.
    pub ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What happens between the accepting of a socket and its first request.
#[async_trait]
pub trait Handshake: Send + Sync + 'static {
    /// Establishes the connection; `None` where it was refused, which the
    /// implementation has logged and counted, in bounded time.
    async fn establish(&self, stream: TcpStream, address: SocketAddr) -> Option<Established>;
}

/// No handshake: plain HTTP, and nobody knows who is there.
pub struct Plain;

#[async_trait]
impl Handshake for Plain {
    async fn establish(&self, stream: TcpStream, _: SocketAddr) -> Option<Established> {
        Some(Established {
            stream: Box::new(stream),
            peer: None,
            ended: Box::pin(std::future::pending()),
        })
    }
}

/// Serves connections until `stop` completes, then takes no new ones and waits
/// up to `grace` for those that are there. Answers whether all of them finished.
pub async fn serve(
    listener: TcpListener,
    handshake: Arc<dyn Handshake>,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let builder = connection_builder();
    let drain = Drain::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                after_failed_accept(&error).await;
                continue;
            }
        };
        // Answers are one small write; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let (builder, router) = (builder.clone(), router.clone());
        let handshake = Arc::clone(&handshake);
        let mut stopping = drain.signal();
        tokio::spawn(async move {
            let established = tokio::select! {
                established = handshake.establish(stream, address) => established,
                // Nobody has asked for anything yet.
                () = stopping.reached() => return,
            };
            let Some(established) = established else {
                return;
            };
            let has_lapsed = Arc::new(AtomicBool::new(false));
            let connection = Connection {
                address,
                peer: established.peer,
                has_lapsed: Arc::clone(&has_lapsed),
            };
            let service = router.map_request(move |mut request: Request<_>| {
                request.extensions_mut().insert(connection.clone());
                request
            });
            let serving = builder
                .serve_connection(
                    TokioIo::new(established.stream),
                    TowerToHyperService::new(service),
                )
                .into_owned();
            let ended = serve_until(
                serving,
                |it| it.graceful_shutdown(),
                stopping,
                established.ended,
                &has_lapsed,
            )
            .await;
            // A client that goes away mid-request is its own business.
            if let Err(error) = ended {
                tracing::debug!(
                    error = &*error as &dyn std::error::Error,
                    "connection ended"
                );
            }
        });
    }
    drop(listener);
    tokio::time::timeout(grace, drain.finish()).await.is_ok()
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    builder.http2().timer(TokioTimer::new());
    builder
}

/// A connection that broke before it was accepted is nothing; no descriptors
/// left is a state to wait out rather than to spin on.
async fn after_failed_accept(error: &io::Error) {
    let transient = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !transient {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "cannot accept connections"
        );
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
