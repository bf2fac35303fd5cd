//! What the service does for keys without anybody asking.

use serde_json::{Value, json};

use crate::lifecycle::time;
use crate::support::approver::seconds_since_1970;
use crate::support::{Answer, TestKms, eventually, text};

#[tokio::test]
async fn a_key_is_replaced_before_its_end_and_archived_after_its_grace() {
    let kms = TestKms::start_with(&[("KMS__KEYS__ROTATION_GRACE_PERIOD", "PT2S")]).await;
    let made = kms
        .generate(
            "Ed25519",
            json!({ "key_alias": "line", "rotation_period": "PT30S" }),
        )
        .await;
    let first = text(&made["key_id"]).to_owned();
    let before = kms.details(&first).await;
    let rotated = eventually("a successor", || async {
        let details = kms.details("alias/line").await;
        (details["key_id"] != first.as_str()).then_some(details)
    })
    .await;
    assert_eq!(rotated["predecessor_key_id"], first.as_str());
    for inherited in [
        "created_by",
        "key_usage",
        "access_policy",
        "rotation_period",
    ] {
        assert_eq!(rotated[inherited], before[inherited], "{inherited}");
    }
    let replaced_at = time(&rotated["created_at"]);
    assert!(replaced_at >= time(&before["rotate_at"]));
    assert!(replaced_at < time(&before["valid_until"]), "{replaced_at}");
    let archived = eventually("the end of its grace", || async {
        let details = kms.details(&first).await;
        (details["key_state"] == "archived").then_some(details)
    })
    .await;
    assert!(time(&archived["archived_at"]) >= time(&archived["grace_until"]));
    for operation in ["key_rotated", "key_archived"] {
        let path = format!("/kms/v1/receipts?key_id={first}&operation={operation}");
        let receipts = kms.get_scoped(&path).await;
        let receipts = receipts.ok()["receipts"].as_array().expect("a list");
        assert_eq!(receipts.len(), 1, "{operation}");
        assert_eq!(receipts[0]["receipt"]["requesting_module"], "M33");
        assert_eq!(receipts[0]["receipt"]["kms_context"]["success"], true);
    }
}

#[tokio::test]
async fn what_fell_due_while_the_service_was_away_is_done_after_the_start() {
    let kms = TestKms::start().await;
    let (mut keys, mut last) = (Vec::new(), jiff::Timestamp::MIN);
    for _ in 0..20 {
        let made = kms
            .generate("Ed25519", json!({ "rotation_period": "PT3S" }))
            .await;
        keys.push(text(&made["key_id"]).to_owned());
        last = last.max(time(&made["valid_until"]));
    }
    let folder = kms.stop().await;
    eventually("the end of all of them", || async {
        (seconds_since_1970() > last.as_second()).then_some(())
    })
    .await;
    let kms = TestKms::start_in(folder, &[]).await;
    for key_id in &keys {
        let successor = eventually("a successor", || async {
            let details = kms.details(key_id).await;
            details["successor_key_id"].as_str().map(str::to_owned)
        })
        .await;
        let successor = kms.details(&successor).await;
        assert_eq!(successor["predecessor_key_id"], key_id.as_str());
    }
}

#[tokio::test]
async fn the_schedulers_rounds_show_in_metrics_and_in_the_health_report() {
    let kms = TestKms::start().await;
    let metrics = eventually("a round", || async {
        let request = kms.operations_request(reqwest::Method::GET, "/kms/v1/metrics");
        let metrics = Answer::of(request).await.text;
        metrics
            .contains("kms_keys_due{kind=\"erase\"} 0")
            .then_some(metrics)
    })
    .await;
    for kind in ["rotate", "archive"] {
        assert!(metrics.contains(&format!("kms_keys_due{{kind=\"{kind}\"}} 0")));
    }
    let ran_at: f64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("kms_scheduler_last_run_seconds "))
        .and_then(|number| number.trim().parse().ok())
        .expect("a time");
    let now = seconds_since_1970() as f64;
    assert!((now - ran_at).abs() < 60.0, "{ran_at}");
    let check = eventually("a probe after a round", || async {
        let health = kms.get("/kms/v1/health").await;
        let checks = health.body["checks"].as_array().cloned();
        checks
            .unwrap_or_default()
            .into_iter()
            .find(|check| check["name"] == "scheduler")
    })
    .await;
    assert_eq!(check["status"], Value::from("pass"));
}
