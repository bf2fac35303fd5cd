//! The headers that are read and sent.

use serde_json::Value;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::{Header, Ref, RefOr, Required, Schema};

use super::describe::{Described as _, Schemas, text, text_like, whole_number};
use crate::domain::ids::{ModuleId, RequestId};
use crate::http::stack::{CacheFor, HARDENING, STRICT_TRANSPORT};

/// Headers by the names of their components.
pub(super) const OF_EVERY_ANSWER: [&str; 3] = ["X-Request-Id", "X-Trace-Id", "X-Span-Id"];
/// Where the caller stands with its rate.
pub(super) const OF_A_LIMITED_ANSWER: [&str; 3] =
    ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];
/// What comes along where there is reason to.
pub(super) const SOMETIMES: [&str; 4] = [
    "Strict-Transport-Security",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
    "Vary",
];
/// With what may succeed later.
pub(super) const RETRY_AFTER: &str = "Retry-After";
/// With a 401.
pub(super) const CHALLENGE: &str = "WWW-Authenticate";
/// The name of the cache directive for what never changes.
pub(super) const IMMUTABLE: &str = "Cache-Control-Immutable";
/// The name of the cache directive for everything else.
pub(super) const NO_STORE: &str = "Cache-Control";

/// The names of what every answer tells browsers, but for how long it may be kept.
pub(super) fn hardening() -> impl Iterator<Item = String> {
    let names = HARDENING.map(|(name, _)| in_capitals(name.as_str()));
    names.into_iter().filter(|name| name != NO_STORE)
}

/// A reference to a header.
pub(super) fn named(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// A reference to a parameter.
pub(super) fn parameter(name: &str) -> Ref {
    Ref::new(format!("#/components/parameters/{name}"))
}

/// Adds all of them.
pub(super) fn declare(
    mut components: ComponentsBuilder,
    schemas: &mut Schemas,
) -> ComponentsBuilder {
    for (name, value) in HARDENING {
        let value = value.to_str().unwrap_or_default();
        let about = "What a browser must not do with the answer.";
        components = components.header(in_capitals(name.as_str()), always(about, fixed(&[value])));
    }
    let trace = |example: &str| {
        let digits = example.len();
        Schema::from(text_like("^[0-9a-f]*$", digits, digits).examples([example]))
    };
    let number =
        |example: u32| Schema::from(whole_number(0, u32::MAX as usize).examples([example]));
    let example = |example: &str| Schema::from(text().examples([example]));
    let caches = [CacheFor::Everybody, CacheFor::CallerOnly].map(CacheFor::header);
    let caches: Vec<&str> = caches
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let always_there = [
        (
            "X-Request-Id",
            "The request's id; it leads to the log lines.",
            RequestId::schema(schemas),
        ),
        (
            "X-Trace-Id",
            "The trace of `traceparent`, or a new one.",
            trace("4bf92f3577b34da6a3ce929d0e0e4736").into(),
        ),
        (
            "X-Span-Id",
            "This service's span in the trace.",
            trace("b7ad6b7169203331").into(),
        ),
        (
            "RateLimit-Limit",
            "How many requests may come at once after a pause.",
            number(500).into(),
        ),
        (
            "RateLimit-Remaining",
            "How many may come now.",
            number(499).into(),
        ),
        (
            "RateLimit-Reset",
            "Seconds until the whole burst is there again.",
            number(1).into(),
        ),
        (
            RETRY_AFTER,
            "Seconds until it is worth another try.",
            number(1).into(),
        ),
        (IMMUTABLE, "It never changes.", fixed(&caches).into()),
    ];
    for (name, about, schema) in always_there {
        components = components.header(name, always(about, schema));
    }
    let transport = STRICT_TRANSPORT.to_str().unwrap_or_default().to_owned();
    let sometimes = [
        (
            "Strict-Transport-Security",
            "Over TLS.",
            fixed(&[transport.as_str()]),
        ),
        (
            "Access-Control-Allow-Origin",
            "Which web origin may read the answer.",
            example("https://app.example.com"),
        ),
        (
            "Access-Control-Expose-Headers",
            "Which headers it may read.",
            example("x-request-id,x-trace-id,x-span-id,retry-after"),
        ),
        (
            "Vary",
            "What of the request chose the answer.",
            example("origin, access-control-request-method, access-control-request-headers"),
        ),
        (
            CHALLENGE,
            "Where a bearer token was refused (RFC 6750).",
            fixed(&["Bearer"]),
        ),
    ];
    for (name, about, schema) in sometimes {
        let header = HeaderBuilder::new()
            .description(Some(about))
            .schema(Some(schema));
        components = components.header(name, header.build());
    }
    for (name, about, schema) in [
        (
            "traceparent",
            "The caller's trace (W3C Trace Context). One that is malformed is ignored.",
            example("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").into(),
        ),
        (
            "X-Module-Id",
            "The calling module, in development only and where no certificate names one; `M21` where absent.",
            ModuleId::schema(schemas),
        ),
        (
            "X-Approval-Token",
            "A second person's word, or several joined by commas, where `approval_token` does not carry it.",
            example("approval-token-123").into(),
        ),
    ] {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(about))
            .schema(Some(schema));
        components = components.parameter(name, parameter.build());
    }
    components
}

/// A header that is in every answer that names it. The library's type has no place for that.
fn always(about: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let required = Extensions::from_iter([("required", Value::Bool(true))]);
    HeaderBuilder::new()
        .description(Some(about))
        .schema(Some(schema))
        .extensions(Some(required))
        .build()
}

fn fixed(values: &[&str]) -> Schema {
    super::describe::one_of(values.iter().copied()).into()
}

/// `cache-control` as people write it.
fn in_capitals(name: &str) -> String {
    let parts: Vec<String> = name
        .split('-')
        .map(|part| {
            let (first, rest) = part.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect();
    parts.join("-")
}
