//! The tower stack: every layer, in order, with its reason.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::HttpState;
use super::middleware::{
    Around, AroundLayer, Authenticate, Frame, InFlight, InTime, RATE_HEADERS, RateTable, Rates,
    hide_plain_options, panic_answer, show_plain_options,
};
use super::server::Connection;

/// Wraps the routes that work with keys. The first layer is the outermost, so
/// read from the top down to follow a request in.
pub(crate) fn guarded(routes: Router<HttpState>, state: &HttpState) -> Router<HttpState> {
    let limits = &state.limits;
    let layers = ServiceBuilder::new()
        // First: it costs less than anything behind it, and whoever goes too fast
        // takes nobody's place. Before identities are checked, so that a flood of
        // bad ones is held up too. Who is counted, the connection says.
        .layer(AroundLayer(Rates(Arc::new(RateTable::new(limits.rates)))))
        // Full is full, and said at once, before a byte of the body is read: so
        // bodies take at most server.max_in_flight times server.max_body_bytes of
        // memory, beside what each connection buffers ahead. Probes and scrapes
        // are not counted: an orchestrator must not restart a service for being busy.
        .layer(AroundLayer(InFlight::at_most(limits.max_in_flight)))
        // Whatever waits in there, the caller gets an answer.
        .layer(InTime(limits.request_timeout))
        // Innermost: nothing behind this line runs for nobody.
        .layer(Authenticate(state.clone()));
    // One layer for axum, which puts each into a box that is copied for every request.
    routes.layer(layers)
}

/// Wraps everything, what is not found included.
pub(crate) fn framed(routes: Router<HttpState>, state: &HttpState) -> Router<HttpState> {
    let layers = ServiceBuilder::new()
        // Outermost, so that whatever is answered is answered with these.
        .layer(AroundLayer(Harden))
        // Outside of where failures are rendered, so that a browser may read them
        // as well. It answers preflights by itself, which name no caller, and no other
        // OPTIONS.
        .map_request(hide_plain_options)
        .layer(cors(&state.limits.cors_origins))
        .map_request(show_plain_options)
        // Outside of everything that can fail: ids, envelope, log, metrics.
        .layer(AroundLayer(Frame(Arc::clone(&state.metrics))))
        // A panic is a 500 in the envelope and not a dropped connection.
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(CatchPanicLayer::custom(panic_answer));
    routes.layer(layers)
}

/// Says of an answer, as its extension, that it never changes and who may keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheFor {
    /// Caches that many share too.
    Everybody,
    /// The caller alone.
    CallerOnly,
}

impl CacheFor {
    /// A year (RFC 9111 §5.2.2, RFC 8246).
    pub(crate) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Everybody => "public, max-age=31536000, immutable",
            Self::CallerOnly => "private, max-age=31536000, immutable",
        })
    }
}

/// Says of an answer, as its extension, that it is a part of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page;

