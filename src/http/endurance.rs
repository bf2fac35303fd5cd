//! How long a connection may be idle, and what it may make the service hold.
//!
//! Whoever connects can make the service wait: by sending nothing, by sending a
//! byte now and then, or by not reading what was answered. Each of these ends
//! here, before or beside what [`super::middleware`] says of one request.
//!
//! | what stalls | ends after | by |
//! | --- | --- | --- |
//! | the first bytes, or HTTP/2's preface | `head` | [`super::opening::Opening`] |
//! | the head of a request over HTTP/1, also the next one | `head` | hyper |
//! | the body of a request, or its handling | `server.request_timeout`, 503 | `answer_in_time` |
//! | everything: no request, or an answer that nobody reads | `idle` | [`Activity`] |
//! | an HTTP/2 peer that is gone | two pings | hyper |

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What connections may take, in time and number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// For the first bytes, and for each head over HTTP/1.
    pub(crate) head: Duration,
    /// For a connection on which nothing is being worked on.
    pub(crate) idle: Duration,
    /// Connections at once, of one listener.
    pub(crate) most_connections: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            most_connections: 16_384,
        }
    }
}

/// How often an HTTP/2 peer is asked whether it is there, and how long it may
/// take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(15);

/// The largest head, in bytes: room for eight approvals and a token. Over HTTP/2
/// it is `SETTINGS_MAX_HEADER_LIST_SIZE` (RFC 9113 §6.5.2), and what is larger is
/// 431; over HTTP/1 the buffer of a connection is the bound, with 431 too. That
/// answer is hyper's own and bare: no request was read that it could belong to.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;
const HTTP2_HEADER_LIST_BYTES: u32 = 32 * 1024;

/// Requests at once over one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 256;

/// Streams that a peer opened and reset before they were looked at, after which
/// the connection ends (CVE-2023-44487, "rapid reset").
const HTTP2_RESETS_BY_PEER: usize = 20;

/// Streams that we reset for errors of the peer, after which the connection ends
/// (CVE-2025-8671, "made you reset").
const HTTP2_RESETS_BY_US: usize = 128;

/// What of bodies may be on its way to us at once, a stream and a connection
/// (RFC 9113 §5.2): the bound on what a connection makes us buffer.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const HTTP2_FRAME_BYTES: u32 = 16 * 1024;

/// What of one answer waits for a peer that reads slowly.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// HTTP/1 and HTTP/2 as this service speaks them.
pub(crate) fn connection_builder(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // At most 100 header fields is hyper's default; setting it costs an allocation.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_pending_accept_reset_streams(HTTP2_RESETS_BY_PEER)
        .max_local_error_reset_streams(HTTP2_RESETS_BY_US)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES);
    builder
}

/// Room for connections.
pub(crate) struct Room {
    places: Arc<Semaphore>,
    warned: Mutex<Option<Instant>>,
}

/// How often it is said that there is none left.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

impl Room {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            warned: Mutex::new(None),
        }
    }

    /// A place, once there is one. Until then connections wait in the operating
    /// system's queue: an idle one gives up its place soon.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return place;
        }
        if self.is_to_be_said() {
            tracing::warn!("every place for a connection is taken; new ones wait");
        }
        Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("nobody closes the semaphore")
    }

    fn is_to_be_said(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL);
        if is_new {
            *warned = Some(Instant::now());
        }
        is_new
    }
}

