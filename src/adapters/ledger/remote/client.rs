//! Asking a service: one request at a time, in bounded time, for bounded answers.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

use crate::ports::ledger_source::SourceFault;

/// How long a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long one answer may take, to its last byte.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How often one request is sent again when the service asks for patience.
const MOST_TRIES: u32 = 30;

/// The longest that a service's wish for patience is heeded at a time.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// The longest failure that is read, in bytes.
const LONGEST_FAILURE: usize = 64 * 1024;

/// Where the ledger is, below a service's address.
const BASE: &str = "kms/v1/ledger/";

/// How to speak with a service.
#[derive(Clone, Default)]
pub struct RemoteOptions {
    /// The client's certificate with its chain and its private key, in PEM.
    pub identity: Option<Vec<u8>>,
    /// The authorities to trust, in PEM; the machine's where there are none.
    pub authorities: Option<Vec<u8>>,
    /// Who asks, where a service in development believes it.
    pub module: Option<String>,
}

/// A client of one service.
pub(super) struct Client {
    runtime: Runtime,
    client: reqwest::Client,
    base: Url,
}

impl Client {
    pub(super) fn new(address: &str, options: &RemoteOptions) -> Result<Self, SourceFault> {
        // Relative addresses begin behind the last slash.
        let base = Url::parse(&format!("{}/", address.trim_end_matches('/')))
            .and_then(|url| url.join(BASE))
            .map_err(|error| {
                SourceFault::because(format!("{address} is no address of a service"), error)
            })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(SourceFault::new(format!(
                "{address} is no address of a service: expected http or https"
            )));
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| SourceFault::because("cannot start to ask a service", error))?;
        Ok(Self {
            runtime,
            client: client(options)?,
            base,
        })
    }

    /// The address of something below the ledger's.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What is there, at most `most` bytes of it; `None` where there is nothing.
    pub(super) fn get(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, SourceFault> {
        let address = self.address(path);
        self.runtime.block_on(self.ask(&address, most))
    }

    async fn ask(&self, address: &str, most: usize) -> Result<Option<Vec<u8>>, SourceFault> {
        let failed = |error: reqwest::Error| {
            SourceFault::because(format!("cannot get {address}"), error.without_url())
        };
        let mut tries = 0;
        let response = loop {
            tries += 1;
            let response = self.client.get(address).send().await.map_err(failed)?;
            match patience(&response) {
                Some(patience) if tries < MOST_TRIES => tokio::time::sleep(patience).await,
                _ => break response,
            }
        };
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => {
                let body = body(response, LONGEST_FAILURE).await.ok().flatten();
                let why = body.as_deref().map(why).unwrap_or_default();
                return Err(SourceFault::new(format!(
                    "{address} answers {} and not 200{why}",
                    status.as_u16()
                )));
            }
        }
        match body(response, most).await.map_err(failed)? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(SourceFault::new(format!(
                "{address} answers with more than {most} bytes"
            ))),
        }
    }
}

/// The body, unless it is longer.
async fn body(mut response: Response, most: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// How long the service wants to be left alone before it is asked again, if it
/// says that asking again makes sense.
fn patience(response: &Response) -> Option<Duration> {
    let may_answer_later = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    may_answer_later.then(|| Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_PATIENCE))
}

/// What the service says of a failure, in its own code and words.
fn why(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        error: Failure,
    }
    #[derive(Deserialize)]
    struct Failure {
        code: String,
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Envelope { error }) => {
            // Escaped, since it may be anybody's and goes to a terminal.
            let message = format!(": {}, {}", error.code, error.message);
            let shown = |c: char| match c {
                '\'' | '"' => c.to_string(),
                other => other.escape_debug().to_string(),
            };
            message.chars().map(shown).collect()
        }
        Err(_) => String::new(),
    }
}

fn client(options: &RemoteOptions) -> Result<reqwest::Client, SourceFault> {
    let fault = |what: &str, error: reqwest::Error| SourceFault::because(what, error);
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ANSWER_DEADLINE)
        // Whoever could redirect could show another's ledger.
        .redirect(reqwest::redirect::Policy::none())
        // Settings are arguments and not variables.
        .no_proxy()
        .user_agent(concat!("kms/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &options.authorities {
        let authorities = Certificate::from_pem_bundle(pem)
            .map_err(|error| fault("the authorities are no certificates in PEM", error))?;
        if authorities.is_empty() {
            return Err(SourceFault::new(
                "the authorities are no certificates in PEM",
            ));
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(pem) = &options.identity {
        let identity = Identity::from_pem(pem)
            .map_err(|error| fault("the client's certificate and key are not in PEM", error))?;
        builder = builder.identity(identity);
    }
    if let Some(module) = &options.module {
        let value = HeaderValue::from_str(module).map_err(|error| {
            SourceFault::because(format!("{module:?} is no name of a module"), error)
        })?;
        builder = builder.default_headers(HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static("x-module-id"),
            value,
        )]));
    }
    builder
        .build()
        .map_err(|error| fault("cannot make a client", error))
}