/// What the page may load: from here and nowhere else. Its library sets styles and
/// pictures of its own in place.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// What a browser must not do with an answer, whatever is in it. None of them is
/// a page, a frame or a script of somebody's, but for [`Page`].
pub(crate) const HARDENING: [(HeaderName, HeaderValue); 6] = [
    // Answers hold plaintexts (RFC 9111 §5.2.2.5).
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    // Keeps answers out of other sites' pages. A request under CORS is not
    // asked for this (Fetch, "cross-origin resource policy check").
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// A year (RFC 6797 §6.1), over TLS only: §7.2 forbids it elsewhere.
pub(crate) const STRICT_TRANSPORT: HeaderValue =
    HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// Tells browsers; see above.
#[derive(Clone, Copy)]
struct Harden;

impl Around for Harden {
    /// Whether the request came over TLS.
    type Passage = bool;

    fn enter(&self, request: &mut Request) -> ControlFlow<Response, bool> {
        // Whoever has shown a certificate has shown it over TLS.
        let connection = request.extensions().get::<Connection>();
        ControlFlow::Continue(connection.is_some_and(|connection| connection.peer.is_some()))
    }

    fn leave(&self, is_secure: bool, mut response: Response) -> Response {
        let cache = response.extensions().get::<CacheFor>().copied();
        let page = response.extensions().get::<Page>().copied();
        let headers = response.headers_mut();
        for (name, value) in HARDENING {
            headers.insert(name, value);
        }
        if let Some(cache) = cache {
            headers.insert(header::CACHE_CONTROL, cache.header());
        }
        if page.is_some() {
            headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        }
        if is_secure {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
        }
        response
    }
}

/// How long a browser may keep the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Which browser origins may call (Fetch, "CORS protocol"). Credentials of the
/// browser are never allowed, so `*` shows nobody's answers to anyone else.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    let [limit, remaining, reset] = RATE_HEADERS;
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("x-approval-token"),
            HeaderName::from_static("x-module-id"),
        ])
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-trace-id"),
            HeaderName::from_static("x-span-id"),
            header::RETRY_AFTER,
            limit,
            remaining,
            reset,
        ])
        .max_age(PREFLIGHT_AGE)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::adapters::clock::SystemClock;
    use crate::adapters::data_plane::memory::MemoryDataPlane;
    use crate::adapters::hsm::software::kek::KeyEncryptionKey;
    use crate::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
    use crate::adapters::iam::PlatformIam;
    use crate::adapters::ledger::LedgerSigner;
    use crate::adapters::trust_plane::X509TrustPlane;
    use crate::domain::peer::{PeerIdentity, SpiffeId};
    use crate::domain::policy::{ApprovalPolicy, KeyDefaults, RotationSchedule};
    use crate::domain::rate::{Rate, RateGroup, RatePolicy};
    use crate::domain::time::{Period, Timestamp};
    use crate::http::{HttpLimits, HttpParts};
    use crate::ports::hsm::HsmBackends;
    use crate::service::{KmsService, Ports, ServicePolicy};
    use crate::telemetry::metrics::Metrics;

    fn state() -> HttpState {
        let folder = tempfile::tempdir().expect("a folder");
        let kek = KeyEncryptionKey::create(folder.path().join("kek")).expect("created");
        let ports = Ports {
            hsm: HsmBackends::new(
                Arc::new(SoftwareHsm::new(kek, SoftwareHsmSettings::default())),
                Vec::new(),
            ),
            data_plane: Arc::new(MemoryDataPlane::new()),
            ledger: Arc::new(LedgerSigner::from_seed(&[7; 32]).expect("a key")),
            iam: Arc::new(PlatformIam::development(Arc::new(SystemClock))),
            trust_plane: Arc::new(X509TrustPlane::new()),
            clock: Arc::new(SystemClock),
            material: Vec::new(),
        };
        let policy = ServicePolicy {
            key_defaults: KeyDefaults {
                allowed_modules: Vec::new(),
                max_usage_per_day: 1,
                rotation_schedule: RotationSchedule {
                    rsa_2048: Period::days(1),
                    ed25519: Period::days(1),
                    aes_256: Period::days(1),
                },
                rotation_grace_period: Period::days(1),
                erase_after: Period::days(7),
            },
            approvals: ApprovalPolicy {
                operations: Vec::new(),
            },
            auditors: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
        HttpState::from(HttpParts {
            service: Arc::new(KmsService::new(ports, policy, Arc::clone(&metrics))),
            metrics,
            has_docs: false,
            limits: HttpLimits {
                max_body_bytes: 1024,
                request_timeout: Duration::from_secs(5),
                max_in_flight: 1,
                rates: RatePolicy {
                    default: Rate {
                        requests_per_second: NonZeroU32::MIN,
                        burst: NonZeroU32::MIN,
                    },
                    groups: [None; RateGroup::COUNT],
                },
                cors_origins: vec!["*".to_owned()],
            },
        })
    }

    async fn answer(routes: Router<HttpState>, path: &str) -> (StatusCode, serde_json::Value) {
        let state = state();
        let router = framed(routes, &state).with_state(state);
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body");
        let body = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        (status, body)
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_in_the_envelope_without_its_message() {
        async fn panics() -> &'static str {
            panic!("a secret thing went wrong")
        }
        let (status, body) = answer(Router::new().route("/", get(panics)), "/").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["code"], "INTERNAL_ERROR");
        assert_eq!(body["error"]["retryable"], true);
        assert!(body["error"]["request_id"].is_string());
        assert!(!body.to_string().contains("secret thing"));
    }

    #[tokio::test]
    async fn a_bare_status_that_no_code_of_ours_made_is_put_into_the_envelope() {
        async fn bare() -> StatusCode {
            StatusCode::IM_A_TEAPOT
        }
        let (status, body) = answer(Router::new().route("/", get(bare)), "/").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["code"], "INTERNAL_ERROR");
    }

    #[tokio::test]
    async fn options_come_through_as_such_where_they_are_no_preflight() {
        async fn reached(method: Method) -> axum::Json<String> {
            axum::Json(method.to_string())
        }
        let state = state();
        let routes = Router::new().route("/", axum::routing::any(reached));
        let router = framed(routes, &state).with_state(state);
        for method in [Method::OPTIONS, Method::TRACE, Method::GET] {
            let request = Request::builder().method(&method).uri("/");
            let request = request.body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("an answer");
            let body = response.into_body().collect().await.expect("a body");
            assert_eq!(body.to_bytes(), format!("\"{method}\""));
        }
    }

    #[tokio::test]
    async fn nobody_reaches_a_guarded_route_without_an_identity() {
        async fn reached() -> &'static str {
            "reached"
        }
        let state = state();
        let routes = guarded(Router::new().route("/", get(reached)), &state);
        let router = framed(routes, &state).with_state(state);
        let request = Request::get("/")
            .header("x-module-id", "not a module")
            .body(Body::empty())
            .expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn only_over_tls_a_browser_is_told_to_stay_with_it() {
        let name = "spiffe://d/tenant/acme/env/prod/plane/tenant/module/M27";
        let peer = PeerIdentity {
            spiffe_id: SpiffeId::parse(name).expect("of the form"),
            public_key: None,
            not_after: Timestamp::from_microseconds(0).expect("a time"),
            vouched_by: crate::domain::peer::VouchedBy::Platform,
        };
        for (peer, wanted) in [(Some(Arc::new(peer)), Some(STRICT_TRANSPORT)), (None, None)] {
            let mut request = Request::get("/").body(Body::empty()).expect("a request");
            request.extensions_mut().insert(Connection {
                address: ([192, 0, 2, 1], 1).into(),
                peer,
                has_lapsed: Arc::default(),
            });
            let state = state();
            let router = framed(Router::new(), &state).with_state(state);
            let response = router.oneshot(request).await.expect("an answer");
            let told = response.headers().get(header::STRICT_TRANSPORT_SECURITY);
            assert_eq!(told, wanted.as_ref());
        }
    }
}
