//! From the parts of a request to what a handler works with.

use std::str::FromStr;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::HttpState;
use super::dto::ApprovableBody;
use super::error::ApiError;
use super::fields::{WireObject, read_json, read_query};
use super::middleware::RequestFacts;
use crate::domain::approval::ApprovalToken;
use crate::domain::caller::Caller;
use crate::domain::error::{KmsError, RequestFault};
use crate::domain::ids::{KeyAlias, KeyRef, ReceiptId, TenantId, TrustAnchorId};
use crate::domain::ledger::TilePath;
use crate::domain::scope::Scope;
use crate::domain::secret::SecretBytes;
use crate::domain::wire::WireField;
use crate::service::RequestContext;

/// The header that may carry an approval instead of the body.
const APPROVAL_HEADER: &str = "x-approval-token";

/// Reading a longer body keeps an async worker busy for more than about 100 µs, and
/// naming what is wrong with it for many times that.
const READ_HERE: usize = 64 * 1024;

/// A request that names a scope.
pub(crate) trait Scoped {
    /// The scope it names.
    fn scope(&self) -> Scope;
}

macro_rules! scoped {
    ($($name:ident),* $(,)?) => {
        $(impl Scoped for super::dto::$name {
            fn scope(&self) -> Scope {
                Self::scope(self)
            }
        })*
    };
}

scoped!(
    GenerateKeyBody,
    RotateKeyBody,
    RevokeKeyBody,
    UpdateKeyBody,
    KeyStepBody,
    ListVersionsQuery,
    SignBody,
    VerifyBody,
    EncryptBody,
    DecryptBody,
    SignBatchBody,
    VerifyBatchBody,
    EncryptBatchBody,
    DecryptBatchBody,
    AddTrustAnchorBody,
    ScopeQuery,
    ListKeysQuery,
    ListTrustAnchorsQuery,
    ListReceiptsQuery,
);

/// A JSON body, its scope, and who sent it with whose approval.
pub(crate) struct FromBody<T> {
    pub(crate) context: RequestContext,
    pub(crate) scope: Scope,
    pub(crate) body: T,
}

impl<T: ApprovableBody + Scoped + Send + 'static> FromRequest<HttpState> for FromBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &HttpState) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let bytes = read_body(body, state.limits.max_body_bytes).await?;
        let mut body: T = match bytes.len() <= READ_HERE {
            true => read_json(&bytes)?,
            false => tokio::task::spawn_blocking(move || read_json(&bytes))
                .await
                .map_err(KmsError::internal)??,
        };
        let scope = body.scope();
        let in_body = body.take_approval().map(|field| field.0);
        let approval = one_approval(in_body, approval_header(&parts.headers)?)?;
        let context = context(&parts, &scope.tenant_id, approval)?;
        Ok(Self {
            context,
            scope,
            body,
        })
    }
}

/// A query string, its scope, and who sent it.
pub(crate) struct FromQuery<T> {
    pub(crate) context: RequestContext,
    pub(crate) scope: Scope,
    pub(crate) query: T,
}

impl<T: WireObject + Scoped> FromRequestParts<HttpState> for FromQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Self::Rejection> {
        let query: T = read_query(parts.uri.query().unwrap_or_default())?;
        let scope = query.scope();
        let context = context(parts, &scope.tenant_id, None)?;
        Ok(Self {
            context,
            scope,
            query,
        })
    }
}

/// A query string like any, of a request that may bring an approval. The header
/// is its one place: a request without a body has no other, and a query string is
/// written into the logs of whatever stands in between.
pub(crate) struct FromApprovableQuery<T>(pub(crate) FromQuery<T>);

impl<T: WireObject + Scoped> FromRequestParts<HttpState> for FromApprovableQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &HttpState,
    ) -> Result<Self, Self::Rejection> {
        let mut asked = FromQuery::from_request_parts(parts, state).await?;
        asked.context.approval = approval_header(&parts.headers)?;
        Ok(Self(asked))
    }
}

/// The key in the path: `{key_id}`, or `{alias}` behind `keys/alias/`.
pub(crate) struct KeyInPath(pub(crate) KeyRef);

