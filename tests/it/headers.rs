//! What every answer bears in its head, success or failure.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, TestKms, base64, in_scope};

/// A header of an answer as text.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name);
    let value = value.unwrap_or_else(|| panic!("no {name}: {}", answer.text));
    value.to_str().expect("text")
}

fn is_hex(text: &str, digits: usize) -> bool {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(lower) && text.bytes().any(|byte| byte != b'0')
}

/// One answer of each kind: a success, and failures of every layer.
async fn answers(kms: &TestKms) -> Vec<Answer> {
    let key_id = kms.generate_id("Ed25519").await;
    let sign = in_scope(json!({ "key_id": key_id, "data": base64("x") }));
    let huge = in_scope(json!({ "key_id": key_id, "data": "A".repeat(2 << 20) }));
    let not_json = kms
        .request(Method::POST, "/kms/v1/sign")
        .header("content-type", "text/plain");
    let answers = vec![
        kms.post("/kms/v1/sign", &sign).await,
        kms.get("/health").await,
        kms.get("/kms/v1/health").await,
        kms.get("/kms/v1/metrics").await,
        kms.get("/kms/v1/config").await,
        kms.post("/kms/v1/sign", &json!({})).await,
        kms.get_scoped("/kms/v1/keys/alias/nobody").await,
        kms.get("/nowhere").await,
        kms.get("/kms/v1/sign").await,
        kms.post("/kms/v1/sign", &huge).await,
        Answer::of(not_json).await,
        kms.post_as("not a module!", "/kms/v1/sign", &sign).await,
    ];
    let statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    assert_eq!(
        statuses,
        [200, 200, 200, 200, 200, 400, 404, 404, 405, 413, 415, 401]
    );
    answers
}

#[tokio::test]
async fn every_answer_bears_its_ids_and_forbids_keeping_and_guessing() {
    let kms = TestKms::start().await;
    let mut seen = BTreeSet::new();
    for answer in answers(&kms).await {
        let request_id = header(&answer, "x-request-id");
        assert!(uuid::Uuid::parse_str(request_id).is_ok(), "{request_id}");
        assert!(is_hex(header(&answer, "x-trace-id"), 32));
        assert!(is_hex(header(&answer, "x-span-id"), 16));
        for name in ["x-request-id", "x-trace-id", "x-span-id"] {
            assert!(seen.insert(header(&answer, name).to_owned()), "{name}");
            assert_eq!(answer.headers.get_all(name).iter().count(), 1);
        }
        assert_hardened(&answer);
    }
}

/// What a browser is told of every answer. Plain HTTP must not ask for TLS
/// (RFC 6797 §7.2).
#[track_caller]
fn assert_hardened(answer: &Answer) {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(header(answer, name), value);
        assert_eq!(answer.headers.get_all(name).iter().count(), 1);
    }
    for name in ["server", "x-powered-by", "strict-transport-security"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_valid_traceparent_is_continued_and_an_invalid_one_replaced() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let kms = TestKms::start().await;
    for path in ["/health", "/kms/v1/config", "/nowhere"] {
        let ask = async |traceparent: &str| {
            let request = kms.request(Method::GET, path);
            Answer::of(request.header("traceparent", traceparent)).await
        };
        for valid in [
            format!("00-{TRACE}-{PARENT}-01"),
            format!("cc-{TRACE}-{PARENT}-00-more"),
        ] {
            let answer = ask(&valid).await;
            assert_eq!(header(&answer, "x-trace-id"), TRACE, "{valid}");
            assert_ne!(header(&answer, "x-span-id"), PARENT);
        }
        for invalid in [
            "nonsense".to_owned(),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
        ] {
            let answer = ask(&invalid).await;
            let trace_id = header(&answer, "x-trace-id");
            assert!(is_hex(trace_id, 32), "{invalid}");
            assert!(!trace_id.eq_ignore_ascii_case(TRACE), "{invalid}");
        }
    }
}

