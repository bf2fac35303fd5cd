//! Everything hostile at once, and beside it those who mean well.
//!
//! They are served, every one of them and in time, and what the service holds of
//! memory and descriptors stays within bounds and comes back.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::attacks;
use super::frames::*;
use crate::support::outsider::series;
use crate::support::{
    Answer, ClientCertificate, KmsProcess, Pki, RawConnection, UNTHROTTLED, base64, eventually,
    in_scope,
};

/// How long it lasts.
const SIEGE: Duration = Duration::from_secs(8);

/// How late one in a hundred of those who mean well may be: a part of what a service
/// does that has lost a thread, or waits for somebody's deadline; many times of what
/// two busy cores need.
const LATE: Duration = Duration::from_secs(1);

/// What memory may grow by: each of the hundreds of connections may make the service
/// buffer a head and a piece of a body, and a debug build is generous.
const MEMORY_BYTES: f64 = 128.0 * 1024.0 * 1024.0;

/// Connections that say nothing, or little.
const CROWD: usize = 300;

/// A service under siege.
struct Siege {
    kms: KmsProcess,
    /// Who means well: module M21, or nobody in particular.
    friend: Client,
    tls: Option<(Pki, ClientCertificate)>,
    ends: Instant,
}

impl Siege {
    fn plain(folder: &Path) -> Self {
        let kms = KmsProcess::start(folder, &UNTHROTTLED);
        Self::begin(kms, Client::new(), None)
    }

    /// The besiegers have a certificate too: module M99 is let in, and is up to no
    /// good.
    fn tls(folder: &Path) -> Self {
        let pki = Pki::new();
        let files = pki.settings();
        let files = files.iter().map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<(&str, &str)> = UNTHROTTLED.into_iter().chain(files).collect();
        let kms = KmsProcess::start(folder, &settings);
        let friend = pki.connector(&pki.client("tenant123", "M21"));
        let foe = pki.client("tenant123", "M99");
        Self::begin(kms, friend, Some((pki, foe)))
    }

    fn begin(kms: KmsProcess, friend: Client, tls: Option<(Pki, ClientCertificate)>) -> Self {
        Self {
            kms,
            friend,
            tls,
            ends: Instant::now() + SIEGE,
        }
    }

    fn lasts(&self) -> bool {
        Instant::now() < self.ends
    }

    async fn open(&self) -> RawConnection {
        let address = self.kms.api();
        match &self.tls {
            None => RawConnection::open(address).await,
            Some((pki, client)) => RawConnection::open_tls(address, pki, client).await,
        }
    }

    /// Sends these on new connections, one after the other, and stays on each for at
    /// most so long.
    async fn repeat(&self, bytes: &[u8], at_most: Duration) {
        while self.lasts() {
            let mut connection = self.open().await;
            let _ = timeout(at_most, connection.exchange(bytes, |_| false)).await;
        }
    }

    /// The same and reads nothing of what comes back.
    async fn repeat_deaf(&self, bytes: &[u8], at_most: Duration) {
        while self.lasts() {
            let mut connection = self.open().await;
            let _ = timeout(at_most, async {
                connection.offer(bytes).await;
                pending::<()>().await;
            })
            .await;
        }
    }

    /// Sends the beginning, and a byte now and then.
    async fn trickle(&self, beginning: &[u8]) {
        while self.lasts() {
            let mut connection = self.open().await;
            let mut is_there = connection.offer(beginning).await;
            while is_there && self.lasts() {
                sleep(Duration::from_millis(200)).await;
                is_there = connection.offer(b"a").await;
            }
        }
    }

    /// Every attack of the list, again and again.
    async fn attack(&self) {
        let attacks = attacks::all();
        while self.lasts() {
            for attack in &attacks {
                let mut connection = self.open().await;
                let bytes = [BEGINNING, &attack.bytes].concat();
                let exchange = connection.exchange(&bytes, |_| false);
                let _ = timeout(Duration::from_millis(100), exchange).await;
            }
        }
    }

    /// Connections that never come to speak HTTP: silence, and no TLS where TLS is
    /// spoken.
    async fn knock(&self, said: &[u8]) {
        while self.lasts() {
            let Ok(mut stream) = TcpStream::connect(self.kms.api()).await else {
                continue;
            };
            let _ = stream.write_all(said).await;
            let mut nothing = [0; 64];
            let _ = timeout(Duration::from_secs(1), stream.read(&mut nothing)).await;
        }
    }

