//! One connection: a request that is ready goes out, an answer is read, and nothing
//! of it is parsed but its status and its length.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A request as it goes over the wire, made once.
#[derive(Clone)]
pub(crate) struct Request(Rc<[u8]>);

impl Request {
    /// POST of a JSON body.
    pub(crate) fn post(path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self((head + &body).into_bytes().into())
    }

    /// GET.
    pub(crate) fn get(path: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Self(head.into_bytes().into())
    }
}

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// With which certificate, where the server asks for one.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// One kept-alive connection.
pub(crate) struct Connection {
    target: Target,
    stream: Box<dyn Wire>,
    last_used: Instant,
    buffer: Vec<u8>,
    body_from: usize,
}

/// After this the service may have hung up, which it does with whoever sends no head for
/// ten seconds.
const IDLE: Duration = Duration::from_secs(5);

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// As hyper writes it, on both servers.
const LENGTH: &[u8] = b"\r\ncontent-length: ";

impl Connection {
    /// Connects.
    pub(crate) async fn open(target: &Target) -> Self {
        Self {
            target: target.clone(),
            stream: wire(target).await,
            last_used: Instant::now(),
            buffer: Vec::with_capacity(64 * 1024),
            body_from: 0,
        }
    }

    /// Sends a request and reads the answer: its status. Its body is then in
    /// [`Connection::body`].
    pub(crate) async fn exchange(&mut self, request: &Request) -> u16 {
        if self.last_used.elapsed() > IDLE {
            self.stream = wire(&self.target).await;
        }
        self.stream.write_all(&request.0).await.expect("sent");
        self.stream.flush().await.expect("sent");
        self.buffer.clear();
        let mut searched: usize = 0;
        self.body_from = loop {
            self.read().await;
            if let Some(end) = memmem::find(&self.buffer[searched..], END_OF_HEAD) {
                break searched + end + END_OF_HEAD.len();
            }
            searched = self.buffer.len().saturating_sub(END_OF_HEAD.len());
        };
        let whole = self.body_from + content_length(&self.buffer[..self.body_from]);
        while self.buffer.len() < whole {
            self.read().await;
        }
        self.last_used = Instant::now();
        // "HTTP/1.1 200 OK"
        self.buffer[9..12]
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.body_from..]
    }

    async fn read(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("read");
        assert!(read > 0, "the server hung up");
    }
}

fn content_length(head: &[u8]) -> usize {
    let Some(at) = memmem::find(head, LENGTH) else {
        return 0;
    };
    head[at + LENGTH.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

async fn wire(target: &Target) -> Box<dyn Wire> {
    let stream = TcpStream::connect(target.address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    match &target.tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(Arc::clone(config));
            Box::new(connector.connect(name, stream).await.expect("a handshake"))
        }
    }
}
