//! Metrics and logs say what happens, under the names of the contract. What is
//! counted tells nobody's ids, what is logged is found by its request.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::headers::header;
use crate::support::{
    APPROVAL, Answer, KmsProcess, TestKms, base64, eventually, in_scope, in_tenant,
};

/// The metrics of the contract with their types and labels.
const METRICS: [(&str, &str, &[&str]); 33] = [
    ("kms_requests_total", "counter", &["operation", "status"]),
    ("kms_request_errors_total", "counter", &["code"]),
    ("kms_operation_latency_ms", "histogram", &["operation"]),
    ("kms_keys_total", "gauge", &["key_state", "key_type"]),
    ("kms_key_usage_total", "counter", &["key_type", "operation"]),
    ("kms_hsm_available", "gauge", &[]),
    ("kms_hsm_operation_latency_ms", "histogram", &["operation"]),
    ("kms_ledger_size", "gauge", &[]),
    ("kms_ledger_commit_latency_ms", "histogram", &[]),
    ("kms_rate_limited_total", "counter", &[]),
    ("kms_keys_due", "gauge", &["kind"]),
    ("kms_keys_quarantined", "gauge", &[]),
    ("kms_rekey_remaining", "gauge", &[]),
    ("kms_rsa_pairs_total", "counter", &["source"]),
    ("kms_rsa_stock", "gauge", &[]),
    ("kms_scheduler_last_run_seconds", "gauge", &[]),
    ("kms_build_info", "gauge", &["version"]),
    ("kms_approvals_total", "counter", &["outcome"]),
    ("kms_daily_limit_refusals_total", "counter", &[]),
    ("kms_daily_limits_neared_total", "counter", &[]),
    ("kms_dependency_failures_total", "counter", &["dependency"]),
    ("kms_disk_free_bytes", "gauge", &[]),
    ("kms_disk_size_bytes", "gauge", &[]),
    ("kms_health_check", "gauge", &["check", "status"]),
    ("kms_health_probed_seconds", "gauge", &[]),
    (
        "kms_material_reloads_total",
        "counter",
        &["material", "outcome"],
    ),
    ("kms_rsa_stock_target", "gauge", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("process_threads", "gauge", &[]),
];

async fn scrape(kms: &TestKms) -> String {
    kms.get("/kms/v1/metrics").await.text
}

/// The value of one series; zero where it is not there yet.
fn value(metrics: &str, series: &str) -> f64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map_or(0.0, |number| number.parse().expect("a number"))
}

/// Makes a key of each type and uses it in every way; every id it has seen.
async fn use_everything(kms: &TestKms, tenant_id: &str) -> Vec<String> {
    let mut ids = vec![tenant_id.to_owned()];
    let ask = async |path: &str, fields: Value| {
        let answer = kms.post_approved(path, &in_tenant(tenant_id, fields)).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.body
    };
    for key_type in ["Ed25519", "AES-256"] {
        let usage = match key_type {
            "AES-256" => json!(["encrypt", "decrypt"]),
            _ => json!(["sign", "verify"]),
        };
        let made = json!({ "key_type": key_type, "key_usage": usage, "key_alias": key_type });
        let made = ask("/kms/v1/keys", made).await;
        let key_id = &made["key_id"];
        let used = if key_type == "AES-256" {
            let sent = json!({ "key_id": key_id, "plaintext": base64("p") });
            let encrypted = ask("/kms/v1/encrypt", sent).await;
            let sent = json!({
                "key_id": key_id,
                "ciphertext": encrypted["ciphertext"],
                "iv": encrypted["iv"],
            });
            ask("/kms/v1/decrypt", sent).await
        } else {
            let sent = json!({ "key_id": key_id, "data": base64("d") });
            let signed = ask("/kms/v1/sign", sent.clone()).await;
            let mut sent = sent;
            sent["signature"] = signed["signature"].clone();
            ask("/kms/v1/verify", sent).await
        };
        let path = format!("/kms/v1/keys/{}", key_id.as_str().expect("an id"));
        let rotated = ask(&format!("{path}/rotate"), json!({})).await;
        let revoke = json!({ "revocation_reason": "retired" });
        ask(&format!("{path}/revoke"), revoke).await;
        for id in [key_id, &used["receipt_id"], &rotated["new_key_id"]] {
            ids.push(id.as_str().expect("an id").to_owned());
        }
    }
    ids
}

