//! The process ends in an orderly way when it is told to, and only then.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{DEADLINE, KmsProcess, base64, eventually, in_scope};

/// Far less than the default grace of 20 seconds, far more than a shutdown takes.
const WELL_WITHIN_THE_GRACE: Duration = Duration::from_secs(8);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn connect(kms: &KmsProcess) -> TcpStream {
    let stream = TcpStream::connect(kms.api()).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream
}

/// A request to sign whose head and half of whose body have arrived.
struct HalfSent {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl HalfSent {
    fn begin(kms: &mut KmsProcess, key_id: &str) -> Self {
        let body = in_scope(json!({ "key_id": key_id, "data": base64("in flight") }));
        let mut half = body.to_string().into_bytes();
        let length = half.len();
        let rest = half.split_off(length / 2);
        let mut stream = connect(kms);
        write!(
            stream,
            "POST /kms/v1/sign HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .expect("sent");
        stream.write_all(&half).expect("sent");
        kms.wait_for_line(&["request.start", "/kms/v1/sign"]);
        Self { stream, rest }
    }

    /// Sends what is missing; the status line and the body of the answer.
    fn finish(mut self) -> (String, Value) {
        self.stream.write_all(&self.rest).expect("sent");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.lines().next().expect("a status line").to_owned();
        (status, serde_json::from_str(body).expect("JSON"))
    }
}

/// Whether the other side has ended this connection.
fn is_ended(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn told_to_end_with_nothing_to_do_it_ends_at_once_and_says_so() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let kms = KmsProcess::start(folder.path(), &[]);
        kms.signal(signal);
        let (status, output) = kms.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {output}");
        let said: Vec<&str> = output
            .lines()
            .filter(|line| line.contains("shutting down") || line.ends_with("stopped"))
            .collect();
        assert_eq!(said.len(), 2, "{signal}: {output}");
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_while_everything_new_is_turned_away() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let mut kms = KmsProcess::start(folder.path(), &[]);
        let key_id = kms.generate_id("Ed25519").await;
        kms.get_operations("/kms/v1/health").await.ok();
        let in_flight = HalfSent::begin(&mut kms, &key_id);

        kms.signal(signal);
        kms.wait_for_line(&["shutting down"]);
        let unready = eventually("unreadiness", || async {
            let health = kms.get_operations("/kms/v1/health").await;
            (health.status == 503).then_some(health)
        })
        .await;
        assert_eq!(unready.body["status"], "unhealthy", "{}", unready.text);
        kms.get_operations("/health").await.ok();
        eventually("a refused connection", || async {
            TcpStream::connect(kms.api())
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
                .then_some(())
        })
        .await;
        // Still there, still waiting for the one request.
        kms.get_operations("/health").await.ok();

        let (status, body) = in_flight.finish();
        assert_eq!(status, "HTTP/1.1 200 OK", "{signal}");
        assert_eq!(body["key_id"], key_id, "{body}");
        let receipt_id = body["receipt_id"].as_str().expect("an id").to_owned();
        let (status, output) = kms.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {output}");
        assert!(!output.contains("did not finish"), "{output}");

        // What was answered last is as durable as everything else.
        let kms = KmsProcess::start(folder.path(), &[]);
        let path = format!("/kms/v1/receipts/{receipt_id}");
        let found = kms.get_scoped(&path).await;
        assert_eq!(found.ok()["receipt"]["receipt_id"], receipt_id);
        kms.stop();
    }
}

#[tokio::test]
async fn connections_without_a_request_hold_nothing_up() {
    let folder = folder();
    let kms = KmsProcess::start(folder.path(), &[]);
    let mut silent = connect(&kms);
    let mut kept_alive = connect(&kms);
    kept_alive
        .write_all(b"GET /health HTTP/1.1\r\nHost: kms\r\n\r\n")
        .expect("sent");
    let mut first = [0];
    kept_alive.read_exact(&mut first).expect("an answer");
    // Accepted in turn: the answer to the second says that the first is there.
    let operations = kms.operations().expect("an operations listener");
    let mut probe = TcpStream::connect(operations).expect("it listens");
    probe.set_read_timeout(Some(DEADLINE)).expect("set");

    let told = Instant::now();
    kms.stop();
    assert!(told.elapsed() < WELL_WITHIN_THE_GRACE);
    for stream in [&mut silent, &mut kept_alive, &mut probe] {
        assert!(is_ended(stream));
    }
}

#[tokio::test]
async fn a_connection_that_stalls_is_ended_after_the_grace() {
    let folder = folder();
    let grace = [("KMS__SERVER__SHUTDOWN_GRACE", "PT0.3S")];
    let mut kms = KmsProcess::start(folder.path(), &grace);
    let key_id = kms.generate_id("Ed25519").await;
    let mut in_head = connect(&kms);
    in_head
        .write_all(b"GET /kms/v1/config HTTP/1.1\r\nHo")
        .expect("sent");
    let mut in_body = HalfSent::begin(&mut kms, &key_id);

    let told = Instant::now();
    kms.signal("TERM");
    let (status, output) = kms.wait();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(
        (Duration::from_millis(300)..WELL_WITHIN_THE_GRACE).contains(&took),
        "{took:?}"
    );
    assert!(output.contains("did not finish"), "{output}");
    assert!(is_ended(&mut in_head));
    assert!(is_ended(&mut in_body.stream));

    // Nothing of what was cut off has happened.
    let kms = KmsProcess::start(folder.path(), &[]);
    let metrics = kms.get_operations("/kms/v1/metrics").await.text;
    assert!(metrics.contains("\nkms_ledger_size 1\n"), "{metrics}");
    kms.stop();
}

#[tokio::test]
async fn a_hangup_does_not_end_it() {
    let folder = folder();
    let mut kms = KmsProcess::start(folder.path(), &[]);
    let key_id = kms.generate_id("Ed25519").await;
    kms.signal("HUP");
    kms.wait_for_line(&["SIGHUP"]);
    let body = in_scope(json!({ "key_id": key_id, "data": base64("after") }));
    kms.post("/kms/v1/sign", &body).await.ok();
    kms.stop();
}
