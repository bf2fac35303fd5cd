//! Whatever is sent to it, the service says no, hangs up, and serves the next.

use std::time::{Duration, Instant};

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

async fn assert_alive(kms: &TestKms) {
    kms.get("/kms/v1/config").await.ok();
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

/// How an HTTP/2 connection begins: the preface and our settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// `GET http://a/` in HPACK: three entries of the static table, and a name.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The kinds of the frames in these bytes.
fn kinds(mut received: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = *received {
        kinds.push(kind);
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        received = received.get(9 + length..).unwrap_or_default();
    }
    kinds
}

/// The settings in the first frame (RFC 9113 §6.5.1).
fn settings(received: &[u8]) -> Vec<(u16, u32)> {
    let length = u32::from_be_bytes([0, received[0], received[1], received[2]]) as usize;
    received[9..9 + length]
        .chunks_exact(6)
        .map(|six| {
            let name = u16::from_be_bytes([six[0], six[1]]);
            let value = u32::from_be_bytes([six[2], six[3], six[4], six[5]]);
            (name, value)
        })
        .collect()
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_and_without_having_to_ask() {
    let kms = TestKms::start().await;
    let mut connection = RawConnection::open(kms.address()).await;
    connection.send(BEGINNING).await;
    connection
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET))
        .await;
    let answered = connection
        .receive(|received| kinds(received).contains(&HEADERS))
        .await;
    assert!(
        kinds(&answered).contains(&HEADERS),
        "{:?}",
        kinds(&answered)
    );
    let mut settings: Vec<(u16, u32)> = settings(&answered);
    settings.sort_unstable();
    // Streams at once, the window of a stream, the largest frame, the largest head.
    let bounds = [(3, 256), (4, 256 * 1024), (5, 16 * 1024), (6, 32 * 1024)];
    assert_eq!(settings, bounds);
    // A frame of a stream that belongs to none ends the connection, with a word.
    connection.send(&frame(HEADERS, END_HEADERS, 0, GET)).await;
    let ended = connection.until_closed().await;
    assert!(kinds(&ended).contains(&GOAWAY), "{:?}", kinds(&ended));
}

#[tokio::test]
async fn http_2_that_asks_too_much_is_told_to_go_away() {
    let kms = TestKms::start().await;
    let too_large = frame(HEADERS, END_HEADERS, 1, &vec![0; 20_000]);
    let endless = {
        let mut frames = frame(HEADERS, 0, 1, GET);
        for _ in 0..10_000 {
            // A literal field of one byte each, never indexed.
            frames.extend(frame(CONTINUATION, 0, 1, &[0x10, 1, b'a', 1, b'b']));
        }
        frames
    };
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
            both.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            both
        })
        .collect();
    for (what, bytes) in [
        ("a frame beyond the largest", too_large),
        ("a head without end", endless),
        ("streams opened to be reset", resets),
    ] {
        let mut connection = RawConnection::open(kms.address()).await;
        let all = [BEGINNING, &bytes].concat();
        let started = Instant::now();
        connection.offer(&all).await;
        connection.until_closed().await;
        // Told to go, and not waited for until it was idle for long enough.
        assert!(started.elapsed() < Duration::from_secs(9), "{what}");
        assert_alive(&kms).await;
    }
}
