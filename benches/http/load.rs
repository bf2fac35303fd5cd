//! A closed loop: every connection sends its next request when it has read the
//! answer to the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::server::Server;

/// A request as it goes over the wire, made once.
#[derive(Clone)]
pub(crate) struct Request(Arc<[u8]>);

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

/// One kept-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        }
    }

    /// Sends a request and reads the answer: its status and its body.
    pub(crate) async fn exchange(&mut self, request: &Request) -> (u16, Vec<u8>) {
        self.stream.write_all(&request.0).await.expect("sent");
        self.buffer.clear();
        let head_end = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("read");
            assert!(read > 0, "the server hung up");
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status");
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |length| length.trim().parse().expect("a length"));
        while self.buffer.len() < head_end + length {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("read");
            assert!(read > 0, "the server hung up");
        }
        (status, self.buffer[head_end..].to_vec())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// What a load came to.
pub(crate) struct Measured {
    latencies: Vec<Duration>,
    took: Duration,
    cpu_seconds: f64,
    pub(crate) resident_mib: u64,
    pub(crate) failed: usize,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * quantile).round() as usize;
        self.latencies
            .get(place)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }

    pub(crate) fn cpu_microseconds(&self) -> f64 {
        self.cpu_seconds * 1_000_000.0 / self.latencies.len().max(1) as f64
    }
}

/// Loads a server with one request from so many connections.
pub(crate) async fn measure(
    server: &Server,
    request: &Request,
    connections: usize,
    lasting: Duration,
) -> Measured {
    // Caches, branch predictors and the allocator get a little time of their own.
    run(server.address, request, connections, lasting / 10).await;
    let (cpu_before, started) = (server.cpu_seconds(), Instant::now());
    let (mut latencies, failed) = run(server.address, request, connections, lasting).await;
    let took = started.elapsed();
    latencies.sort_unstable();
    Measured {
        latencies,
        took,
        cpu_seconds: server.cpu_seconds() - cpu_before,
        resident_mib: server.resident_mib(),
        failed,
    }
}

async fn run(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    lasting: Duration,
) -> (Vec<Duration>, usize) {
    let until = Instant::now() + lasting;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let (mut latencies, mut failed) = (Vec::new(), 0);
                while Instant::now() < until {
                    let sent = Instant::now();
                    let (status, _) = connection.exchange(&request).await;
                    latencies.push(sent.elapsed());
                    failed += usize::from(!(200..300).contains(&status));
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for task in tasks {
        let (of_one, failed_of_one) = task.await.expect("no panic");
        latencies.extend(of_one);
        failed += failed_of_one;
    }
    (latencies, failed)
}
