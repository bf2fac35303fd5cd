//! A key set that comes from an address: away at the start, back later, and never
//! asked more often than it should be, whatever callers send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::support::outsider::series;
use crate::support::renewing::{key_set, m21, token};
use crate::support::{
    Answer, Approver, KmsProcess, SCOPE_QUERY, UNTHROTTLED, all_at_once, eventually,
};

/// The identity service, as far as its key set goes.
struct KeyServer {
    fetches: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl KeyServer {
    /// Serves this on a socket that has its address already.
    fn serve(socket: TcpSocket, body: String) -> Self {
        let listener = socket.listen(64).expect("it listens");
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fetches);
        let serving = tokio::spawn(async move { answer_all(&listener, &body, &counted).await });
        Self { fetches, serving }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer_all(listener: &TcpListener, body: &str, fetches: &AtomicUsize) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        fetches.fetch_add(1, Ordering::SeqCst);
        answer(stream, body).await;
    }
}

async fn answer(mut stream: TcpStream, body: &str) {
    let (mut head, mut buffer) = (Vec::new(), [0; 1_024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
    }
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever hangs up early asks again.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// A socket with an address where nobody listens yet, and which nobody else gets.
fn reserved() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

fn start(folder: &tempfile::TempDir, address: SocketAddr) -> KmsProcess {
    let jwks = format!("http://{address}/jwks");
    let settings = [&[("KMS__AUTH__JWKS", jwks.as_str())], &UNTHROTTLED[..]].concat();
    KmsProcess::start(folder.path(), &settings)
}

fn list(kms: &KmsProcess, token: &str) -> reqwest::RequestBuilder {
    kms.request(Method::GET, &format!("/kms/v1/keys?{SCOPE_QUERY}"))
        .bearer_auth(token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_key_set_is_away_starts_unready_and_recovers_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, address) = reserved();
    let mut kms = start(&folder, address);
    kms.wait_for_line(&["WARN", "the key set is away", "material=jwks"]);
    let health = kms.get_operations("/kms/v1/health").await;
    assert_eq!(health.status, 503, "{}", health.text);
    let checks = health.body["checks"].as_array().expect("a list");
    let jwks = checks.iter().find(|check| check["name"] == "jwks");
    assert_eq!(jwks.expect("a check")["status"], "fail", "{}", health.text);
    // The process itself is well, and is not to be killed for it.
    assert_eq!(kms.get_operations("/health").await.status, 200);
    let answer = Answer::of(list(&kms, &token(&m21(), json!({})))).await;
    let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details["dependency"], "iam");

    let server = KeyServer::serve(socket, key_set(&m21()));
    eventually("the key set", || async {
        let answer = Answer::of(list(&kms, &token(&m21(), json!({})))).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    eventually("readiness", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(server.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tokens_of_unknown_keys_cause_one_more_fetch_at_most() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, address) = reserved();
    let server = KeyServer::serve(socket, key_set(&m21()));
    let kms = start(&folder, address);
    Answer::of(list(&kms, &token(&m21(), json!({})))).await.ok();
    let before = server.fetches();
    assert_eq!(before, 1);
    let stranger = Approver::new("stranger", 9);
    for hundred in 0..10 {
        let requests = (0..100).map(|number| {
            let kid = json!({ "kid": format!("made-up-{hundred}-{number}") });
            list(&kms, &token(&stranger, kid))
        });
        for answer in all_at_once(requests.collect()).await {
            answer.refused(401, "UNAUTHENTICATED");
        }
    }
    assert!(server.fetches() <= before + 1, "{}", server.fetches());
    let metrics = kms.get_operations("/kms/v1/metrics").await.text;
    let age = series(&metrics, "kms_jwks_age_seconds{set=\"m21\"}");
    assert!((0.0..300.0).contains(&age), "{age}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_goes_away_takes_no_keys_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, address) = reserved();
    let server = KeyServer::serve(socket, key_set(&m21()));
    let mut kms = start(&folder, address);
    drop(server);
    kms.signal("HUP");
    kms.wait_for_line(&["ERROR not reloaded", "material=jwks"]);
    eventually("the warning", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.ok()["status"] == "degraded").then_some(())
    })
    .await;
    Answer::of(list(&kms, &token(&m21(), json!({})))).await.ok();
}
