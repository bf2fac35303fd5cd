//! Asking a running service by its address: one request at a time, in bounded time,
//! for bounded answers. Whoever checks a service's ledger and whoever works with
//! its keys ask through this.
//!
//! Believes nothing of what it is answered, and knows no endpoint.

mod client;
mod fault;
mod patience;
mod refusal;

#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

pub use self::fault::{RemoteFault, RemoteFaultKind};
pub use self::patience::{Patience, Repeat};
pub use self::refusal::{Refusal, escaped};

use crate::domain::secret::SecretBytes;

/// The longest failure that is read, in bytes.
const LONGEST_FAILURE: usize = 64 * 1024;

/// Who says so in development, where there is no certificate.
const MODULE_HEADER: HeaderName = HeaderName::from_static("x-module-id");

/// Where a second person's word goes.
const APPROVAL_HEADER: HeaderName = HeaderName::from_static("x-approval-token");

/// How to speak with a service.
#[derive(Default)]
pub struct RemoteOptions {
    /// The client's certificate with its chain and its private key, in PEM.
    pub identity: Option<SecretBytes>,
    /// The authorities to trust, in PEM; the machine's where there are none.
    pub authorities: Option<Vec<u8>>,
    /// Who asks, where a service in development believes it.
    pub module: Option<String>,
    /// The bearer's token of the identity service.
    pub token: Option<SecretBytes>,
    /// How long one answer may take, to its last byte; a minute where it is not said.
    pub deadline: Option<Duration>,
}

/// What is to happen to what is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It is read.
    Get,
    /// Something is done with it.
    Post,
}

/// One request.
pub struct Question<'a> {
    /// How.
    pub verb: Verb,
    /// Where, below the service's address and without the first slash.
    pub path: &'a str,
    /// What follows the question mark, not encoded yet.
    pub query: &'a [(&'a str, &'a str)],
    /// JSON.
    pub body: Option<&'a SecretBytes>,
    /// A second person's word.
    pub approval: Option<&'a SecretBytes>,
    /// The longest answer that is taken, in bytes.
    pub most: usize,
    /// After which refusals it may be asked again.
    pub repeat: Repeat,
}

impl<'a> Question<'a> {
    /// What is there, at most `most` bytes of it.
    pub fn get(path: &'a str, most: usize) -> Self {
        Self {
            verb: Verb::Get,
            path,
            query: &[],
            body: None,
            approval: None,
            most,
            repeat: Repeat::Harmless,
        }
    }
}

/// A running service.
pub struct RemoteService {
    runtime: Runtime,
    client: reqwest::Client,
    base: Url,
}

/// Whether an address begins with its scheme and two slashes, and holds nothing that
/// parsers of addresses drop or turn around (WHATWG URL, "basic URL parser").
fn is_literal(address: &str) -> bool {
    let begins = ["http://", "https://"].iter().any(|scheme| {
        let begin = address.get(..scheme.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    });
    begins && !address.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control())
}

