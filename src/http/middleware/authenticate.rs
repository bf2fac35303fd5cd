//! Who calls: from what the request brought along to a `Caller`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::RequestFacts;
use crate::domain::caller::Credentials;
use crate::domain::error::{AuthenticationFault, KmsError};
use crate::http::HttpState;
use crate::http::error::ApiError;
use crate::http::server::Connection;

/// The header that names the calling module where no certificate does.
const MODULE_HEADER: &str = "x-module-id";

/// Establishes the caller, or answers 401.
pub(crate) async fn authenticate(
    State(state): State<HttpState>,
    mut request: Request,
    next: Next,
) -> Response {
    let credentials = match credentials(&request) {
        Ok(credentials) => credentials,
        Err(error) => return ApiError::from(error).into_response(),
    };
    match state.service.authenticate(credentials).await {
        Ok(caller) => {
            if let Some(facts) = request.extensions().get::<Arc<RequestFacts>>() {
                facts.note_module(caller.module());
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn credentials(request: &Request) -> Result<Credentials, KmsError> {
    let connection = request.extensions().get::<Connection>();
    // Over HTTP/2 requests still come while the connection is being ended.
    if connection.is_some_and(|connection| connection.has_lapsed.load(Ordering::Acquire)) {
        return Err(AuthenticationFault::NoLongerVouchedFor.into());
    }
    let claimed_module = request
        .headers()
        .get(MODULE_HEADER)
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| AuthenticationFault::MalformedModuleHeader)?;
    Ok(Credentials {
        peer: connection.and_then(|connection| connection.peer.clone()),
        bearer: None,
        claimed_module,
    })
}
