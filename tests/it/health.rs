//! What the service says about its own fitness is true, in time, and to
//! whomever may ask.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Answer, KmsProcess, TestKms, base64, eventually, in_scope};

const CHECKS: [&str; 6] = ["hsm", "kek", "ledger", "scheduler", "store", "trust_store"];

/// The names of the checks with this status, sorted.
fn checks_that(health: &Value, status: &str) -> Vec<String> {
    let checks = health["checks"].as_array().expect("a list of checks");
    let mut names: Vec<String> = checks
        .iter()
        .filter(|check| check["status"] == status)
        .map(|check| check["name"].as_str().expect("a name").to_owned())
        .collect();
    names.sort_unstable();
    names
}

fn field_names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn liveness_and_readiness_are_the_same_on_both_listeners() {
    let kms = TestKms::start().await;
    for on_operations in [false, true] {
        let ask = async |path: &str| match on_operations {
            true => Answer::of(kms.operations_request(reqwest::Method::GET, path)).await,
            false => kms.get(path).await,
        };
        let live = ask("/health").await;
        assert_eq!(live.ok()["status"], "healthy");
        assert_eq!(live.body["service"], "kms");
        assert_eq!(live.body["version"], env!("CARGO_PKG_VERSION"));

        let ready = ask("/kms/v1/health").await;
        assert_eq!(field_names(ready.ok()), ["checks", "status"]);
        assert_eq!(ready.body["status"], "healthy");
        assert_eq!(checks_that(&ready.body, "pass"), CHECKS);
        for check in ready.body["checks"].as_array().expect("a list") {
            assert_eq!(field_names(check), ["detail", "name", "status"]);
            assert!(check["detail"].is_string(), "{check}");
        }
        let metrics = ask("/kms/v1/metrics").await;
        assert_eq!(metrics.status, 200);
    }
}

#[tokio::test]
async fn the_operations_listener_has_three_paths_and_nothing_else() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let sign = in_scope(json!({ "key_id": key_id, "data": base64("x") }));
    for path in [
        "/kms/v1/sign",
        "/kms/v1/verify",
        "/kms/v1/encrypt",
        "/kms/v1/decrypt",
        "/kms/v1/keys",
        "/kms/v1/trust-anchors",
    ] {
        let request = kms.operations_request(reqwest::Method::POST, path);
        Answer::of(request.json(&sign))
            .await
            .refused(404, "INVALID_REQUEST");
    }
    for path in [
        "/",
        "/kms/v1/config",
        "/kms/v1/keys",
        "/kms/v1/openapi.json",
        "/kms/v1/receipts/0",
        "/kms/v1/metrics/",
        "/metrics",
        "//health",
    ] {
        let request = kms.operations_request(reqwest::Method::GET, path);
        Answer::of(request).await.refused(404, "INVALID_REQUEST");
    }
    let request = kms.operations_request(reqwest::Method::POST, "/health");
    let answer = Answer::of(request).await;
    answer.refused(405, "INVALID_REQUEST");
    let allowed = answer.headers["allow"].to_str().expect("text");
    assert!(allowed.contains("GET"), "{allowed}");
}

#[tokio::test]
async fn the_operations_listener_can_be_turned_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let off = [("KMS__SERVER__OPS_LISTEN", "")];
    let kms = KmsProcess::start(folder.path(), &off);
    assert_eq!(kms.operations(), None);
    eventually("readiness", || async {
        (kms.get("/kms/v1/health").await.status == 200).then_some(())
    })
    .await;
    kms.stop();
}

/// Another process's hold on the store: nothing can be written meanwhile.
struct WriteLock(Connection);

impl WriteLock {
    fn take(folder: &std::path::Path) -> Self {
        let connection = Connection::open(folder.join("kms.db")).expect("a database");
        let patience = std::time::Duration::from_secs(10);
        connection.busy_timeout(patience).expect("set");
        connection.execute_batch("BEGIN IMMEDIATE").expect("locked");
        Self(connection)
    }

    fn release(self) {
        self.0.execute_batch("ROLLBACK").expect("released");
    }
}

/// Waits until readiness has this status; the answer.
async fn until_readiness_is(kms: &KmsProcess, status: u16) -> Answer {
    eventually("another readiness", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.status == status).then_some(health)
    })
    .await
}

async fn ledger_size(kms: &KmsProcess) -> u64 {
    let text = kms.get_operations("/kms/v1/metrics").await.text;
    text.lines()
        .find_map(|line| line.strip_prefix("kms_ledger_size "))
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[tokio::test]
async fn a_store_that_cannot_be_written_makes_it_unready_until_it_can_again() {
    const DAILY_LIMIT: usize = 4;
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    until_readiness_is(&kms, 200).await;
    let policy = json!({ "access_policy": { "max_usage_per_day": DAILY_LIMIT } });
    let made = kms.generate("Ed25519", policy).await;
    let sign = in_scope(json!({ "key_id": made["key_id"], "data": base64("x") }));
    kms.post("/kms/v1/sign", &sign).await.ok();
    let receipts = ledger_size(&kms).await;

    let lock = WriteLock::take(folder.path());
    let generate = in_scope(json!({ "key_type": "Ed25519", "key_usage": "sign" }));
    let (first, second, generated) = tokio::join!(
        kms.post("/kms/v1/sign", &sign),
        kms.post("/kms/v1/sign", &sign),
        kms.post_approved("/kms/v1/keys", &generate),
    );
    for (answer, dependency) in [(first, "ledger"), (second, "ledger"), (generated, "store")] {
        let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
        assert_eq!(details, &json!({ "dependency": dependency }));
        assert!(answer.headers.contains_key("retry-after"));
    }

    let unready = until_readiness_is(&kms, 503).await;
    assert_eq!(unready.body["status"], "unhealthy");
    assert_eq!(checks_that(&unready.body, "fail"), ["store"]);
    assert_eq!(
        checks_that(&unready.body, "pass"),
        ["hsm", "kek", "ledger", "scheduler", "trust_store"]
    );
    // What only reads goes on.
    kms.get_operations("/health").await.ok();
    kms.get("/health").await.ok();
    let path = format!("/kms/v1/keys/{}", made["key_id"].as_str().expect("an id"));
    kms.get_scoped(&path).await.ok();

    lock.release();
    // Nothing of what was refused has happened, the counted uses included.
    assert_eq!(ledger_size(&kms).await, receipts);
    let listed = kms.get_scoped("/kms/v1/keys").await;
    assert_eq!(listed.ok()["keys"].as_array().map(Vec::len), Some(1));
    for _ in 1..DAILY_LIMIT {
        kms.post("/kms/v1/sign", &sign).await.ok();
    }
    let beyond = kms.post("/kms/v1/sign", &sign).await;
    beyond.refused(429, "RATE_LIMITED");
    let generated = kms.post_approved("/kms/v1/keys", &generate).await;
    assert_eq!(generated.status, 201, "{}", generated.text);

    let ready = until_readiness_is(&kms, 200).await;
    assert_eq!(checks_that(&ready.body, "pass"), CHECKS);
    kms.stop();
    let kept: i64 = Connection::open(folder.path().join("kms.db"))
        .and_then(|store| store.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0)))
        .expect("a number");
    // Three more signatures, a refusal and a key.
    assert_eq!(u64::try_from(kept), Ok(receipts + 5));
}
