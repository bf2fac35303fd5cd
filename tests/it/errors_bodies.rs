//! Bodies that are not even wrong, and bodies that are too large.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::support::{Answer, RawConnection, TestKms, base64, in_scope};

const LIMIT: usize = 1024 * 1024;

async fn post_bytes(kms: &TestKms, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = kms
        .request(Method::POST, path)
        .header(CONTENT_TYPE, "application/json")
        .body(body.into());
    Answer::of(request).await
}

#[tokio::test]
async fn what_is_not_json_is_400_in_the_envelope() {
    let kms = TestKms::start().await;
    for path in ["/kms/v1/keys", "/kms/v1/sign", "/kms/v1/trust-anchors"] {
        for body in [
            &b""[..],
            b" ",
            b"{",
            b"{}{}",
            b"{} x",
            b"{'a': 1}",
            b"{\"a\": 1,}",
            b"{\"a\": NaN}",
            b"{\"a\": 01}",
            b"{\"a\": \"\xFF\"}",
            b"{\"a\": \"\\uD800\"}",
            b"{\"a\": \"line\nend\"}",
            b"\xEF\xBB\xBF{}",
            b"tenant_id=a",
        ] {
            let answer = post_bytes(&kms, path, body).await;
            let details = answer.refused(400, "INVALID_REQUEST");
            assert_eq!(details, &json!({}), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn json_that_is_no_object_is_400_in_the_envelope() {
    let kms = TestKms::start().await;
    for body in ["[]", "null", "true", "7", "\"{}\"", "[{}]", "1e400"] {
        let answer = post_bytes(&kms, "/kms/v1/sign", body).await;
        answer.refused(400, "INVALID_REQUEST");
    }
}

/// Guards against a reader that takes a list for an object without names, and so
/// passes by everything that is asked of names.
#[tokio::test]
async fn a_list_in_the_order_of_the_fields_is_no_object() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let list = json!(["tenant123", "prod", "laptop", key_id, "", null, null]);
    let answer = kms.post("/kms/v1/sign", &list).await;
    answer.refused(400, "INVALID_REQUEST");
}

/// Guards the same for an object inside of another.
#[tokio::test]
async fn a_list_in_the_place_of_a_policy_is_no_policy() {
    let kms = TestKms::start().await;
    let policy = json!([["M27"], false, 5]);
    let body = in_scope(json!({
        "key_type": "Ed25519", "key_usage": "sign", "access_policy": policy,
    }));
    let answer = kms.post_approved("/kms/v1/keys", &body).await;
    answer.refused_fields(&["access_policy"]);
}

#[tokio::test]
async fn json_that_is_too_deep_is_400_and_does_no_harm() {
    let kms = TestKms::start().await;
    let deep = "[".repeat(100_000);
    let answer = post_bytes(&kms, "/kms/v1/sign", deep).await;
    answer.refused(400, "INVALID_REQUEST");
    let nested = format!("{{\"data\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let answer = post_bytes(&kms, "/kms/v1/sign", nested).await;
    answer.refused(400, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_413() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let mut body = in_scope(json!({ "key_id": key_id, "data": base64("data") })).to_string();
    body.extend(std::iter::repeat_n(' ', LIMIT - body.len()));
    assert_eq!(body.len(), LIMIT);
    post_bytes(&kms, "/kms/v1/sign", body.clone()).await.ok();

    body.push(' ');
    let answer = post_bytes(&kms, "/kms/v1/sign", body).await;
    let details = answer.refused(413, "INVALID_REQUEST");
    assert_eq!(details["limit_bytes"], LIMIT);
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_413_before_it_is_sent() {
    let kms = TestKms::start().await;
    for length in ["1048577", "99999999999999"] {
        let mut connection = RawConnection::open(kms.address()).await;
        let header = format!("Content-Length: {length}");
        connection.send_head("/kms/v1/sign", &[&header]).await;
        let answer = connection.answer().await;
        answer.refused(413, "INVALID_REQUEST");
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let head = format!("{:x}\r\n", bytes.len());
    [head.as_bytes(), bytes, b"\r\n"].concat()
}

/// Guards the counting of what arrives: a chunked body announces nothing.
#[tokio::test]
async fn a_body_that_announces_nothing_is_413_where_it_passes_the_limit() {
    let kms = TestKms::start_with(&[("KMS__SERVER__MAX_BODY_BYTES", "1024")]).await;
    let key_id = kms.generate_id("Ed25519").await;
    let mut body = in_scope(json!({ "key_id": key_id, "data": "" })).to_string();
    body.extend(std::iter::repeat_n(' ', 1024 - body.len()));

    let chunked = ["Transfer-Encoding: chunked"];
    let mut connection = RawConnection::open(kms.address()).await;
    connection.send_head("/kms/v1/sign", &chunked).await;
    let (start, end) = body.as_bytes().split_at(512);
    connection.send(&chunk(start)).await;
    connection.send(&chunk(end)).await;
    connection.send(b"0\r\n\r\n").await;
    connection.answer().await.ok();

    let mut connection = RawConnection::open(kms.address()).await;
    connection.send_head("/kms/v1/sign", &chunked).await;
    connection.send(&chunk(body.as_bytes())).await;
    connection.send(&chunk(b" ")).await;
    let answer = connection.answer().await;
    let details = answer.refused(413, "INVALID_REQUEST");
    assert_eq!(details["limit_bytes"], 1024);
}

#[tokio::test]
async fn the_limit_is_a_setting() {
    let kms = TestKms::start_with(&[("KMS__SERVER__MAX_BODY_BYTES", "2048")]).await;
    let key_id = kms.generate_id("Ed25519").await;
    kms.sign(&key_id, &[0; 1024]).await.ok();
    let answer = kms.sign(&key_id, &[0; 2048]).await;
    let details = answer.refused(413, "INVALID_REQUEST");
    assert_eq!(details["limit_bytes"], 2048);
}
