//! HTTP by hand, for what no well-behaved client sends.

use std::io::ErrorKind;
use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::net::TcpStream;

use super::{Answer, DEADLINE, Exchange};

/// A connection on which a test writes what it likes.
pub(crate) struct RawConnection {
    stream: TcpStream,
    /// What was asked last, where it was a request.
    asked: Option<(Method, String)>,
}

impl RawConnection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("it listens"),
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
    pub(crate) async fn offer(&mut self, mut bytes: &[u8]) -> bool {
        if let Some(asked) = request_line(bytes) {
            self.asked = Some(asked);
        }
        while !bytes.is_empty() {
            self.stream.writable().await.expect("a connection");
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Everything that comes until the service hangs up, which it must do.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        self.receive(|_| false).await
    }

    /// What comes until it is enough, or until the service hangs up.
    pub(crate) async fn receive(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut received = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            while !is_enough(&received) {
                self.stream.readable().await.expect("a connection");
                match self.stream.try_read(&mut buffer) {
                    // A reset is an end as well.
                    Ok(0) => return,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return,
                    Ok(read) => received.extend_from_slice(&buffer[..read]),
                    Err(_) => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading)
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
        let mut buffer = [0; 4096];
        self.stream.readable().await.expect("a connection");
        match self.stream.try_read(&mut buffer) {
            Ok(0) => panic!("the service hung up without an answer"),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
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