#[tokio::test]
async fn a_browser_is_told_what_it_may_send_and_read() {
    let preflight = async |kms: &TestKms, origin: &str| {
        let request = kms
            .request(Method::OPTIONS, "/kms/v1/sign")
            .header("origin", origin)
            .header("access-control-request-method", "DELETE")
            .header(
                "access-control-request-headers",
                "content-type,x-approval-token",
            );
        Answer::of(request).await
    };
    let kms = TestKms::start().await;
    let answer = preflight(&kms, "https://anyone.example").await;
    assert_eq!(answer.status, 200);
    assert_eq!(header(&answer, "access-control-allow-origin"), "*");
    let methods = header(&answer, "access-control-allow-methods");
    assert_eq!(methods, "GET,POST,PATCH,DELETE");
    assert_eq!(header(&answer, "access-control-max-age"), "600");
    assert_eq!(answer.text, "");
    assert_hardened(&answer);
    let allowed = header(&answer, "access-control-allow-headers").to_lowercase();
    for name in [
        "content-type",
        "authorization",
        "traceparent",
        "x-approval-token",
        "x-module-id",
    ] {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
    assert!(
        !answer
            .headers
            .contains_key("access-control-allow-credentials")
    );

    let one = [("CORS_ORIGINS", "https://app.example.com")];
    let kms = TestKms::start_with(&one).await;
    let friend = preflight(&kms, "https://app.example.com").await;
    assert_eq!(
        header(&friend, "access-control-allow-origin"),
        "https://app.example.com"
    );
    let stranger = preflight(&kms, "https://anyone.example").await;
    assert_eq!(stranger.status, 200);
    assert_eq!(stranger.text, "");
    assert!(!stranger.headers.contains_key("access-control-allow-origin"));
    // One and the same cache must not give the one what is for the other.
    for answer in [&friend, &stranger] {
        let varies = header(answer, "vary").to_lowercase();
        assert!(varies.split(',').any(|name| name.trim() == "origin"));
    }
    // Failures are readable too, the ids included.
    let request = kms.request(Method::GET, "/nowhere");
    let failure = Answer::of(request.header("origin", "https://app.example.com")).await;
    failure.refused(404, "INVALID_REQUEST");
    assert_eq!(
        header(&failure, "access-control-allow-origin"),
        "https://app.example.com"
    );
    let exposed = header(&failure, "access-control-expose-headers").to_lowercase();
    for name in [
        "x-request-id",
        "x-trace-id",
        "retry-after",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
    ] {
        assert!(exposed.contains(name), "{name} in {exposed}");
    }
}

/// A question that no browser asks is no preflight: the method is unknown to every path.
#[tokio::test]
async fn options_that_are_no_preflight_are_refused_as_any_unknown_method_is() {
    let kms = TestKms::start_with(&[("CORS_ORIGINS", "https://app.example.com")]).await;
    let (friend, stranger) = ("https://app.example.com", "https://anyone.example");
    let method = ("access-control-request-method", "POST");
    for asked in [
        &[][..],
        // With one of the two only.
        &[("origin", friend)],
        &[("origin", stranger)],
        &[method],
        &[("origin", friend), ("access-control-request-headers", "x")],
    ] {
        for (path, status, allow) in [
            ("/nowhere", 404, None),
            ("/kms/v1/sign", 405, Some("POST")),
            ("/kms/v1/keys", 405, Some("GET,HEAD,POST")),
            ("/health", 405, Some("GET,HEAD")),
        ] {
            let mut request = kms.request(Method::OPTIONS, path);
            for (name, value) in asked {
                request = request.header(*name, *value);
            }
            let answer = Answer::of(request).await;
            answer.refused(status, "INVALID_REQUEST");
            assert!(is_hex(header(&answer, "x-trace-id"), 32));
            assert_hardened(&answer);
            let allowed = answer.headers.get("allow").map(|value| {
                let methods = value.to_str().expect("text").split(',');
                methods.map(str::trim).collect::<BTreeSet<_>>()
            });
            let wanted = allow.map(|methods| methods.split(',').collect());
            assert_eq!(allowed, wanted, "{path} {asked:?}");
            // Who may read it, the answer says as any other does.
            let reader = answer.headers.get("access-control-allow-origin");
            let is_friend = asked.contains(&("origin", friend));
            assert_eq!(reader.is_some(), is_friend, "{path} {asked:?}");
            for name in [
                "access-control-allow-methods",
                "access-control-allow-headers",
                "access-control-max-age",
            ] {
                assert!(!answer.headers.contains_key(name), "{name}: {asked:?}");
            }
        }
    }
}