impl RemoteService {
    /// The service at this address (`http` or `https`). Nothing is sent yet.
    ///
    /// # Errors
    /// [`RemoteFaultKind::Address`] where there cannot be a service, and
    /// [`RemoteFaultKind::Options`] for certificates, keys and names that are none.
    pub fn new(address: &str, options: &RemoteOptions) -> Result<Self, RemoteFault> {
        // Relative addresses begin behind the last slash.
        let base = Url::parse(&format!("{}/", address.trim_end_matches('/')))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            // As it is written: what is read more kindly was not looked at by whoever
            // judged the text.
            .filter(|_| is_literal(address));
        let Some(base) = base else {
            let shown = escaped(address);
            let what = format!(
                "{shown} is no address of a service: expected http://HOST:PORT or https://HOST:PORT"
            );
            return Err(RemoteFault::new(RemoteFaultKind::Address, what));
        };
        if !base.username().is_empty() || base.password().is_some() {
            // Not repeated: there may be a password in it.
            let what = "the address of a service holds no name and no password";
            return Err(RemoteFault::new(RemoteFaultKind::Address, what));
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                RemoteFault::because(
                    RemoteFaultKind::Options,
                    "cannot start to ask a service",
                    error,
                )
            })?;
        Ok(Self {
            runtime,
            client: client::client(options)?,
            base,
        })
    }

    /// The address of something below the service's.
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Asks, and asks again where the service wants patience and that does no harm.
    /// The body of a 2xx, or what else the service said.
    ///
    /// # Errors
    /// [`RemoteFault`] where there was no answer, or a longer one than is taken.
    pub fn ask(
        &self,
        question: &Question<'_>,
        patience: Patience,
    ) -> Result<Result<SecretBytes, Refusal>, RemoteFault> {
        self.runtime.block_on(self.asked(question, patience))
    }

    async fn asked(
        &self,
        question: &Question<'_>,
        mut patience: Patience,
    ) -> Result<Result<SecretBytes, Refusal>, RemoteFault> {
        let address = self.address(question.path);
        let failed = |error: reqwest::Error| RemoteFault::of(&address, question.verb, error);
        loop {
            let response = self.request(question)?.send().await.map_err(failed)?;
            if response.status().is_success() {
                let body = body(response, question.most).await.map_err(failed)?;
                return body.map(Ok).ok_or_else(|| {
                    RemoteFault::new(
                        RemoteFaultKind::Malformed,
                        format!("{address} answers with more than {} bytes", question.most),
                    )
                });
            }
            let status = response.status().as_u16();
            let retry_after = patience::retry_after(&response);
            let said = body(response, LONGEST_FAILURE).await.ok().flatten();
            let said = said.as_ref().map_or(&[][..], SecretBytes::expose);
            let refusal = Refusal::read(status, retry_after, said);
            match question
                .repeat
                .after(&refusal)
                .then(|| patience.next(&refusal))
            {
                Some(Some(rest)) => tokio::time::sleep(rest).await,
                _ => return Ok(Err(refusal)),
            }
        }
    }

    fn request(&self, question: &Question<'_>) -> Result<RequestBuilder, RemoteFault> {
        let method = match question.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
        };
        let mut address = self.base.clone();
        address.set_path(&format!("{}{}", self.base.path(), question.path));
        if !question.query.is_empty() {
            address.query_pairs_mut().extend_pairs(question.query);
        }
        let mut request = self.client.request(method, address);
        if let Some(body) = question.body {
            // A copy for this try alone, which is erased when it was sent.
            let body = bytes::Bytes::from_owner(Zeroizing::new(body.expose().to_vec()));
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(approval) = question.approval {
            let value = secret_header("the approval", &[approval.expose()])?;
            request = request.header(APPROVAL_HEADER, value);
        }
        Ok(request)
    }
}

/// The body, unless it is longer.
async fn body(mut response: Response, most: usize) -> Result<Option<SecretBytes>, reqwest::Error> {
    // At once as large as the service says, since growing would leave copies behind.
    let said = response.content_length().unwrap_or_default();
    let room = usize::try_from(said).unwrap_or(most).min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(SecretBytes::new(std::mem::take(&mut *bytes))))
}

/// The headers of every request.
fn headers(options: &RemoteOptions) -> Result<HeaderMap, RemoteFault> {
    let mut headers = HeaderMap::new();
    if let Some(module) = &options.module {
        let value = HeaderValue::from_str(module).map_err(|error| {
            let what = format!("{module:?} is no name of a module");
            RemoteFault::because(RemoteFaultKind::Options, what, error)
        })?;
        headers.insert(MODULE_HEADER, value);
    }
    if let Some(token) = &options.token {
        let value = secret_header("the token", &[b"Bearer ", token.expose()])?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// A header that is printed nowhere, and whose fault does not repeat it.
fn secret_header(what: &str, parts: &[&[u8]]) -> Result<HeaderValue, RemoteFault> {
    let text = Zeroizing::new(parts.concat());
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| {
        RemoteFault::new(
            RemoteFaultKind::Options,
            format!("{what} holds characters that no such token has"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