impl FromRequestParts<HttpState> for KeyInPath {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &HttpState,
    ) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| KmsError::field("key_id", KeyRef::EXPECTED))?;
        let key = params.iter().find_map(|(name, text)| match name {
            "key_id" => text.parse().ok(),
            "alias" => text.parse::<KeyAlias>().ok().map(KeyRef::Alias),
            _ => None,
        });
        Ok(Self(key.ok_or_else(|| {
            KmsError::field("key_id", KeyRef::EXPECTED)
        })?))
    }
}

/// The receipt in the path.
pub(crate) struct ReceiptInPath(pub(crate) ReceiptId);

impl FromRequestParts<HttpState> for ReceiptInPath {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &HttpState,
    ) -> Result<Self, Self::Rejection> {
        id_in_path(parts, state, "receipt_id").await.map(Self)
    }
}

/// The trust anchor in the path.
pub(crate) struct TrustAnchorInPath(pub(crate) TrustAnchorId);

impl FromRequestParts<HttpState> for TrustAnchorInPath {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &HttpState,
    ) -> Result<Self, Self::Rejection> {
        id_in_path(parts, state, "trust_anchor_id").await.map(Self)
    }
}

/// The one parameter of a path whose name is also the field's.
async fn id_in_path<T: FromStr + WireField>(
    parts: &mut Parts,
    state: &HttpState,
    name: &'static str,
) -> Result<T, ApiError> {
    let malformed = || KmsError::field(name, T::EXPECTED);
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| malformed())?;
    let id = params.iter().find_map(|(_, text)| text.parse().ok());
    Ok(id.ok_or_else(malformed)?)
}

/// The tile in the path, by its coordinates.
pub(crate) struct TileInPath(pub(crate) TilePath);

impl FromRequestParts<HttpState> for TileInPath {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &HttpState,
    ) -> Result<Self, Self::Rejection> {
        id_in_path(parts, state, "tile").await.map(Self)
    }
}

/// Who asks, of what belongs to no scope.
pub(crate) struct AnyCaller(pub(crate) Caller);

impl FromRequestParts<HttpState> for AnyCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| KmsError::internal("a layer of the stack is missing"))?;
        Ok(Self(caller.clone()))
    }
}

/// A query string without a scope.
pub(crate) struct FromUnscopedQuery<T>(pub(crate) T);

impl<T: WireObject> FromRequestParts<HttpState> for FromUnscopedQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Self::Rejection> {
        Ok(Self(read_query(parts.uri.query().unwrap_or_default())?))
    }
}

/// What the layers found out about a request, with what came along.
fn context(
    parts: &Parts,
    tenant_id: &TenantId,
    approval: Option<ApprovalToken>,
) -> Result<RequestContext, ApiError> {
    let missing = || KmsError::internal("a layer of the stack is missing");
    let facts = parts
        .extensions
        .get::<std::sync::Arc<RequestFacts>>()
        .ok_or_else(missing)?;
    let caller = parts.extensions.get::<Caller>().ok_or_else(missing)?;
    facts.note_tenant(tenant_id);
    Ok(RequestContext {
        request_id: facts.request_id,
        caller: caller.clone(),
        approval,
    })
}

fn require_json(headers: &HeaderMap) -> Result<(), KmsError> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    match declared {
        Some(media_type) if media_type.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(RequestFault::MediaType.into()),
    }
}

async fn read_body(body: Body, limit_bytes: usize) -> Result<Bytes, KmsError> {
    let too_large = || RequestFault::BodyTooLarge { limit_bytes };
    // What is announced as too large is not even read.
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |announced| announced > limit_bytes) {
        return Err(too_large().into());
    }
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large().into()),
        Err(_) => Err(RequestFault::BodyIncomplete.into()),
    }
}

fn approval_header(headers: &HeaderMap) -> Result<Option<ApprovalToken>, KmsError> {
    let mut values = headers.get_all(APPROVAL_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(SecretBytes::new(value.as_bytes().to_vec()))),
        (Some(_), Some(_)) => Err(approval_twice()),
    }
}

/// The approval from wherever it came. Two would leave open which one counts.
fn one_approval(
    in_body: Option<ApprovalToken>,
    in_header: Option<ApprovalToken>,
) -> Result<Option<ApprovalToken>, KmsError> {
    match (in_body, in_header) {
        (Some(_), Some(_)) => Err(approval_twice()),
        (approval, None) | (None, approval) => Ok(approval),
    }
}

fn approval_twice() -> KmsError {
    KmsError::field(
        "approval_token",
        "one approval, in the body or in X-Approval-Token and not in both",
    )
}
