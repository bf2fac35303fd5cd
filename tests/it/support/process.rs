//! The real binary as a process of its own, for what only a process can show.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::service::operations_url;
use super::{APPROVAL, Answer, DEADLINE, SCOPE_QUERY, in_scope};

/// A running `kms serve`, killed when dropped.
pub(crate) struct KmsProcess {
    child: Child,
    api: SocketAddr,
    operations: Option<SocketAddr>,
    client: Client,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

/// A command that has run to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Both streams.
    pub(crate) fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl KmsProcess {
    /// Starts the binary on free ports with this data folder, and waits until it
    /// listens.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_as(folder, &[], settings)
    }

    /// The same with these arguments.
    pub(crate) fn start_as(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut process = Self::begin_as(folder, arguments, settings);
        process.note_addresses();
        process
    }

    /// Waits until it listens, and notes where, for one that was only begun.
    pub(crate) fn note_addresses(&mut self) {
        let listening = self.wait_for_line(&["listening"]);
        self.api = address(&listening, "api").expect("an address");
        self.operations = address(&listening, "operations");
    }

    /// Begins to start the binary and waits for nothing: nobody knows yet where it
    /// will listen.
    pub(crate) fn begin(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::begin_as(folder, &[], settings)
    }

    fn begin_as(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let output = Output::default();
        let mut command = command(folder, arguments, settings);
        let (child, readers) = spawn(&mut command, &output, &output);
        Self {
            child,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            operations: None,
            client: client(),
            output,
            readers,
        }
    }

    /// Runs a command of the binary, `serve` included, that is to end by itself.
    pub(crate) fn run(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
        let (stdout, stderr) = (Output::default(), Output::default());
        let mut command = command(folder, arguments, settings);
        let (mut child, readers) = spawn(&mut command, &stdout, &stderr);
        let status = ended(&mut child, || format!("{}{}", text(&stdout), text(&stderr)));
        join(readers);
        Ended {
            code: status.code(),
            stdout: text(&stdout),
            stderr: text(&stderr),
        }
    }

    /// Runs a command of the binary until this comes true, and kills it then, or until
    /// it ends by itself; whether it was killed.
    pub(crate) fn run_and_kill(
        folder: &Path,
        arguments: &[&str],
        mut when: impl FnMut() -> bool,
    ) -> bool {
        let output = Output::default();
        let (mut child, readers) = spawn(&mut command(folder, arguments, &[]), &output, &output);
        let start = Instant::now();
        let killed = loop {
            if child.try_wait().expect("asked").is_some() {
                break false;
            }
            if when() {
                child.kill().expect("killed");
                child.wait().expect("waited for");
                break true;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "it does not end: {}",
                text(&output)
            );
            std::thread::yield_now();
        };
        join(readers);
        killed
    }

    /// Where the API listens.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where the operations listener listens, if there is one.
    pub(crate) fn operations(&self) -> Option<SocketAddr> {
        self.operations
    }

    /// Everything it has written so far.
    pub(crate) fn output(&self) -> String {
        text(&self.output)
    }

    /// Waits for a line with all of these in it, and gives it.
    pub(crate) fn wait_for_line(&mut self, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let output = self.output();
            let found = output
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            if let Some(line) = found {
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("asked");
            assert!(ended.is_none(), "it ended: {output}");
            assert!(start.elapsed() < DEADLINE, "no line {parts:?}: {output}");
            std::thread::sleep(Duration::from_millis(5));
        }
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
        let output = Arc::clone(&self.output);
        let status = ended(&mut self.child, || text(&output));
        join(self.readers.drain(..));
        (status, text(&output))
    }

    /// Stops it in an orderly way; all of its output.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        let (status, output) = self.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        output
    }

    /// Ends it without a word, as a power failure would.
    pub(crate) fn kill(self) {
        self.signal("KILL");
        let (status, output) = self.wait();
        assert_eq!(status.code(), None, "{output}");
    }

    /// A request to the API, not sent yet.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.api))
    }

    /// GET from the API.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// GET from the API with the usual scope as the query.
    pub(crate) async fn get_scoped(&self, path: &str) -> Answer {
        self.get(&format!("{path}?{SCOPE_QUERY}")).await
    }

    /// GET from the operations listener.
    pub(crate) async fn get_operations(&self, path: &str) -> Answer {
        let address = self.operations.expect("an operations listener");
        Answer::of(self.client.get(operations_url(address, path))).await
    }

    /// POST of exactly this body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// POST of this body with an approval in the header.
    pub(crate) async fn post_approved(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        Answer::of(request.header("X-Approval-Token", APPROVAL)).await
    }

    /// A new key in the usual scope; the answer's body.
    pub(crate) async fn generate(&self, key_type: &str, fields: Value) -> Value {
        let usage = match key_type {
            "AES-256" => json!(["encrypt", "decrypt"]),
            _ => json!(["sign", "verify"]),
        };
        let mut body = in_scope(json!({ "key_type": key_type, "key_usage": usage }));
        let object = body.as_object_mut().expect("an object");
        object.extend(fields.as_object().expect("an object").clone());
        let answer = self.post_approved("/kms/v1/keys", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.body
    }

    /// The id of a new key in the usual scope.
    pub(crate) async fn generate_id(&self, key_type: &str) -> String {
        let made = self.generate(key_type, json!({})).await;
        made["key_id"].as_str().expect("an id").to_owned()
    }
}

impl Drop for KmsProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that lets go of a connection before the service does, which waits ten
/// seconds for the next request: else one could be sent into its end.
fn client() -> Client {
    Client::builder()
        .pool_idle_timeout(Duration::from_secs(3))
        .build()
        .expect("a client")
}

type Output = Arc<Mutex<Vec<u8>>>;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.lock().expect("no panic")).into_owned()
}

/// The binary with free ports, this data folder and nothing of this process's
/// environment.
fn command(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
    command
        .args(arguments)
        .env_clear()
        .env("KMS__DATA_DIR", folder)
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        // Else every test would make pairs for nobody.
        .env("KMS__HSM__SOFTWARE__RSA_STOCK", "0")
        .envs(settings.iter().copied())
        .current_dir(folder);
    command
}

fn spawn(command: &mut Command, stdout: &Output, stderr: &Output) -> (Child, Vec<JoinHandle<()>>) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let readers = vec![
        collect(child.stdout.take().expect("piped"), Arc::clone(stdout)),
        collect(child.stderr.take().expect("piped"), Arc::clone(stderr)),
    ];
    (child, readers)
}

/// Waits for the end of a child; one that does not end is ended.
fn ended(child: &mut Child, output: impl Fn() -> String) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            return status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it does not end: {}", output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn join(readers: impl IntoIterator<Item = JoinHandle<()>>) {
    for reader in readers {
        reader.join().expect("no panic");
    }
}

/// The address in a text line (`api=…`) or a JSON line (`"api":"…"`).
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let after = line
        .split_once(&format!(" {name}="))
        .or_else(|| line.split_once(&format!("\"{name}\":\"")))?
        .1;
    let end = after.find([' ', '"']).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// Whole lines, so that nobody reads half an address.
fn collect(stream: impl Read + Send + 'static, output: Output) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            output.lock().expect("no panic").append(&mut line);
        }
    })
}
