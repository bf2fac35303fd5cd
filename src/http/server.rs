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
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::drain::{Drain, serve_until};
use super::endurance::{Activity, ConnectionLimits, Room, connection_builder};
use super::opening::Opening;
use crate::domain::peer::PeerIdentity;

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
    let limits = ConnectionLimits::default();
    serve_within(limits, listener, handshake, router, stop, grace).await
}

/// The same within other limits on connections.
pub(super) async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    handshake: Arc<dyn Handshake>,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let builder = connection_builder(&limits);
    let room = Room::new(limits.most_connections);
    let drain = Drain::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // First a place, then a connection: what has no place is not accepted.
        let accepting = async {
            let place = room.place().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepting => accepted,
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
            let _place = place;
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
            let activity = Activity::new();
            let working = Arc::clone(&activity);
            let service = router
                .map_request(move |mut request: Request<_>| {
                    request.extensions_mut().insert(connection.clone());
                    request
                })
                .map_future(move |answering| {
                    let under_way = working.begin();
                    async move {
                        let _under_way = under_way;
                        answering.await
                    }
                });
            let serving = builder
                .serve_connection(
                    TokioIo::new(Opening::new(established.stream, limits.head)),
                    TowerToHyperService::new(service),
                )
                .into_owned();
            let serving = serve_until(
                serving,
                |it| it.graceful_shutdown(),
                stopping,
                established.ended,
                &has_lapsed,
            );
            let ended = tokio::select! {
                ended = serving => ended,
                // Nothing is under way, or nobody reads what was answered.
                () = activity.idle(limits.idle) => return,
            };
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