#[tokio::test]
async fn every_metric_of_the_contract_is_there_with_its_type_and_labels() {
    let kms = TestKms::start().await;
    use_everything(&kms, "tenant123").await;
    // The disk is looked at beside everything else.
    let answer = eventually("a look at the disk", || async {
        let answer = kms.get("/kms/v1/metrics").await;
        answer
            .text
            .contains("kms_disk_size_bytes")
            .then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 200);
    let content_type = answer.headers["content-type"].to_str().expect("text");
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    let mut named = BTreeSet::new();
    for line in answer.text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            named.insert(rest.to_owned());
        }
    }
    let wanted: BTreeSet<String> = METRICS
        .iter()
        .map(|(name, kind, _)| format!("{name} {kind}"))
        .collect();
    assert_eq!(named, wanted);
    for (name, kind, labels) in METRICS {
        let series = match kind {
            "histogram" => format!("{name}_count"),
            _ => name.to_owned(),
        };
        let line = answer
            .text
            .lines()
            .find(|line| line.starts_with(&series))
            .unwrap_or_else(|| panic!("no {series} in {}", answer.text));
        let found: Vec<&str> = line
            .split(['{', ',', '}'])
            .filter_map(|part| part.split_once("=\"").map(|(label, _)| label))
            .collect();
        assert_eq!(found, labels, "{line}");
    }
    for budget in [20, 30, 50, 60, 100, 500, 1_000] {
        let bucket =
            format!("kms_operation_latency_ms_bucket{{operation=\"sign\",le=\"{budget}\"}}");
        // How long it took is the machine's business; that it can be told is ours.
        assert!(answer.text.contains(&bucket), "{bucket}");
    }
}

#[tokio::test]
async fn failures_on_our_side_are_zeros_in_the_first_scrape() {
    let kms = TestKms::start().await;
    let first = scrape(&kms).await;
    // Some of those that the error budget counts; a unit test goes through all.
    for operation in ["generate_key", "sign", "decrypt_batch", "read_ledger"] {
        for status in [500, 503] {
            let series =
                format!("kms_requests_total{{operation=\"{operation}\",status=\"{status}\"}}");
            assert!(first.contains(&format!("{series} 0\n")), "{series}");
        }
    }
}

