//! The real composition root on a free port, inside the test's process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use kms::app::App;
use kms::config::{Config, Source};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{APPROVAL, ClientCertificate, Exchange, Pki, SCOPE_QUERY, in_scope, is_preflight};

/// A running service with a data folder of its own.
pub(crate) struct TestKms {
    address: SocketAddr,
    scheme: &'static str,
    operations: SocketAddr,
    client: Client,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl TestKms {
    /// A service with every default but the ports and the folder.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A service with these settings too, as environment variables.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, settings).await
    }

    /// A service in a folder that may have been used before.
    pub(crate) async fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        Self::launch(folder, settings, "http", Client::new()).await
    }

    /// A service that speaks TLS with the files of this infrastructure. What is
    /// asked of it without naming a client is asked by module M21 in the usual
    /// scope.
    pub(crate) async fn start_tls(pki: &Pki, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = pki.settings();
        let mut all: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        all.extend(settings);
        let client = pki.connector(&pki.client("tenant123", "M21"));
        Self::launch(folder, &all, "https", client).await
    }

    async fn launch(
        folder: TempDir,
        settings: &[(&str, &str)],
        scheme: &'static str,
        client: Client,
    ) -> Self {
        let app = App::start(&config(folder.path(), settings))
            .await
            .expect("the service starts");
        let address = app.api_address().expect("an address");
        let operations = app.operations_address().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async move {
            let _ = stopped.await;
        }));
        let kms = Self {
            address,
            scheme,
            operations: operations.expect("an operations listener"),
            client,
            folder,
            stop: Some(stop),
            running: Some(running),
        };
        super::eventually("readiness", || async {
            let health = kms.get("/kms/v1/health").await;
            (health.status == StatusCode::OK).then_some(())
        })
        .await;
        kms
    }

    /// Stops the service in an orderly way and gives its folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(running) = self.running.take() {
            running.await.expect("no panic");
        }
        self.folder
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to the API, not sent yet.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_over(&self.client, method, path)
    }

    /// A request to the API over another client's connections, not sent yet.
    pub(crate) fn request_over(
        &self,
        client: &Client,
        method: Method,
        path: &str,
    ) -> RequestBuilder {
        client.request(method, format!("{}://{}{path}", self.scheme, self.address))
    }

    /// Whether a new connection with this certificate gets an answer, of whatever
    /// kind; where it does not, the handshake was refused.
    pub(crate) async fn lets_in(&self, pki: &Pki, certificate: &ClientCertificate) -> bool {
        let client = pki.connector(certificate);
        let request = self.request_over(&client, Method::GET, "/kms/v1/config");
        request.send().await.is_ok()
    }

    /// How many handshakes were refused for this reason.
    pub(crate) async fn handshakes_refused(&self, reason: &str) -> u64 {
        let series = format!("kms_tls_handshakes_refused_total{{reason=\"{reason}\"}} ");
        let request = self.operations_request(Method::GET, "/kms/v1/metrics");
        let metrics = Answer::of(request).await.text;
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(&series)?.parse().ok())
            .unwrap_or_else(|| panic!("{series} in {metrics}"))
    }

    /// A request to the operations listener, not sent yet.
    pub(crate) fn operations_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, operations_url(self.operations, path))
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// GET with the usual scope in the query.
    pub(crate) async fn get_scoped(&self, path: &str) -> Answer {
        let sign = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{sign}{SCOPE_QUERY}")).await
    }

    /// POST of exactly this body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// POST of this body by this module.
    pub(crate) async fn post_as(&self, module: &str, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("X-Module-Id", module)
            .json(body);
        Answer::of(request).await
    }

    /// POST of this body with an approval in the header.
    pub(crate) async fn post_approved(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("X-Approval-Token", APPROVAL)
            .json(body);
        Answer::of(request).await
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
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.body
    }

    /// The id of a new key in the usual scope.
    pub(crate) async fn generate_id(&self, key_type: &str) -> String {
        let made = self.generate(key_type, json!({})).await;
        made["key_id"].as_str().expect("an id").to_owned()
    }
}

