//! Health, metrics and the policy in force.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Answer;
use crate::domain::algorithm::KeyType;
use crate::domain::error::KmsError;
use crate::domain::key::KeyState;
use crate::http::HttpState;
use crate::http::dto::{CheckAnswer, ConfigAnswer, HealthAnswer, LivenessAnswer};
use crate::http::error::ApiError;
use crate::http::middleware::Deliberate;
use crate::service::HealthStatus;
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
pub(crate) async fn readiness(State(state): State<HttpState>) -> Response {
    let report = state.service.health();
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
    };
    let mut response = Json(answer).into_response();
    if report.status == HealthStatus::Unhealthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.extensions_mut().insert(Deliberate);
    }
    response
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
