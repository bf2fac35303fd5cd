//! The servers, each a process of its own, so that its CPU time can be told apart.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::load::connection::{Connection, Request, Target};
use crate::pki::Pki;
use crate::process::Process;

/// How long a server may take to begin.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    /// From the start of the process until it was ready.
    pub(crate) ready_after: Duration,
    _folder: Option<TempDir>,
}

impl Server {
    /// This program again, as the bare server.
    pub(crate) async fn bare(pki: Option<&Pki>) -> Self {
        let address = free_address();
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(super::BARE).arg(address.to_string());
        if let Some(pki) = pki {
            command.arg(pki.folder());
        }
        Self::start(command, address, pki, None).await
    }

    /// The service with its defaults in a new folder, and with these settings.
    pub(crate) async fn kms(pki: Option<&Pki>, settings: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().to_owned();
        Self::kms_in(&data_dir, Some(folder), pki, settings).await
    }

    /// The service on a folder that is there.
    pub(crate) async fn kms_in(
        data_dir: &Path,
        folder: Option<TempDir>,
        pki: Option<&Pki>,
        settings: &[(&str, String)],
    ) -> Self {
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
        command
            .env_clear()
            .env("KMS__DATA_DIR", data_dir)
            .env("KMS__SERVER__LISTEN", address.to_string())
            .env("KMS__SERVER__OPS_LISTEN", "")
            .env("KMS__LIMITS__REQUESTS_PER_SECOND", "1000000")
            .env("KMS__LIMITS__BURST", "1000000")
            // Pairs made beforehand would be paid for by whatever is measured meanwhile.
            .env("KMS__HSM__SOFTWARE__RSA_STOCK", "0")
            .envs(pki.iter().flat_map(|pki| pki.settings()))
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(data_dir);
        Self::start(command, address, pki, folder).await
    }

    async fn start(
        mut command: Command,
        address: SocketAddr,
        pki: Option<&Pki>,
        folder: Option<TempDir>,
    ) -> Self {
        let started = Instant::now();
        // The lines are written as ever; only nobody reads them.
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create("/dev/null").expect("a file"))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server starts");
        let mut server = Self {
            child,
            target: Target {
                address,
                tls: pki.map(Pki::client),
            },
            ready_after: Duration::ZERO,
            _folder: folder,
        };
        server.wait_until_ready(started).await;
        server.ready_after = started.elapsed();
        server
    }

    /// The service takes its port when it is ready, and answers once it has looked at
    /// what it stands on.
    async fn wait_until_ready(&mut self, started: Instant) {
        loop {
            if tokio::net::TcpStream::connect(self.target.address)
                .await
                .is_ok()
            {
                let request = Request::get("/kms/v1/health");
                let mut connection = Connection::open(&self.target).await;
                if connection.exchange(&request).await == 200 {
                    return;
                }
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            let waited = started.elapsed();
            assert!(waited < START_DEADLINE, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What it costs.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Whether there is such an endpoint. Asked with next to nothing: what is not there
    /// hangs up on a large body.
    pub(crate) async fn has(&self, path: &str) -> bool {
        let mut connection = Connection::open(&self.target).await;
        let nothing = Value::Object(serde_json::Map::new());
        connection.exchange(&Request::post(path, &nothing)).await != 404
    }

    /// Sends one request and reads the JSON answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let mut connection = Connection::open(&self.target).await;
        let status = connection.exchange(&Request::post(path, body)).await;
        let text = String::from_utf8_lossy(connection.body()).into_owned();
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The JSON answer of a GET.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let mut connection = Connection::open(&self.target).await;
        let status = connection.exchange(&Request::get(path)).await;
        let text = String::from_utf8_lossy(connection.body()).into_owned();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What the ledger's writer has done so far, as the metrics say.
    pub(crate) async fn writes(&self) -> Writes {
        let text = self.metrics().await;
        let number = |name| metric(&text, name);
        Writes {
            receipts: number("kms_ledger_size "),
            writes: number("kms_ledger_commit_latency_ms_count "),
            milliseconds: number("kms_ledger_commit_latency_ms_sum "),
        }
    }

    /// How many RSA pairs are ready.
    pub(crate) async fn stock(&self) -> usize {
        metric(&self.metrics().await, "kms_rsa_stock ") as usize
    }

    async fn metrics(&self) -> String {
        let mut connection = Connection::open(&self.target).await;
        connection.exchange(&Request::get("/kms/v1/metrics")).await;
        String::from_utf8_lossy(connection.body()).into_owned()
    }

    /// Ends it as an operator would, and waits for that.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        self.child.wait().expect("it ends");
    }
}

/// Durable writes of the ledger; none where there is no ledger.
#[derive(Clone, Copy)]
pub(crate) struct Writes {
    receipts: f64,
    writes: f64,
    milliseconds: f64,
}

impl Writes {
    /// Receipts a write and milliseconds a write since then; `None` where nothing was
    /// written.
    pub(crate) fn since(self, before: Self) -> Option<(f64, f64)> {
        let writes = self.writes - before.writes;
        (writes > 0.0).then(|| {
            (
                (self.receipts - before.receipts) / writes,
                (self.milliseconds - before.milliseconds) / writes,
            )
        })
    }
}

/// Nobody listens here, and the next one that asks is told another.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0.0)
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
