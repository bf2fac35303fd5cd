//! A server as a process of its own, so that its CPU time can be told apart.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::load::{Connection, Request};

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Server {
    /// This program again, as the bare server.
    pub(crate) fn bare() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg(super::BARE);
        Self::start(command)
    }

    /// The service with its defaults.
    pub(crate) fn kms() -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_kms")))
    }

    fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = command
            .env_clear()
            .env("KMS__DATA_DIR", folder.path())
            .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
            .env("KMS__LIMITS__REQUESTS_PER_SECOND", "1000000")
            .env("KMS__LIMITS__BURST", "1000000")
            .env("KMS__SERVER__OPS_LISTEN", "")
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let after = line.split_once("api=")?.1;
                after.split_whitespace().next()?.parse().ok()
            })
            .expect("the server listens");
        // Its log is read and thrown away, as a collector would read it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// Sends one request and reads the JSON answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let mut connection = Connection::open(self.address).await;
        let (status, answer) = connection.exchange(&Request::post(path, body)).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!((200..300).contains(&status), "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What the ledger's writer has done so far, as the metrics say.
    pub(crate) async fn writes(&self) -> Writes {
        let mut connection = Connection::open(self.address).await;
        let request = Request::get("/kms/v1/metrics");
        let (_, answer) = connection.exchange(&request).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let number = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or(0.0)
        };
        Writes {
            receipts: number("kms_ledger_size "),
            writes: number("kms_ledger_commit_latency_ms_count "),
            milliseconds: number("kms_ledger_commit_latency_ms_sum "),
        }
    }

    /// User and system CPU seconds so far (proc(5), fields 14 and 15).
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let after_name = stat.rsplit_once(')').expect("a name").1;
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        // USER_HZ is 100 on every Linux that matters.
        ticks as f64 / 100.0
    }

    /// Resident memory in MiB (proc(5), VmRSS).
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("a process");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kibibytes| kibibytes / 1024)
    }
}

/// Durable writes of the ledger.
#[derive(Clone, Copy, Default)]
pub(crate) struct Writes {
    receipts: f64,
    writes: f64,
    milliseconds: f64,
}

impl Writes {
    /// What came since then: receipts a write, and milliseconds a write.
    pub(crate) fn since(self, before: Self) -> (f64, f64) {
        let writes = (self.writes - before.writes).max(1.0);
        (
            (self.receipts - before.receipts) / writes,
            (self.milliseconds - before.milliseconds) / writes,
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
