//! Who calls: from what the request brought along to a `Caller`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use tower::{Layer, Service};

use super::RequestFacts;
use super::around::Answering;
use crate::domain::caller::Credentials;
use crate::domain::error::{AuthenticationFault, KmsError, TokenFault};
use crate::domain::secret::SecretBytes;
use crate::http::HttpState;
use crate::http::error::ApiError;
use crate::http::server::Connection;

/// The header that names the calling module where no certificate does.
const MODULE_HEADER: &str = "x-module-id";

/// Establishes the caller, or answers 401.
#[derive(Clone)]
pub(crate) struct Authenticate(pub(crate) HttpState);

impl<S> Layer<S> for Authenticate {
    type Service = AuthenticatedService<S>;

    fn layer(&self, inner: S) -> AuthenticatedService<S> {
        AuthenticatedService {
            state: self.0.clone(),
            inner,
        }
    }
}

/// A service that only known callers reach.
#[derive(Clone)]
pub(crate) struct AuthenticatedService<S> {
    state: HttpState,
    inner: S,
}

impl<S> Service<Request> for AuthenticatedService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Answering {
        let state = self.state.clone();
        // The one that was asked whether it is ready goes along (tower, `Service`).
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        // Taken out first: a request that waits cannot be borrowed, since its body is
        // not for sharing.
        let credentials = credentials(&request);
        Box::pin(async move {
            let caller = match credentials {
                Ok(credentials) => state.service.authenticate(credentials).await,
                Err(error) => Err(error),
            };
            match caller {
                Ok(caller) => {
                    if let Some(facts) = request.extensions().get::<Arc<RequestFacts>>() {
                        facts.note_module(caller.module());
                    }
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(ApiError::from(error).into_response()),
            }
        })
    }
}

fn credentials(request: &Request) -> Result<Credentials, KmsError> {
    let connection = request.extensions().get::<Connection>();
    // Over HTTP/2 requests still come while the connection is being ended.
    if connection.is_some_and(|connection| connection.has_lapsed.load(Ordering::Acquire)) {
        return Err(AuthenticationFault::NoLongerVouchedFor.into());
    }
    let peer = connection.and_then(|connection| connection.peer.clone());
    // Beside a certificate the header says nothing, so nothing of it is refused.
    let claimed_module = match peer {
        Some(_) => None,
        None => claimed_module(request.headers())?,
    };
    Ok(Credentials {
        peer,
        bearer: bearer(request.headers())?,
        claimed_module,
    })
}

fn claimed_module(headers: &HeaderMap) -> Result<Option<String>, AuthenticationFault> {
    headers
        .get(MODULE_HEADER)
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| AuthenticationFault::MalformedModuleHeader)
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); whether it is good is
/// not for this room. The scheme's case does not matter (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Result<Option<SecretBytes>, AuthenticationFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        // Whoever chose one of two would be believed by half of the readers.
        (Some(_), Some(_)) => return Err(TokenFault::Repeated.into()),
    };
    let (scheme, token) = value.split_at(value.len().min(SCHEME.len()));
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && is_token68(token);
    if !is_bearer {
        return Err(TokenFault::NotBearer.into());
    }
    Ok(Some(SecretBytes::new(token.to_vec())))
}

/// The scheme and the one space behind it.
const SCHEME: &[u8] = b"Bearer ";

/// The grammar of a token in a header (`b64token`, RFC 6750 §2.1).
fn is_token68(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let (token, _) = token.split_at(token.len() - padding);
    !token.is_empty()
        && token
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;

    use super::*;
    use crate::domain::peer::{PeerIdentity, SpiffeId};

    const PEER: &str = "spiffe://example.org/tenant/acme/env/prod/plane/tenant/module/M27";

    /// A request over TLS, whose connection may have lost its right to be.
    fn over_tls(has_lapsed: bool) -> Request {
        let peer = PeerIdentity {
            spiffe_id: SpiffeId::parse(PEER).expect("a name"),
            public_key: None,
            not_after: "2100-01-01T00:00:00Z".parse().expect("valid"),
            vouched_by: crate::domain::peer::VouchedBy::Platform,
        };
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Connection {
            address: ([127, 0, 0, 1], 1).into(),
            peer: Some(Arc::new(peer)),
            has_lapsed: Arc::new(has_lapsed.into()),
        });
        request
    }

    #[test]
    fn a_request_on_a_connection_that_has_lapsed_is_nobodys() {
        assert!(credentials(&over_tls(false)).is_ok_and(|found| found.peer.is_some()));
        assert!(matches!(
            credentials(&over_tls(true)),
            Err(KmsError::Unauthenticated(
                AuthenticationFault::NoLongerVouchedFor
            ))
        ));
    }

    #[test]
    fn beside_a_certificate_the_module_header_is_not_read() {
        for value in [&b"M21"[..], b"M\xFC"] {
            let value = HeaderValue::from_bytes(value).expect("a header");
            let mut request = over_tls(false);
            request.headers_mut().insert(MODULE_HEADER, value);
            assert!(credentials(&request).is_ok_and(|found| found.claimed_module.is_none()));
        }
    }

    fn read(values: &[&'static str]) -> Result<Option<Vec<u8>>, AuthenticationFault> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(|token| token.map(|token| token.expose().to_vec()))
    }

    #[test]
    fn one_token_is_taken_whatever_the_case_of_its_scheme() {
        assert_eq!(read(&[]), Ok(None));
        for value in [
            "Bearer a.b-c_d~+/==",
            "bearer a.b-c_d~+/==",
            "BEARER a.b-c_d~+/==",
        ] {
            assert_eq!(
                read(&[value]),
                Ok(Some(b"a.b-c_d~+/==".to_vec())),
                "{value}"
            );
        }
    }

    #[test]
    fn two_headers_are_nobody_in_particular() {
        for values in [["Bearer a", "Bearer a"], ["Basic a", "Bearer a"]] {
            assert_eq!(read(&values), Err(TokenFault::Repeated.into()));
        }
    }

    #[test]
    fn what_is_no_bearer_token_is_refused() {
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  a",
            "Bearer\ta",
            "Bearer a b",
            "Bearer a,b",
            "Bearer a, Bearer b",
            "Bearer a=b",
            "Bearer =",
            "Bearer: a",
            "Basic YTpi",
            "a.b.c",
            "Bearera",
            "Bearer \"a\"",
        ] {
            assert_eq!(
                read(&[value]),
                Err(TokenFault::NotBearer.into()),
                "{value:?}"
            );
        }
    }
}
