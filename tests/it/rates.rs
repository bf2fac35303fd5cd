//! A caller goes at its rate and no faster, whatever it says of itself, and is
//! told where it stands.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::json;

use crate::headers::header;
use crate::support::{Answer, Pki, TestKms, base64, in_scope};

/// A burst, and so slow a rate that no test sees a second one.
fn burst_of(burst: &str) -> [(&'static str, &str); 2] {
    [
        ("KMS__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("KMS__LIMITS__BURST", burst),
    ]
}

fn number(answer: &Answer, name: &str) -> u64 {
    header(answer, name).parse().expect("a number")
}

/// Limit, remaining and reset.
fn standing(answer: &Answer) -> (u64, u64, u64) {
    (
        number(answer, "ratelimit-limit"),
        number(answer, "ratelimit-remaining"),
        number(answer, "ratelimit-reset"),
    )
}

#[tokio::test]
async fn past_its_burst_a_caller_is_refused_and_told_for_how_long() {
    let kms = TestKms::start_with(&burst_of("300")).await;
    let first = kms.get("/kms/v1/config").await;
    first.ok();
    assert_eq!(standing(&first), (300, 299, 1));
    let refused = exhaust(async || kms.get("/kms/v1/config").await).await;
    let details = refused.refused(429, "RATE_LIMITED");
    assert_eq!(
        details,
        &json!({
            "limit": 1, "limit_kind": "requests_per_second", "burst": 300,
            "retry_after_seconds": 1,
        })
    );
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(standing(&refused), (300, 0, 300));
    // Counted, by code and by itself.
    let metrics = kms.get("/kms/v1/metrics").await;
    assert!(metrics.text.contains("\nkms_rate_limited_total 1\n"));
}

/// Asks until it is refused, which it must be before long; a slow machine gives
/// some of the allowance back meanwhile.
async fn exhaust(ask: impl AsyncFn() -> Answer) -> Answer {
    for _ in 0..1_000 {
        let answer = ask().await;
        if answer.status == 429 {
            answer.refused(429, "RATE_LIMITED");
            return answer;
        }
    }
    panic!("no limit");
}

#[tokio::test]
async fn who_waits_as_long_as_told_is_let_in_again() {
    let kms = TestKms::start_with(&burst_of("1")).await;
    for _ in 0..2 {
        let refused = exhaust(async || kms.get("/kms/v1/config").await).await;
        let wait = Duration::from_secs(number(&refused, "retry-after"));
        tokio::time::sleep(wait).await;
        kms.get("/kms/v1/config").await.ok();
    }
}

#[tokio::test]
async fn no_header_chooses_whose_allowance_is_used() {
    let kms = TestKms::start_with(&burst_of("1000")).await;
    for _ in 0..50 {
        kms.get("/kms/v1/config").await.ok();
    }
    for (name, value) in [
        ("x-module-id", "M27"),
        ("x-forwarded-for", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("authorization", "Bearer e30.e30.e30"),
        ("x-client-certificate", "a"),
    ] {
        let request = kms.request(Method::GET, "/kms/v1/config");
        let answer = Answer::of(request.header(name, value)).await;
        // A new allowance would have 999 left.
        assert!(standing(&answer).1 < 990, "{name}: {:?}", standing(&answer));
    }
}

#[tokio::test]
async fn who_cannot_be_told_is_limited_as_well_before_anybody_looks() {
    let kms = TestKms::start_with(&burst_of("2")).await;
    let ask = async || {
        kms.post_as("not a module!", "/kms/v1/sign", &json!({}))
            .await
    };
    let unknown = ask().await;
    unknown.refused(401, "UNAUTHENTICATED");
    assert_eq!(standing(&unknown), (2, 1, 1));
    exhaust(ask).await;
}

#[tokio::test]
async fn probes_and_scrapes_have_no_limit_and_use_none_up() {
    let kms = TestKms::start_with(&burst_of("2")).await;
    for _ in 0..3 {
        for path in ["/health", "/kms/v1/health", "/kms/v1/metrics"] {
            for answer in [
                kms.get(path).await,
                Answer::of(kms.operations_request(Method::GET, path)).await,
            ] {
                assert_eq!(answer.status, 200, "{path}: {}", answer.text);
                assert!(!answer.headers.contains_key("ratelimit-limit"), "{path}");
            }
        }
    }
    let first = kms.get("/kms/v1/config").await;
    assert_eq!(standing(&first), (2, 1, 1));
}

#[tokio::test]
async fn a_group_with_a_rate_of_its_own_is_counted_apart() {
    let settings = [
        ("KMS__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("KMS__LIMITS__BURST", "50"),
        ("KMS__LIMITS__GROUPS__SIGN__BURST", "2"),
        ("KMS__LIMITS__GROUPS__LIFECYCLE__BURST", "3"),
    ];
    let kms = TestKms::start_with(&settings).await;
    let key_id = kms.generate_id("Ed25519").await;
    let signed = kms.sign(&key_id, b"data").await;
    signed.ok();
    assert_eq!(standing(&signed), (2, 1, 1));
    let refused = exhaust(async || kms.sign(&key_id, b"data").await).await;
    assert_eq!(standing(&refused).0, 2);
    // Steps of a key's life and of an anchor's share the one of theirs.
    assert_eq!(standing(&kms.rotate(&key_id).await).0, 3);
    assert_eq!(standing(&kms.revoke(&key_id).await).0, 3);
    exhaust(async || kms.post("/kms/v1/trust-anchors", &json!({})).await).await;
    exhaust(async || kms.rotate(&key_id).await).await;
    // The rest shares the general allowance, of which nothing was used so far.
    let verified = kms.verify(&key_id, b"data", &json!("")).await;
    assert_eq!(standing(&verified), (50, 49, 1));
    let body = in_scope(json!({ "key_id": key_id, "plaintext": base64("x") }));
    exhaust(async || kms.post("/kms/v1/encrypt", &body).await).await;
    exhaust(async || kms.get("/kms/v1/config").await).await;
}

#[tokio::test]
async fn every_answer_of_a_limited_route_says_where_the_caller_stands() {
    let settings = [
        ("KMS__SERVER__REQUEST_TIMEOUT", "PT0.2S"),
        ("KMS__SERVER__MAX_BODY_BYTES", "1KiB"),
    ];
    let kms = TestKms::start_with(&settings).await;
    let large = json!({ "data": "A".repeat(2_000) });
    let mut late = crate::support::RawConnection::open(kms.address()).await;
    late.send_head("/kms/v1/sign", &["Content-Length: 9"]).await;
    for (answer, status) in [
        (kms.get("/kms/v1/config").await, 200),
        (kms.post("/kms/v1/sign", &json!({})).await, 400),
        (kms.get_scoped("/kms/v1/keys/alias/nobody").await, 404),
        (kms.post("/kms/v1/sign", &large).await, 413),
        (late.answer().await, 503),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text);
        let (limit, remaining, reset) = standing(&answer);
        assert_eq!(limit, 500);
        assert!((480..500).contains(&remaining), "{remaining}");
        assert_eq!(reset, 1);
    }
}

#[tokio::test]
async fn over_tls_a_caller_is_its_tenant_and_module_and_nothing_else() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &burst_of("50")).await;
    let request = |client: &Client| kms.request_over(client, Method::GET, "/kms/v1/config");
    let caller = pki.connector(&pki.client("tenant123", "M27"));
    exhaust(async || Answer::of(request(&caller)).await).await;
    // Neither another certificate nor a header makes another caller of it: what
    // it gets is what came back meanwhile, and far from another burst.
    let again = pki.connector(&pki.client("tenant123", "M27"));
    let renamed = async || {
        let request = request(&again)
            .header("X-Module-Id", "M29")
            .header("X-Forwarded-For", "192.0.2.1");
        Answer::of(request).await
    };
    let mut let_in = 0;
    while renamed().await.status == 200 {
        let_in += 1;
        assert!(let_in < 40, "a bucket of its own");
    }
    // Others at the same address have shares of their own.
    for (tenant, module) in [("tenant123", "M29"), ("tenant124", "M27")] {
        let other = pki.connector(&pki.client(tenant, module));
        let answer = Answer::of(request(&other)).await;
        answer.ok();
        assert_eq!(standing(&answer).1, 49);
    }
}
