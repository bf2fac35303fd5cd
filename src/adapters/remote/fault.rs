//! Why there was no answer.

use std::error::Error;
use std::io;

use super::Verb;

/// What stands in the way of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteFaultKind {
    /// The address is none of a service.
    Address,
    /// A certificate, a key or a name cannot be used.
    Options,
    /// No connection: nothing was sent.
    Away,
    /// The connection ended before the answer did: what became of the request is not
    /// known.
    Lost,
    /// Whoever is there did not prove to be the service.
    NotTrusted,
    /// The service ended the handshake: it does not take this client's certificate, or
    /// misses it.
    HandshakeRefused,
    /// What is spoken there is not what was asked in: TLS or plain HTTP, or neither.
    OtherProtocol,
    /// The answer is none of a service.
    Malformed,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RemoteFault {
    /// What stands in the way.
    pub kind: RemoteFaultKind,
    /// The same in words.
    pub what: String,
    /// What the system said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl RemoteFault {
    pub(super) fn new(kind: RemoteFaultKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn because(
        kind: RemoteFaultKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// What the HTTP library says of a request to this address.
    pub(super) fn of(address: &str, verb: Verb, error: reqwest::Error) -> Self {
        let kind = match handshake_fault(&error) {
            Some(rustls::Error::AlertReceived(_)) => RemoteFaultKind::HandshakeRefused,
            Some(rustls::Error::InvalidCertificate(_)) => RemoteFaultKind::NotTrusted,
            Some(_) => RemoteFaultKind::OtherProtocol,
            None if error.is_connect() => RemoteFaultKind::Away,
            None if is_no_http(&error) => RemoteFaultKind::OtherProtocol,
            None => RemoteFaultKind::Lost,
        };
        let verb = match verb {
            Verb::Get => "get",
            Verb::Post => "ask",
        };
        Self::because(
            kind,
            format!("cannot {verb} {address}"),
            error.without_url(),
        )
    }
}

/// Whether what came back is no HTTP.
fn is_no_http(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error.downcast_ref::<hyper::Error>();
        if found.is_some_and(hyper::Error::is_parse) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What TLS says, where it says anything: it stands behind errors of input and output.
fn handshake_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref() {
            return Some(fault);
        }
        // Such an error passes over what it wraps when it is asked for its source.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
