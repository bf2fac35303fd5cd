//! The real binary as a process of its own, for what only a process can show.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::DEADLINE;

/// A running `kms serve`, killed when dropped.
pub(crate) struct KmsProcess {
    child: Child,
    api: SocketAddr,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl KmsProcess {
    /// Starts the binary on free ports with this data folder, and waits until it
    /// listens.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = command(folder)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let output = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let readers = vec![
            collect(stdout, Arc::clone(&output)),
            collect(stderr, Arc::clone(&output)),
        ];
        let mut process = Self {
            child,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            output,
            readers,
        };
        process.api = process.wait_for_address();
        process
    }

    /// Where the API listens.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// Everything it has written so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    /// Sends it a signal by name, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end; its exit status and all of its output.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("waited for") {
                Some(status) => break status,
                None => assert!(start.elapsed() < DEADLINE, "it does not end"),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic");
        }
        (status, self.output())
    }

    fn wait_for_address(&mut self) -> SocketAddr {
        let start = Instant::now();
        loop {
            let output = self.output();
            let listening = output.lines().find(|line| line.contains("listening"));
            if let Some(address) = listening.and_then(api_address) {
                return address;
            }
            let ended = self.child.try_wait().expect("asked");
            assert!(ended.is_none(), "it ended: {output}");
            assert!(start.elapsed() < DEADLINE, "it does not listen: {output}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for KmsProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with free ports, this data folder and nothing of this process's
/// environment.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
    command
        .env_clear()
        .env("KMS__DATA_DIR", folder)
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// The address in a text line (`api=…`) or a JSON line (`"api":"…"`).
fn api_address(line: &str) -> Option<SocketAddr> {
    let after = line
        .split_once("api=")
        .or_else(|| line.split_once("\"api\":\""))?
        .1;
    let end = after.find([' ', '"']).unwrap_or(after.len());
    after[..end].parse().ok()
}

fn collect(
    stream: impl std::io::Read + Send + 'static,
    output: Arc<Mutex<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
            output.lock().expect("no panic").push_str(&line);
            line.clear();
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    })
}
