//! What of `OPTIONS` is for CORS. A preflight is `OPTIONS` with `Origin` and
//! `Access-Control-Request-Method` (Fetch, "CORS-preflight fetch"); any other `OPTIONS`
//! is a request like all others, for a method that no path here has.
//!
//! tower-http's `CorsLayer` answers every `OPTIONS` as a preflight. So those that are
//! none pass it under another method, and get their own back behind it. Both steps only
//! look at the head: nothing is copied for a request, and nothing boxed.

use axum::extract::Request;
use axum::http::{Method, header};

/// The request came as an `OPTIONS` that asks for no preflight.
#[derive(Clone, Copy)]
struct PlainOptions;

/// What they pass under: no route takes it, whatever would become of the second step.
const DISGUISE: Method = Method::TRACE;

/// Before CORS: hides an `OPTIONS` that is no preflight.
pub(crate) fn hide_plain_options(mut request: Request) -> Request {
    if request.method() == Method::OPTIONS && !is_preflight(&request) {
        *request.method_mut() = DISGUISE;
        request.extensions_mut().insert(PlainOptions);
    }
    request
}

/// Behind CORS: shows it again.
pub(crate) fn show_plain_options(mut request: Request) -> Request {
    if request.extensions_mut().remove::<PlainOptions>().is_some() {
        *request.method_mut() = Method::OPTIONS;
    }
    request
}

/// Whether a request, which is an `OPTIONS`, is a browser's question what it may send.
fn is_preflight(request: &Request) -> bool {
    [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD]
        .iter()
        .all(|name| request.headers().contains_key(name))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_options_without_a_browsers_question_pass_cors_under_another_method() {
        let (origin, asks) = ("origin", "access-control-request-method");
        for (method, names, meanwhile) in [
            (Method::OPTIONS, &[][..], DISGUISE),
            (Method::OPTIONS, &[origin], DISGUISE),
            (Method::OPTIONS, &[asks], DISGUISE),
            (Method::OPTIONS, &[origin, asks], Method::OPTIONS),
            (DISGUISE, &[], DISGUISE),
            (Method::GET, &[origin, asks], Method::GET),
        ] {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method.clone();
            for name in names {
                let value = axum::http::HeaderValue::from_static("x");
                request.headers_mut().insert(*name, value);
            }
            let hidden = hide_plain_options(request);
            assert_eq!(hidden.method(), meanwhile, "{method} {names:?}");
            let shown = show_plain_options(hidden);
            assert_eq!(shown.method(), method, "{method} {names:?}");
            assert!(shown.extensions().is_empty());
        }
    }
}