    async fn besiege(&self) {
        let second = Duration::from_secs(1);
        let half = second / 2;
        let no_room: Vec<u8> = (0..256)
            .flat_map(|number| get_path(2 * number + 1, "/kms/v1/openapi.json"))
            .collect();
        let no_room = [BEGINNING, &setting(4, 0), &no_room].concat();
        let pings = frame(PING, 0, 0, &[1; 8]).repeat(200_000);
        let pings = [BEGINNING, &pings].concat();
        let large = b"GET /kms/v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000);
        let posted = |rest: &[u8]| {
            let head =
                b"POST /kms/v1/sign HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
            [head, rest].concat()
        };
        let bad_chunk = posted(b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n");
        let large_head = posted(&[b"X-Large: ", [b'a'; 100_000].as_slice()].concat());
        let half_a_body = posted(b"Content-Length: 2\r\n\r\n{");
        let slow_body = posted(b"Content-Length: 100000\r\n\r\n");
        let crowd = (0..CROWD).map(|number| match number % 3 {
            0 => self.trickle(b""),
            1 => self.trickle(b"GET /health HTTP/1.1\r\nX-A: "),
            _ => self.trickle(&slow_body),
        });
        let knocks = (0..50).map(|number| match number % 3 {
            0 => self.knock(b""),
            1 => self.knock(b"\x16\x03\x01\x02\x00\x01\x00"),
            _ => self.knock(b"\x16\x03\x01\xff\xff\xff\xff\xff\xff\xff"),
        });
        tokio::join!(
            crate::support::all(crowd),
            crate::support::all(knocks),
            self.attack(),
            self.attack(),
            self.repeat_deaf(&no_room, second),
            self.repeat_deaf(&pings, second),
            self.repeat_deaf(&large, second),
            self.repeat(&bad_chunk, half),
            self.repeat(&large_head, half),
            self.repeat(&half_a_body, half),
        );
    }

    /// Someone who means well, once in a while.
    async fn ask(&self, requests: &[RequestBuilder]) -> Vec<Duration> {
        let mut took = Vec::new();
        while self.lasts() {
            for request in requests {
                let request = request.try_clone().expect("of bytes");
                let started = Instant::now();
                let answer = Answer::of(request).await;
                took.push(started.elapsed());
                answer.ok();
                sleep(Duration::from_millis(5)).await;
            }
        }
        took
    }

    /// What it holds, by its own account: bytes of memory and descriptors.
    async fn held(&self) -> (f64, f64) {
        let metrics = self.kms.get_operations("/kms/v1/metrics").await;
        let metrics = &metrics.text;
        (
            series(metrics, "process_resident_memory_bytes"),
            series(metrics, "process_open_fds"),
        )
    }

    /// The most that it held at any time.
    async fn watch(&self) -> (f64, f64) {
        let mut most = (0.0_f64, 0.0_f64);
        while self.lasts() {
            let (memory, descriptors) = self.held().await;
            most = (most.0.max(memory), most.1.max(descriptors));
            let alive = self.kms.get_operations("/health").await;
            assert_eq!(alive.status, 200);
            let ready = self.kms.get_operations("/kms/v1/health").await;
            assert_eq!(ready.status, 200, "{}", ready.text);
            sleep(Duration::from_millis(100)).await;
        }
        most
    }

    async fn survive(mut self) {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        let base = format!("{scheme}://{}", self.kms.api());
        let friend = self.friend.clone();
        let post = |path: &str, body: Value| {
            let request = friend.request(Method::POST, format!("{base}{path}"));
            let request = request.header("X-Approval-Token", crate::support::APPROVAL);
            request.json(&in_scope(body))
        };
        let often = json!({ "max_usage_per_day": 1_000_000 });
        let key = async |key_type: &str, usage: [&str; 2]| {
            let wanted = json!({
                "key_type": key_type, "key_usage": usage, "access_policy": often,
            });
            let made = Answer::of(post("/kms/v1/keys", wanted)).await;
            assert_eq!(made.status, 201, "{}", made.text);
            made.body["key_id"].as_str().expect("an id").to_owned()
        };
        let signer = key("Ed25519", ["sign", "verify"]).await;
        let cipher = key("AES-256", ["encrypt", "decrypt"]).await;
        let data = base64("data");
        let requests = [
            post("/kms/v1/sign", json!({ "key_id": signer, "data": data })),
            post(
                "/kms/v1/encrypt",
                json!({ "key_id": cipher, "plaintext": data }),
            ),
        ];
        let (memory_before, descriptors_before) = self.held().await;
        self.ends = Instant::now() + SIEGE;
        let siege = Arc::new(self);
        // Elsewhere, so that those who mean well wait for the service and not for them.
        let besiegers = tokio::spawn({
            let siege = Arc::clone(&siege);
            async move { siege.besiege().await }
        });
        let friends = async {
            let (a, b, c, d) = tokio::join!(
                siege.ask(&requests),
                siege.ask(&requests),
                siege.ask(&requests),
                siege.ask(&requests),
            );
            [a, b, c, d].concat()
        };
        let (mut took, (memory, descriptors)) = tokio::join!(friends, siege.watch());
        besiegers.await.expect("no panic");

        took.sort_unstable();
        let late = took[took.len() * 99 / 100];
        assert!(took.len() > 100, "{} were served", took.len());
        assert!(late < LATE, "{late:?} of {}", took.len());
        let grown = memory - memory_before;
        assert!(grown < MEMORY_BYTES, "{grown} bytes more");
        let most = (CROWD + 50 + 100) as f64;
        assert!(
            descriptors < descriptors_before + most,
            "{descriptors} descriptors, {descriptors_before} before"
        );
        eventually("descriptors given back", || async {
            let (_, descriptors) = siege.held().await;
            (descriptors <= descriptors_before + 8.0).then_some(())
        })
        .await;
        let siege = Arc::into_inner(siege).expect("nobody else");
        siege.kms.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_mean_well_are_served_beside_everything_hostile() {
    let folder = tempfile::tempdir().expect("a folder");
    Siege::plain(folder.path()).survive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_behind_tls_by_one_that_was_let_in() {
    let folder = tempfile::tempdir().expect("a folder");
    Siege::tls(folder.path()).survive().await;
}
