//! A rollout under load, as Kubernetes makes it: the pod is taken out of its service,
//! pauses (preStop), gets SIGTERM, drains and ends; the next one starts on the same
//! volume and is put in once it is ready. Nobody loses a request.
//!
//! Clients ask through a stand-in for the cluster's service: while it has no pod a
//! connection is refused, as kube-proxy does, and that alone is tried again.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, KmsProcess, UNTHROTTLED, base64, eventually, in_scope, text};

/// How often the pod is replaced.
const ROLLOUTS: usize = 3;

/// How long a pod pauses before SIGTERM; five times as long in the manifests.
const PAUSE: Duration = Duration::from_secs(1);

/// How long slow clients take between the halves of their bodies: from 1.1 s on, each a
/// little longer, so that some are on their way whenever SIGTERM comes.
const SLOWLY: Duration = Duration::from_millis(1_100);
const A_LITTLE: Duration = Duration::from_millis(200);

/// The cluster's service: where its one pod is, while it has one.
#[derive(Default)]
struct ClusterService(Mutex<Option<SocketAddr>>);

impl ClusterService {
    fn point_to(&self, pod: Option<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pod;
    }

    /// A connection; `None` where it was refused.
    async fn connect(&self) -> Option<TcpStream> {
        let pod = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = TcpStream::connect(pod?).await;
        Some(connected.expect("a pod in the service takes connections"))
    }
}

/// What one client has to do, and what it has got.
struct Client {
    service: Arc<ClusterService>,
    is_over: Arc<AtomicBool>,
    body: String,
    pause_in_body: Duration,
}

impl Client {
    /// Signs until it is over; the receipts of all answers, and how often it was refused.
    async fn run(self) -> (Vec<String>, usize) {
        let (mut receipts, mut refused) = (Vec::new(), 0);
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(connection) = self.service.connect().await else {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // From here on nothing is tried again.
            receipts.push(self.sign(connection).await);
        }
        (receipts, refused)
    }

    /// The receipt of one signature.
    async fn sign(&self, mut connection: TcpStream) -> String {
        let (first, rest) = self.body.split_at(self.body.len() / 2);
        let head = format!(
            "POST /kms/v1/sign HTTP/1.1\r\nHost: kms\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{first}",
            self.body.len()
        );
        connection.write_all(head.as_bytes()).await.expect("sent");
        tokio::time::sleep(self.pause_in_body).await;
        connection.write_all(rest.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("in time")
            .expect("an answer");
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{answer:?}"));
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        text(&body["receipt_id"]).to_owned()
    }
}

/// A pod that is ready.
async fn start(folder: &Path, listen: &str) -> KmsProcess {
    let mut settings = UNTHROTTLED.to_vec();
    settings.push(("KMS__SERVER__LISTEN", listen));
    let kms = KmsProcess::start(folder, &settings);
    eventually("readiness", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.status == 200).then_some(())
    })
    .await;
    kms
}

/// A port that the kernel gives to no connection by itself: the next process takes it too.
fn free_port() -> u16 {
    (20_000..30_000)
        .skip(usize::try_from(std::process::id()).expect("a number") % 9_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("127.0.0.1:{}", free_port());
    let mut kms = start(folder.path(), &listen).await;
    let unlimited = json!({ "access_policy": { "max_usage_per_day": 1_000_000 } });
    let key = kms.generate("Ed25519", unlimited).await;
    let body = in_scope(json!({ "key_id": key["key_id"], "data": base64("data") })).to_string();

    let service = Arc::new(ClusterService::default());
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..12u32)
        .map(|number| Client {
            service: Arc::clone(&service),
            is_over: Arc::clone(&is_over),
            body: body.clone(),
            pause_in_body: match number {
                0..4 => Duration::ZERO,
                slow => SLOWLY + A_LITTLE * slow,
            },
        })
        .map(|client| tokio::spawn(client.run()))
        .collect();
    service.point_to(Some(kms.api()));

    for _ in 0..ROLLOUTS {
        tokio::time::sleep(PAUSE).await;
        // The pod is deleted: nobody new is sent to it, and it pauses.
        service.point_to(None);
        tokio::time::sleep(PAUSE).await;
        let told = Instant::now();
        kms.signal("TERM");
        let (status, output) = tokio::task::spawn_blocking(move || kms.wait())
            .await
            .expect("no panic");
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(!output.contains("did not finish"), "{output}");
        assert!(
            told.elapsed() < Duration::from_secs(20),
            "{:?}",
            told.elapsed()
        );
        // Requests were on their way when it was told to end.
        let (_, after) = output.split_once("shutting down").expect("a word");
        assert!(after.contains("request.end"), "{after}");
        // The volume is let in again, and the next pod is ready.
        kms = start(folder.path(), &listen).await;
        service.point_to(Some(kms.api()));
    }
    tokio::time::sleep(PAUSE).await;
    is_over.store(true, Ordering::Relaxed);

    let (mut receipts, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (its, times) = client.await.expect("every request was answered");
        receipts.extend(its);
        refused += times;
    }
    assert!(refused > ROLLOUTS, "nobody noticed: {refused}");
    assert!(receipts.len() > 200, "{}", receipts.len());
    for receipt in &receipts {
        let found = kms.get_scoped(&format!("/kms/v1/receipts/{receipt}")).await;
        assert_eq!(found.ok()["receipt"]["receipt_id"], *receipt);
    }
    // One for each answer, one for the key, and none for what nobody got.
    let metrics = kms.get_operations("/kms/v1/metrics").await.text;
    let wanted = format!("\nkms_ledger_size {}\n", receipts.len() + 1);
    assert!(metrics.contains(&wanted), "{wanted}: {metrics}");
    kms.stop();
}
