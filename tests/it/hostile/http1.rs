//! HTTP/1.1 that means two things, means nothing, or never comes to its end.

use std::time::{Duration, Instant};

use super::assert_alive;
use super::frames::BEGINNING;
use crate::support::{RawConnection, TestKms};

/// The status of the first answer in these bytes, `None` where there is none.
fn status(received: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(received);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// How many answers there are in these bytes.
fn answers(received: &[u8]) -> usize {
    let starts = received.windows(9).filter(|nine| nine == b"HTTP/1.1 ");
    starts.count()
}

/// What became of these bytes, sent over a connection of their own.
async fn outcome(kms: &TestKms, bytes: &[u8]) -> Vec<u8> {
    let mut connection = RawConnection::open(kms.address()).await;
    connection.offer(bytes).await;
    let received = connection.until_closed().await;
    let text = String::from_utf8_lossy(&received).to_lowercase();
    assert!(!text.contains("\r\nserver:"), "{text}");
    received
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_400_and_the_end() {
    let kms = TestKms::start().await;
    for fields in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length : 2\r\n",
        "X-Folded: a\r\n b\r\nContent-Length: 2\r\n",
        "X-Nul: a\0b\r\n",
        "X-Return: a\rb\r\n",
        "No-Colon\r\n",
        ": no name\r\n",
    ] {
        let request = format!(
            "POST /kms/v1/sign HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\n{fields}\r\n{{}}"
        );
        let received = outcome(&kms, request.as_bytes()).await;
        assert_eq!(status(&received), Some(400), "{fields:?}");
        assert_eq!(answers(&received), 1, "{fields:?}");
    }
    for start in [
        "GET  /health HTTP/1.1",
        "GET /health HTTP/9.9",
        "GET /health",
        "GET /hea lth HTTP/1.1",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
    ] {
        let received = outcome(&kms, format!("{start}\r\n\r\n").as_bytes()).await;
        let status = status(&received);
        assert!(matches!(status, Some(400 | 505)), "{start:?}: {status:?}");
    }
    assert_alive(&kms).await;
}

/// Of a request with two framings the chunks count, and the connection ends with
/// it (RFC 9112 §6.1): what a proxy that believed the length took for its body is
/// no second request.
#[tokio::test]
async fn a_request_is_not_smuggled_inside_another() {
    let kms = TestKms::start().await;
    let inside = "GET /kms/v1/config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let body = format!("0\r\n\r\n{inside}");
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    for fields in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        for path in ["/kms/v1/sign", "/health", "/nowhere"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\n\
                 Content-Type: application/json\r\n{fields}\r\n{body}"
            );
            let received = outcome(&kms, request.as_bytes()).await;
            assert_eq!(answers(&received), 1, "{path} with {fields:?}");
            assert_ne!(status(&received), Some(200), "{path} with {fields:?}");
        }
    }
    assert_alive(&kms).await;
}

#[tokio::test]
async fn chunks_that_are_none_are_400_and_the_end() {
    let kms = TestKms::start().await;
    for body in [
        "ZZ\r\n",
        "-1\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}X\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let request = format!(
            "POST /kms/v1/sign HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        );
        let received = outcome(&kms, request.as_bytes()).await;
        assert_eq!(status(&received), Some(400), "{body:?}");
    }
    assert_alive(&kms).await;
}

#[tokio::test]
async fn a_head_beyond_measure_is_431_or_414_and_the_end() {
    let kms = TestKms::start().await;
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "a".repeat(100_000));
    let request = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    for request in [request(&many), request(&large), long] {
        let status = status(&outcome(&kms, request.as_bytes()).await);
        // What was not read yet when the service hung up may cost the answer.
        assert!(matches!(status, Some(414 | 431) | None), "{status:?}");
    }
    assert_alive(&kms).await;
}

/// The one test of the real deadlines, which are no setting; those beside
/// `http/endurance.rs` try every way with short ones.
#[tokio::test]
async fn a_connection_that_says_nothing_or_nothing_more_is_closed() {
    let kms = TestKms::start().await;
    let started = Instant::now();
    let mut connections = Vec::new();
    for beginning in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nHo"] {
        let mut connection = RawConnection::open(kms.address()).await;
        connection.send(beginning).await;
        connections.push(connection);
    }
    let mut answered = RawConnection::open(kms.address()).await;
    answered
        .send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(answered.answer().await.status, 200);
    connections.push(answered);
    for mut connection in connections {
        connection.until_closed().await;
    }
    assert!(started.elapsed() >= Duration::from_secs(9));
    assert_alive(&kms).await;
}

#[tokio::test]
async fn a_body_byte_by_byte_ends_with_the_deadline_and_the_connection_with_it() {
    let kms = TestKms::start_with(&[("KMS__SERVER__REQUEST_TIMEOUT", "PT0.5S")]).await;
    let mut connection = RawConnection::open(kms.address()).await;
    connection
        .send_head("/kms/v1/sign", &["Content-Length: 1000"])
        .await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) && connection.offer(b" ").await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let received = connection.until_closed().await;
    let text = String::from_utf8_lossy(&received);
    assert_eq!(status(&received), Some(503), "{text}");
    assert!(text.contains(r#""dependency":"deadline""#), "{text}");
    assert_alive(&kms).await;
}

/// Who has said everything may still be waiting for the answer, or be gone: either
/// way the connection ends at once, not when it was idle for long enough.
#[tokio::test]
async fn a_client_that_has_finished_speaking_holds_no_connection() {
    let kms = TestKms::start().await;
    for said in [
        &b""[..],
        b"GET /health HTTP/1.1\r\nHo",
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /kms/v1/sign HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\n\r\n{",
        b"POST /kms/v1/sign HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
          Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"PRI * HT",
        BEGINNING,
    ] {
        let mut connection = RawConnection::open(kms.address()).await;
        let started = Instant::now();
        connection.offer(said).await;
        connection.finish().await;
        let received = connection.until_closed().await;
        assert!(started.elapsed() < Duration::from_secs(5), "{said:?}");
        let status = status(&received);
        // A whole request is answered; half of one is none, and none at all is nothing.
        let is_whole = said.starts_with(b"GET") && said.ends_with(b"\r\n\r\n");
        match is_whole {
            true => assert_eq!(status, Some(200)),
            false => assert_ne!(status, Some(200), "{said:?}"),
        }
    }
    assert_alive(&kms).await;
}