/// Whether something is being worked on, and since when not.
pub(crate) struct Activity {
    started: Instant,
    under_way: AtomicUsize,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

/// A request under way.
pub(crate) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            under_way: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        })
    }

    /// Begins a request, which ends when what is answered here is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Completes when nothing has been under way for this long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let left = self.left(limit);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn left(&self, limit: Duration) -> Duration {
        if self.under_way.load(Ordering::Acquire) > 0 {
            return limit;
        }
        let last = Duration::from_millis(self.last.load(Ordering::Acquire));
        (last + limit).saturating_sub(self.started.elapsed())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = self.0.started.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.last.fetch_max(now, Ordering::AcqRel);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::super::opening::PREFACE;
    use super::super::server::{Plain, serve_within};
    use super::*;

    const HEAD: Duration = Duration::from_millis(150);
    const IDLE: Duration = Duration::from_millis(300);
    /// Far beyond both, and what a test waits at most.
    const NEVER: Duration = Duration::from_secs(20);

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn start(limits: ConnectionLimits) -> SocketAddr {
        let slow = async || {
            tokio::time::sleep(IDLE * 3).await;
            "slow"
        };
        let router = Router::new()
            .route("/", get(async || "fast"))
            .route("/slow", get(slow))
            .route("/large", get(async || "x".repeat(64 << 20)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let never = std::future::pending();
        tokio::spawn(async move {
            serve_within(limits, listener, Arc::new(Plain), router, never, NEVER).await
        });
        address
    }

    /// Deadlines that only the one in question can be the cause of an end.
    fn limits(head: Duration, idle: Duration) -> ConnectionLimits {
        ConnectionLimits {
            head,
            idle,
            most_connections: 100,
        }
    }

    async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(bytes).await.expect("a connection");
        stream
    }

    /// Everything up to the end, which must come.
    async fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
        let mut received = Vec::new();
        let read = timeout(NEVER, stream.read_to_end(&mut received)).await;
        let read = read.expect("the connection is closed in time");
        // A reset is an end as well.
        let _ = read;
        received
    }

    #[tokio::test]
    async fn whoever_does_not_begin_in_time_is_hung_up_on() {
        let address = start(limits(HEAD, NEVER * 2)).await;
        for beginning in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"GET / HT",
            b"GET / HTTP/1.1\r\nA: b\r\n",
        ] {
            let mut stream = connect(address, beginning).await;
            let answer = to_the_end(&mut stream).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{beginning:?}");
        }
    }

    #[tokio::test]
    async fn a_byte_now_and_then_does_not_keep_a_connection_open() {
        let address = start(limits(HEAD, NEVER * 2)).await;
        for head in [&PREFACE[..23], b"GET / HTTP/1.1\r\nA: bcd"] {
            let mut stream = connect(address, b"").await;
            let (mut reading, mut writing) = stream.split();
            let trickle = async {
                for byte in head {
                    // What is hung up on meanwhile is seen by the other half.
                    let _ = writing.write_all(&[*byte]).await;
                    tokio::time::sleep(HEAD / 2).await;
                }
            };
            let mut nothing = [0; 1];
            tokio::select! {
                () = trickle => panic!("it was listened to until the end"),
                read = reading.read(&mut nothing) => assert!(!matches!(read, Ok(1))),
            }
        }
    }

    #[tokio::test]
    async fn an_answered_connection_that_stays_silent_is_closed() {
        let address = start(limits(HEAD, NEVER * 2)).await;
        let mut stream = connect(address, REQUEST).await;
        let answer = to_the_end(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        let again = answer.windows(8).filter(|eight| eight == b"HTTP/1.1");
        assert_eq!(again.count(), 1, "no second answer to no second request");
    }

    #[tokio::test]
    async fn an_http_2_connection_without_requests_is_closed() {
        let address = start(limits(NEVER * 2, IDLE)).await;
        let settings: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut stream = connect(address, &[PREFACE, &settings].concat()).await;
        let answer = to_the_end(&mut stream).await;
        assert_eq!(answer.get(3), Some(&4), "it was spoken: SETTINGS came back");
    }

    #[tokio::test]
    async fn what_is_worked_on_is_not_idle() {
        let address = start(limits(NEVER * 2, IDLE)).await;
        let request = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut stream = connect(address, request).await;
        let answer = to_the_end(&mut stream).await;
        assert!(answer.ends_with(b"slow"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_and_a_place_that_nobody_uses_are_given_up() {
        let limits = ConnectionLimits {
            most_connections: 1,
            ..limits(NEVER * 2, IDLE)
        };
        let address = start(limits).await;
        let request = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let unread = connect(address, request).await;
        let silent = connect(address, b"").await;
        // Has to wait for both of them.
        let started = Instant::now();
        let mut third = connect(address, REQUEST).await;
        let answer = to_the_end(&mut third).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert!(started.elapsed() >= IDLE, "{:?}", started.elapsed());
        drop((unread, silent));
    }
}
