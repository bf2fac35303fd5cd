//! A service that is slow or full says so, in time, and stays alive to its probes.

use std::cell::RefCell;

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Pki, RawConnection, TestKms, eventually};

/// Begins a request whose body never ends.
async fn stall(kms: &TestKms) -> RawConnection {
    stall_over(RawConnection::open(kms.address()).await).await
}

async fn stall_over(mut connection: RawConnection) -> RawConnection {
    connection
        .send_head("/kms/v1/sign", &["Content-Length: 100"])
        .await;
    connection.send(b"{").await;
    connection
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_503_and_names_the_deadline() {
    let kms = TestKms::start_with(&[("KMS__SERVER__REQUEST_TIMEOUT", "PT0.2S")]).await;
    let mut stalled = stall(&kms).await;
    let answer = stalled.answer().await;
    let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details, &json!({ "dependency": "deadline" }));
    assert_eq!(answer.headers["retry-after"], "1");
    // Others are not held up by it.
    let _stalled = stall(&kms).await;
    kms.get("/kms/v1/config").await.ok();
}

#[tokio::test]
async fn a_full_service_turns_requests_away_and_still_answers_its_probes() {
    let kms = TestKms::start_with(&[("KMS__SERVER__MAX_IN_FLIGHT", "1")]).await;
    // Whoever comes first has the one place, and these requests want it too, so
    // that it takes more than one until it is a stalled one.
    let stalled = RefCell::new(Vec::new());
    let turned_away = eventually("a full service", || async {
        let connection = stall(&kms).await;
        stalled.borrow_mut().push(connection);
        let answer = kms.get("/kms/v1/config").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let details = turned_away.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details, &json!({ "dependency": "load" }));
    assert_eq!(turned_away.headers["retry-after"], "1");
    let signed = kms.sign("alias/a", b"data").await;
    signed.refused(503, "DEPENDENCY_UNAVAILABLE");

    for path in ["/health", "/kms/v1/health", "/kms/v1/metrics"] {
        let answer = kms.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let answer = Answer::of(kms.operations_request(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }

    let scraped = kms.get("/kms/v1/metrics").await.text;
    let counted = r#"kms_dependency_failures_total{dependency="load"} "#;
    let counted = scraped.lines().find_map(|line| line.strip_prefix(counted));
    let counted: u64 = counted.expect("a series").parse().expect("a number");
    assert!(counted >= 2, "{scraped}");

    drop(stalled);
    eventually("room again", || async {
        let answer = kms.get("/kms/v1/config").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// However many bodies one module lets come in byte by byte, the others are served.
#[tokio::test]
async fn one_caller_cannot_take_every_place_of_a_large_service() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[("KMS__SERVER__MAX_IN_FLIGHT", "64")]).await;
    let slow = pki.client("tenant123", "M99");
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let connection = RawConnection::open_tls(kms.address(), &pki, &slow).await;
        stalled.push(stall_over(connection).await);
    }
    let others = pki.connector(&slow);
    let turned_away = eventually("a share that is taken", || async {
        let same = kms.request_over(&others, Method::GET, "/kms/v1/config");
        let answer = Answer::of(same).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let details = turned_away.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details, &json!({ "dependency": "load" }));
    // Module M21, and not the first of its requests only.
    for _ in 0..3 {
        kms.get("/kms/v1/config").await.ok();
    }
}
