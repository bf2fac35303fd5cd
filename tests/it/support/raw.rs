//! HTTP by hand, for what no well-behaved client sends.

use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Answer, ClientCertificate, DEADLINE, Exchange, Pki};

/// A connection on which a test writes what it likes.
pub(crate) struct RawConnection {
    stream: Box<dyn Stream>,
    /// What was asked last, where it was a request.
    asked: Option<(Method, String)>,
}

/// What bytes travel over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl RawConnection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("it listens"))
    }

    /// Connects with TLS as whoever this certificate names.
    pub(crate) async fn open_tls(
        address: SocketAddr,
        pki: &Pki,
        certificate: &ClientCertificate,
    ) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let connector = pki.raw_connector(certificate);
        let name = address.ip().into();
        let connecting = connector.connect(name, stream);
        let connecting = tokio::time::timeout(DEADLINE, connecting).await;
        Self::over(connecting.expect("in time").expect("a handshake"))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            asked: None,
        }
    }

    /// Writes the head of a POST of JSON with these headers too, and no body.
    pub(crate) async fn send_head(&mut self, path: &str, headers: &[&str]) {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        );
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await;
    }

    /// Writes these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        assert!(self.offer(bytes).await, "the service hung up");
    }

    /// Writes these bytes; whether the service was still there to take them.
    pub(crate) async fn offer(&mut self, bytes: &[u8]) -> bool {
        if let Some(asked) = request_line(bytes) {
            self.asked = Some(asked);
        }
        let written = self.stream.write_all(bytes).await;
        written.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) {
        // Who has hung up already need not be told.
        let _ = self.stream.shutdown().await;
    }

    /// Everything that comes until the service hangs up, which it must do.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        self.receive(|_| false).await
    }

    /// What comes until it is enough, or until the service hangs up.
    pub(crate) async fn receive(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.exchange(b"", is_enough).await
    }

    /// Writes these bytes while it reads, as far as the service takes them: what comes
    /// until it is enough, or until the service hangs up.
    pub(crate) async fn exchange(
        &mut self,
        bytes: &[u8],
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        let mut received = Vec::new();
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        let reading = async {
            while !is_enough(&received) {
                // A reset is an end as well.
                match reading.read_buf(&mut received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let writing = async {
            // What nobody takes is not what is asked here.
            let _ = writing.write_all(bytes).await;
            let _ = writing.flush().await;
            std::future::pending::<()>().await;
        };
        let both = async {
            tokio::select! {
                () = reading => {}
                () = writing => {}
            }
        };
        tokio::time::timeout(DEADLINE, both)
            .await
            .expect("the service answers or hangs up in time");
        received
    }

    /// Reads one answer that says its length.
    pub(crate) async fn answer(&mut self) -> Answer {
        tokio::time::timeout(DEADLINE, self.read_answer())
            .await
            .expect("an answer in time")
    }

    async fn read_answer(&mut self) -> Answer {
        let mut received = Vec::new();
        let head_length = loop {
            let end = received.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end,
                None => self.read_more(&mut received).await,
            }
        };
        let head = String::from_utf8(received[..head_length].to_vec()).expect("text");
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .and_then(|code| StatusCode::from_u16(code).ok())
            .expect("a status line");
        let headers: HeaderMap = lines.map(header).collect();
        let length: usize = headers["content-length"]
            .to_str()
            .ok()
            .and_then(|length| length.parse().ok())
            .expect("a length");
        let body_start = head_length + 4;
        while received.len() < body_start + length {
            self.read_more(&mut received).await;
        }
        let body = received.split_off(body_start);
        if let Some((method, target)) = &self.asked {
            Exchange {
                of_operations: false,
                is_preflight: false,
                method,
                target,
                sent: None,
                status,
                headers: &headers,
                body: &body,
            }
            .check();
        }
        Answer::new(status, headers, body)
    }

    async fn read_more(&mut self, received: &mut Vec<u8>) {
        match self.stream.read_buf(received).await {
            Ok(0) => panic!("the service hung up without an answer"),
            Ok(_) => {}
            Err(error) => panic!("the service hung up: {error}"),
        }
    }
}

/// The method and the target of what begins as a request does.
fn request_line(bytes: &[u8]) -> Option<(Method, String)> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix(" HTTP/1.1")?;
    let (method, target) = line.split_once(' ')?;
    let method: Method = method.parse().ok()?;
    target.starts_with('/').then(|| (method, target.to_owned()))
}

/// A line of a head.
pub(super) fn header(line: &str) -> (HeaderName, HeaderValue) {
    let (name, value) = line.split_once(':').expect("a header");
    (
        name.parse().expect("a header's name"),
        value.trim().parse().expect("a header's value"),
    )
}
