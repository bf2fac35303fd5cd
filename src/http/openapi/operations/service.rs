//! The service itself.

use axum::http::Method;

use super::SERVICE;
use crate::http::dto::{ConfigAnswer, HealthAnswer, LivenessAnswer};
use crate::http::openapi::operation::Operation;
use crate::http::openapi::texts::{MetricsText, OpenApiDocument};
use crate::telemetry::metrics::Metrics;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new::<LivenessAnswer>(
            SERVICE,
            Method::GET,
            "/health",
            "isAlive",
            "Whether the process lives",
        )
        .about("It looks at nothing else. On the operations listener too.")
        .for_anybody(),
        Operation::new::<HealthAnswer>(
            SERVICE,
            Method::GET,
            "/kms/v1/health",
            "isReady",
            "Whether the service is fit to serve",
        )
        .about("On the operations listener too.")
        .for_anybody()
        .unhealthy::<HealthAnswer>(),
        Operation::new::<MetricsText>(
            SERVICE,
            Method::GET,
            "/kms/v1/metrics",
            "getMetrics",
            "Metrics for Prometheus",
        )
        .about("On the operations listener too.")
        .of_media_type(Metrics::CONTENT_TYPE)
        .for_anybody(),
        Operation::new::<ConfigAnswer>(
            SERVICE,
            Method::GET,
            "/kms/v1/config",
            "getPolicy",
            "The policy in force",
        ),
        Operation::new::<OpenApiDocument>(
            SERVICE,
            Method::GET,
            "/kms/v1/openapi.json",
            "getOpenApi",
            "This document",
        ),
    ]
}