#[tokio::test]
async fn counters_move_with_what_happens() {
    let kms = TestKms::start().await;
    let before = scrape(&kms).await;
    let key = kms
        .generate(
            "Ed25519",
            json!({ "access_policy": { "max_usage_per_day": 2 } }),
        )
        .await;
    let sign = in_scope(json!({ "key_id": key["key_id"], "data": base64("x") }));
    for status in [200, 200, 429] {
        assert_eq!(kms.post("/kms/v1/sign", &sign).await.status, status);
    }
    let unknown = in_scope(json!({
        "key_id": "01890a5d-ac96-774b-bcce-b302099a8057", "data": base64("x"),
    }));
    let unknown = kms.post("/kms/v1/sign", &unknown).await;
    unknown.refused(404, "KEY_NOT_FOUND");
    kms.get("/nowhere").await.refused(404, "INVALID_REQUEST");
    let revoke = format!(
        "/kms/v1/keys/{}/revoke",
        key["key_id"].as_str().expect("an id")
    );
    let reason = in_scope(json!({ "revocation_reason": "retired" }));
    kms.post(&revoke, &reason)
        .await
        .refused(403, "UNAUTHORIZED");
    kms.post_approved(&revoke, &reason).await.ok();

    let after = scrape(&kms).await;
    for (series, by) in [
        (
            r#"kms_requests_total{operation="generate_key",status="201"}"#,
            1.0,
        ),
        (r#"kms_requests_total{operation="sign",status="200"}"#, 2.0),
        (r#"kms_requests_total{operation="sign",status="429"}"#, 1.0),
        (r#"kms_requests_total{operation="sign",status="404"}"#, 1.0),
        (
            r#"kms_requests_total{operation="unknown",status="404"}"#,
            1.0,
        ),
        (
            r#"kms_requests_total{operation="revoke_key",status="200"}"#,
            1.0,
        ),
        (r#"kms_request_errors_total{code="RATE_LIMITED"}"#, 1.0),
        (r#"kms_request_errors_total{code="KEY_NOT_FOUND"}"#, 1.0),
        (r#"kms_request_errors_total{code="INVALID_REQUEST"}"#, 1.0),
        (r#"kms_request_errors_total{code="INTERNAL_ERROR"}"#, 0.0),
        (r#"kms_operation_latency_ms_count{operation="sign"}"#, 4.0),
        (
            r#"kms_key_usage_total{key_type="Ed25519",operation="sign"}"#,
            2.0,
        ),
        (
            r#"kms_keys_total{key_state="destroyed",key_type="Ed25519"}"#,
            1.0,
        ),
        (
            r#"kms_keys_total{key_state="active",key_type="Ed25519"}"#,
            0.0,
        ),
        (
            r#"kms_hsm_operation_latency_ms_count{operation="sign"}"#,
            2.0,
        ),
        // A key, two signatures, one beyond the limit, one with no key, an end that
        // nobody had agreed to, and one that somebody had.
        ("kms_ledger_size", 7.0),
        ("kms_rate_limited_total", 1.0),
        ("kms_daily_limits_neared_total", 1.0),
        ("kms_daily_limit_refusals_total", 1.0),
        (r#"kms_approvals_total{outcome="accepted"}"#, 2.0),
        (r#"kms_approvals_total{outcome="refused"}"#, 1.0),
    ] {
        let moved = value(&after, series) - value(&before, series);
        assert_eq!(moved, by, "{series}");
    }
    assert_eq!(value(&after, "kms_hsm_available"), 1.0);
    for check in ["hsm", "store", "ledger", "trust_store", "scheduler", "kek"] {
        let series = format!("kms_health_check{{check=\"{check}\",status=\"pass\"}}");
        assert_eq!(value(&after, &series), 1.0, "{series}");
    }
    assert!(value(&after, "kms_health_probed_seconds") > 1.7e9);
    assert!(value(&after, "process_resident_memory_bytes") > 1e6);
    assert!(value(&after, "process_start_time_seconds") > 1.7e9);
    assert!(value(&after, "kms_ledger_commit_latency_ms_count") >= 1.0);
    let build = format!(
        "kms_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&after, &build), 1.0);
}

#[tokio::test]
async fn keys_are_counted_in_each_type_and_state() {
    let kms = TestKms::start().await;
    use_everything(&kms, "tenant123").await;
    let kept = kms.generate_id("Ed25519").await;
    let rotate = format!("/kms/v1/keys/{kept}/rotate");
    kms.post_approved(&rotate, &in_scope(json!({}))).await.ok();
    let metrics = scrape(&kms).await;
    for key_type in ["RSA-2048", "Ed25519", "AES-256"] {
        for key_state in ["active", "pending_rotation", "archived", "destroyed"] {
            let series =
                format!("kms_keys_total{{key_state=\"{key_state}\",key_type=\"{key_type}\"}}");
            let wanted = match (key_type, key_state) {
                ("Ed25519", "active") => 2.0,
                ("Ed25519", "pending_rotation" | "destroyed") => 1.0,
                ("AES-256", "active" | "destroyed") => 1.0,
                _ => 0.0,
            };
            assert!(metrics.contains(&series), "{series}");
            assert_eq!(value(&metrics, &series), wanted, "{series}");
        }
    }
}

#[tokio::test]
async fn the_number_of_series_does_not_grow_with_tenants_and_keys() {
    let kms = TestKms::start().await;
    let series = |metrics: &str| -> BTreeSet<String> {
        metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, _)| series.to_owned())
            .collect()
    };
    let mut ids = use_everything(&kms, "tenant-0").await;
    scrape(&kms).await;
    let before = series(&scrape(&kms).await);
    for number in 1..10 {
        ids.extend(use_everything(&kms, &format!("tenant-{number}")).await);
    }
    let metrics = scrape(&kms).await;
    assert_eq!(series(&metrics), before);
    for id in ids {
        assert!(!metrics.contains(&id), "{id}");
    }
}

#[tokio::test]
async fn each_request_leaves_two_lines_of_json_and_a_probe_leaves_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[("KMS__LOG__FORMAT", "json")]);
    let key_id = kms.generate_id("Ed25519").await;
    let ask = async |key_id: &str| {
        let body = in_scope(json!({ "key_id": key_id, "data": base64("x") }));
        let request = kms.request(Method::POST, "/kms/v1/sign").json(&body);
        let request = request
            .header("X-Module-Id", "M23")
            .header("X-Approval-Token", APPROVAL);
        Answer::of(request).await
    };
    let signed = ask(&key_id).await;
    let refused = ask("alias/nobody").await;
    let shown = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
    let unmatched = kms.get("/kms/v1/some/secret/path?token=secret").await;
    for path in ["/health", "/kms/v1/health", "/kms/v1/metrics"] {
        kms.get(path).await;
        kms.get_operations(path).await;
    }
    let output = kms.stop();
    assert!(!output.contains("secret"), "{output}");
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for line in &lines {
        assert_eq!(line["service"], "kms", "{line}");
        assert_eq!(line["version"], env!("CARGO_PKG_VERSION"), "{line}");
        assert_eq!(line["environment"], "development", "{line}");
        assert!(line["host"].as_str().is_some_and(|host| !host.is_empty()));
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        let level = line["level"].as_str().expect("a level");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&level));
    }
    for message in ["request.start", "request.end"] {
        let logged = lines.iter().filter(|line| line["message"] == message);
        assert_eq!(logged.count(), 5, "{output}");
    }

    for (answer, method, route, status, tenant, module, code) in [
        (
            &signed,
            "POST",
            "/kms/v1/sign",
            200,
            json!("tenant123"),
            json!("M23"),
            Value::Null,
        ),
        (
            &refused,
            "POST",
            "/kms/v1/sign",
            404,
            json!("tenant123"),
            json!("M23"),
            json!("KEY_NOT_FOUND"),
        ),
        (
            &shown,
            "GET",
            "/kms/v1/keys/{key_id}",
            200,
            json!("tenant123"),
            json!("M21"),
            Value::Null,
        ),
        (
            &unmatched,
            "GET",
            "unmatched",
            404,
            Value::Null,
            Value::Null,
            json!("INVALID_REQUEST"),
        ),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text);
        let request_id = header(answer, "x-request-id");
        let own: Vec<&Value> = lines
            .iter()
            .filter(|line| line["request_id"] == request_id)
            .collect();
        let [start, end] = own[..] else {
            panic!("two lines: {own:?}");
        };
        assert_eq!(start["message"], "request.start");
        assert_eq!(end["message"], "request.end");
        for line in [start, end] {
            assert_eq!(line["trace_id"], header(answer, "x-trace-id"));
            assert_eq!(line["span_id"], header(answer, "x-span-id"));
            assert_eq!(line["method"], method);
            assert_eq!(line["route"], route);
        }
        assert_eq!(end["status"], status);
        assert!(end["duration_ms"].as_f64().is_some_and(|took| took > 0.0));
        assert_eq!(end["tenant"], tenant);
        assert_eq!(end["module"], module);
        assert_eq!(end["error_code"], code);
    }
}