/// The configuration of a test: nothing of the machine's, everything on free ports.
pub(crate) fn config(folder: &Path, settings: &[(&str, &str)]) -> Config {
    let mut environment = BTreeMap::from([
        ("KMS__SERVER__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        (
            "KMS__SERVER__OPS_LISTEN".to_owned(),
            "127.0.0.1:0".to_owned(),
        ),
        ("KMS__DATA_DIR".to_owned(), folder.display().to_string()),
        // Else every test would make pairs for nobody.
        ("KMS__HSM__SOFTWARE__RSA_STOCK".to_owned(), "0".to_owned()),
    ]);
    environment.extend(
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let source = Source {
        environment,
        directory: None,
    };
    match Config::load(&source) {
        Ok(loaded) => loaded.config,
        Err(faults) => panic!("{faults}"),
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    /// Sends and reads.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::attempt(request).await.expect("an answer")
    }

    /// Sends and reads, from a service that may be gone before it has answered. What
    /// comes back is held to the document.
    pub(crate) async fn attempt(request: RequestBuilder) -> Option<Self> {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let (method, url) = (request.method().clone(), request.url().clone());
        let is_preflight = is_preflight(&method, request.headers());
        let sent = request.body().and_then(|body| body.as_bytes());
        let sent = sent.map(<[u8]>::to_vec);
        let response = client.execute(request).await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.ok()?;
        Exchange {
            of_operations: url.fragment() == Some(OPERATIONS),
            is_preflight,
            method: &method,
            target: &target(&url),
            sent: sent.as_deref(),
            status,
            headers: &headers,
            body: &bytes,
        }
        .check();
        Some(Self::new(status, headers, bytes.into()))
    }

    /// An answer of these parts.
    pub(super) fn new(
        status: StatusCode,
        headers: reqwest::header::HeaderMap,
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            status,
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    /// Checks that this is a failure with this status and code, in the envelope
    /// and with nothing beside it, and gives its details.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let object = self.body.as_object().expect("an object");
        assert_eq!(object.keys().collect::<Vec<_>>(), ["error"]);
        let error = &self.body["error"];
        assert_eq!(
            super::field_names(error),
            ["code", "details", "message", "request_id", "retryable"]
        );
        assert_eq!(error["code"], code, "{}", self.text);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        let retryable = matches!(
            code,
            "RATE_LIMITED" | "INTERNAL_ERROR" | "DEPENDENCY_UNAVAILABLE"
        );
        assert_eq!(error["retryable"], retryable);
        let header = self.headers.get("x-request-id").expect("a request id");
        assert_eq!(error["request_id"], header.to_str().expect("text"));
        assert_eq!(self.headers["content-type"], "application/json");
        &error["details"]
    }

    /// Checks that this was refused for exactly these fields.
    #[track_caller]
    pub(crate) fn refused_fields(&self, fields: &[&str]) {
        let details = self.refused(400, "INVALID_REQUEST");
        let mut named: Vec<&str> = details["errors"]
            .as_array()
            .expect("a list of errors")
            .iter()
            .map(|error| error["field"].as_str().expect("a field's name"))
            .collect();
        named.sort_unstable();
        let mut wanted = fields.to_vec();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{}", self.text);
    }

    /// Checks that this is a success, and gives its body.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Value {
        assert_eq!(self.status.as_u16(), 200, "{}", self.text);
        &self.body
    }
}

/// What stands behind the address of a request to the operations listener, so that its
/// answer is held to what is there. A client does not send it (RFC 9110, 7.1).
const OPERATIONS: &str = "operations";

/// Where something is on the operations listener.
pub(super) fn operations_url(listener: SocketAddr, path: &str) -> String {
    format!("http://{listener}{path}#{OPERATIONS}")
}

/// The path and the query of an address.
fn target(url: &reqwest::Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}
