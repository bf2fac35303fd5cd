//! The HTTP client of one service.

use std::time::Duration;

use reqwest::{Certificate, Identity};

use super::{RemoteFault, RemoteFaultKind, RemoteOptions, headers};

/// How long a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long one answer may take, to its last byte.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn client(options: &RemoteOptions) -> Result<reqwest::Client, RemoteFault> {
    let fault = |what: &str, error| RemoteFault::because(RemoteFaultKind::Options, what, error);
    let mut builder = reqwest::Client::builder()
        .connect_timeout(options.deadline.unwrap_or(CONNECT_DEADLINE))
        .timeout(options.deadline.unwrap_or(ANSWER_DEADLINE))
        // Whoever could redirect could show another service's answers, and would be
        // shown what was meant for this one.
        .redirect(reqwest::redirect::Policy::none())
        // A request is repeated where that is known to do no harm, and nowhere else.
        .retry(reqwest::retry::never())
        // Settings are arguments and not variables of others.
        .no_proxy()
        .default_headers(headers(options)?)
        .user_agent(concat!("kms/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &options.authorities {
        let authorities = Certificate::from_pem_bundle(pem)
            .map_err(|error| fault("the authorities are no certificates in PEM", error))?;
        if authorities.is_empty() {
            return Err(RemoteFault::new(
                RemoteFaultKind::Options,
                "the authorities are no certificates in PEM",
            ));
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(pem) = &options.identity {
        let identity = Identity::from_pem(pem.expose())
            .map_err(|error| fault("the client's certificate and key (--cert, --key) are not in PEM, or one is missing", error))?;
        builder = builder.identity(identity);
    }
    builder
        .build()
        .map_err(|error| fault("cannot make a client", error))
}
