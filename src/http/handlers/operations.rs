//! Health, metrics and the policy in force.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::Answer;
use crate::domain::algorithm::KeyType;
use crate::domain::error::{Dependency, KmsError};
use crate::domain::key::KeyState;
use crate::http::HttpState;
use crate::http::dto::{CheckAnswer, ConfigAnswer, HealthAnswer, LivenessAnswer};
use crate::http::error::{ApiError, error_body};
use crate::http::middleware::{Deliberate, RequestFacts};
use crate::http::openapi_document;
use crate::service::{CheckStatus, HealthReport, HealthStatus};
use crate::telemetry::metrics::Metrics;

/// `GET /health`: the process lives. Touches nothing else.
pub(crate) async fn liveness() -> Json<LivenessAnswer> {
    Json(LivenessAnswer {
        status: "healthy",
        service: "kms",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// `GET /kms/v1/health`: what the last probe found.
pub(crate) async fn readiness(
    State(state): State<HttpState>,
    Extension(facts): Extension<Arc<RequestFacts>>,
) -> Response {
    let report = state.service.health();
    let failure = (report.status == HealthStatus::Unhealthy).then(|| unfit(&report));
    let answer = HealthAnswer {
        status: report.status.as_str(),
        checks: report
            .checks
            .iter()
            .map(|check| CheckAnswer {
                name: check.name,
                status: check.status.as_str(),
                detail: check.detail.clone(),
            })
            .collect(),
        error: failure
            .as_ref()
            .map(|failure| error_body(failure, facts.request_id)),
    };
    let mut response = Json(answer).into_response();
    if failure.is_some() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.extensions_mut().insert(Deliberate);
    }
    response
}

/// The first check that fails, as a failure.
fn unfit(report: &HealthReport) -> KmsError {
    let failing = report
        .checks
        .iter()
        .find(|check| check.status == CheckStatus::Fail);
    let dependency = match failing.map(|check| check.name) {
        Some("hsm") => Dependency::Hsm,
        Some("store" | "trust_store") => Dependency::Store,
        Some("ledger") => Dependency::Ledger,
        _ => Dependency::Service,
    };
    KmsError::DependencyUnavailable {
        dependency,
        source: None,
    }
}

/// `GET /kms/v1/metrics`
pub(crate) async fn metrics(State(state): State<HttpState>) -> Result<impl IntoResponse, ApiError> {
    let (service, metrics) = (&state.service, &state.metrics);
    let counts = service.key_counts();
    for key_type in KeyType::ALL {
        for key_state in KeyState::ALL {
            metrics.set_keys(key_type, key_state, counts.get(key_type, key_state));
        }
    }
    metrics.set_ledger_size(service.ledger_size());
    let text = metrics.render().map_err(KmsError::internal)?;
    Ok(([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text))
}

/// `GET /kms/v1/config`
pub(crate) async fn config(State(state): State<HttpState>) -> Answer<ConfigAnswer> {
    let policy = state.service.policy();
    let defaults = &policy.key_defaults;
    Ok(Json(ConfigAnswer {
        key_rotation_schedule: KeyType::ALL
            .into_iter()
            .map(|key_type| {
                (
                    key_type.as_str(),
                    defaults.rotation_schedule.period(key_type),
                )
            })
            .collect(),
        rotation_grace_period: defaults.rotation_grace_period,
        allowed_algorithms: KeyType::ALL
            .into_iter()
            .flat_map(|key_type| key_type.algorithms().iter().copied())
            .collect(),
        max_usage_per_day_default: defaults.max_usage_per_day,
        dual_authorization_required_operations: policy.approvals.operations.clone(),
    }))
}

/// `GET /kms/v1/openapi.json`
pub(crate) async fn openapi() -> impl IntoResponse {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi_document())
}
