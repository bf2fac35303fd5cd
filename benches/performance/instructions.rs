//! How many instructions an operation takes, through every layer but the connection:
//! counted by Callgrind and held to bounds that are checked in. A count does not depend
//! on how busy the machine is, so this can fail where a time could not.
//!
//! Each operation runs twice under Callgrind, on copies of one prepared data folder, a few
//! times and many times; the difference is what the operation takes, with the start
//! taken out and the store's thread counted in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use kms::domain::algorithm::KeyType;
use kms::domain::rate::{Rate, RateGroup, RatePolicy};
use kms::http::{HttpLimits, HttpParts, HttpState, api_router};
use kms::telemetry::log::{self, LogFormat, ServiceIdentity};
use kms::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tracing_subscriber::filter::LevelFilter;

use crate::in_process::{InProcess, scope};
use crate::requests::{BATCH, KIBIBYTE, MESSAGE, TENANT, base64};

/// The argument with which this program starts itself under Callgrind.
pub(crate) const COUNTED: &str = "--counted";

/// What each operation may take, with the reasons for its changes.
const BOUNDS: &str = include_str!("../instructions.txt");

/// How often an operation runs.
const FEW: u64 = 10;
const MANY: u64 = 60;

/// Below this part of its bound a count says that the bound is out of date.
const WELL_BELOW: f64 = 0.85;

/// One operation: its name, path and body.
type Case = (&'static str, &'static str, Value);

/// Counts all, prints them, and answers whether each is within its bound.
pub(crate) fn run(say: fn(&str)) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let prepared = folder.path().join("prepared");
    fs::create_dir(&prepared).expect("a folder");
    let names = runtime().block_on(prepare(&prepared));
    say("| operation | instructions | bound | of it |\n| --- | --- | --- | --- |\n");
    let mut are_within = true;
    for name in names {
        let count = count(folder.path(), name);
        let bound = bound(name);
        let part = count as f64 / bound as f64;
        say(&format!("| {name} | {count} | {bound} | {part:.2} |\n"));
        if count > bound {
            are_within = false;
            say(&format!(
                "{name} takes more instructions than its bound. If it has to, raise the bound \
                 in benches/instructions.txt and say why there.\n"
            ));
        } else if part < WELL_BELOW {
            say(&format!(
                "{name} is well below its bound: lower it in benches/instructions.txt.\n"
            ));
        }
    }
    are_within
}

/// The bound of one operation.
fn bound(name: &str) -> u64 {
    let lines = BOUNDS.lines().filter(|line| !line.starts_with('#'));
    let bound = lines
        .filter_map(|line| line.rsplit_once(':'))
        .find(|(operation, _)| *operation == name)
        .and_then(|(_, number)| number.trim().replace('_', "").parse().ok());
    bound.unwrap_or_else(|| panic!("{name} has no bound in benches/instructions.txt"))
}

/// Instructions of one operation, every thread's.
fn count(folder: &Path, name: &str) -> u64 {
    let [few, many] = [FEW, MANY].map(|times| {
        let copy = folder.join(format!("{times}"));
        fs::create_dir(&copy).expect("a folder");
        for file in fs::read_dir(folder.join("prepared")).expect("a folder") {
            let file = file.expect("a file");
            fs::copy(file.path(), copy.join(file.file_name())).expect("copied");
        }
        let counted = counted(&copy, name, times);
        fs::remove_dir_all(&copy).expect("removed");
        counted
    });
    many.saturating_sub(few) / (MANY - FEW)
}

/// Instructions of this program when it does one operation so often.
fn counted(data_dir: &Path, name: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .arg(COUNTED)
        .arg(data_dir)
        .args([name, &times.to_string()])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    said.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name}: {said}"))
}

/// Does one operation so often, on this thread.
pub(crate) fn do_counted(data_dir: &str, name: &str, times: &str) {
    let times: u64 = times.parse().expect("a number");
    let service = ServiceIdentity {
        version: "0",
        environment: "production".to_owned(),
        host: "localhost".to_owned(),
    };
    let _log = log::start(LogFormat::Json, LevelFilter::INFO, service);
    let data_dir = PathBuf::from(data_dir);
    let case: Value = fs::read(case_file(&data_dir, name))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .expect("a case");
    let path = case["path"].as_str().expect("a path").to_owned();
    let body = case["body"].to_string();
    runtime().block_on(async {
        let on = InProcess::on_software(&data_dir).await;
        let router = router(&on);
        for _ in 0..times {
            let answer = ask(&router, &path, body.clone()).await;
            assert!(answer.is_some(), "{name} was refused");
        }
        on.close().await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn case_file(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(format!("{}.json", name.replace(' ', "-")))
}

fn router(on: &InProcess) -> Router {
    let rate = Rate {
        requests_per_second: 1_000_000.try_into().expect("not zero"),
        burst: 1_000_000.try_into().expect("not zero"),
    };
    let limits = HttpLimits {
        max_body_bytes: 1024 * 1024,
        request_timeout: std::time::Duration::from_secs(600),
        max_in_flight: 8,
        rates: RatePolicy {
            default: rate,
            groups: [None; RateGroup::COUNT],
        },
        cors_origins: vec!["*".to_owned()],
    };
    let metrics = Arc::new(Metrics::new("benchmark").expect("metrics"));
    let service = Arc::clone(&on.service);
    api_router(HttpState::from(HttpParts {
        service,
        metrics,
        limits,
        has_docs: false,
    }))
}

/// An answer's body, where it is a success. `GET` where there is no body to send.
async fn ask(router: &Router, path: &str, body: String) -> Option<Value> {
    let request = match body.as_str() {
        "null" => Request::get(path).body(Body::empty()),
        _ => Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(body)),
    };
    let answer = router
        .clone()
        .oneshot(request.expect("a request"))
        .await
        .unwrap_or_else(|never| match never {});
    let is_success = answer.status().is_success();
    let body = answer.into_body().collect().await.expect("a body");
    is_success.then(|| serde_json::from_slice(&body.to_bytes()).expect("JSON"))
}

/// Lays out a data folder with keys, and what each operation asks for.
async fn prepare(data_dir: &Path) -> Vec<&'static str> {
    let on = InProcess::on_software(data_dir).await;
    let router = router(&on);
    let mut cases = Vec::new();
    for (key_type, algorithm, names) in [
        (
            KeyType::Ed25519,
            "Ed25519",
            ["sign Ed25519", "verify Ed25519"],
        ),
        (
            KeyType::Rsa2048,
            "RSA-PSS-SHA256",
            ["sign RSA-PSS", "verify RSA-PSS"],
        ),
    ] {
        let key = on.make_key(&scope(TENANT), key_type).await;
        let mut body = body(key.key_id.to_string(), algorithm);
        body["data"] = json!(base64(&MESSAGE));
        let signed = ask(&router, "/kms/v1/sign", body.to_string()).await;
        cases.push((names[0], "/kms/v1/sign", body.clone()));
        body["signature"] = signed.expect("signed")["signature"].clone();
        cases.push((names[1], "/kms/v1/verify", body));
        if key_type == KeyType::Ed25519 {
            cases.extend(cases_of_a_pair(key.key_id.to_string()));
        }
    }
    let key = on.make_key(&scope(TENANT), KeyType::Aes256).await;
    for (algorithm, names) in [
        (
            "AES-256-GCM",
            ["encrypt AES-256-GCM", "decrypt AES-256-GCM"],
        ),
        (
            "ChaCha20-Poly1305",
            ["encrypt ChaCha20-Poly1305", "decrypt ChaCha20-Poly1305"],
        ),
    ] {
        let mut sealing = body(key.key_id.to_string(), algorithm);
        let mut opening = sealing.clone();
        sealing["plaintext"] = json!(base64(&KIBIBYTE));
        let sealed = ask(&router, "/kms/v1/encrypt", sealing.to_string()).await;
        let sealed = sealed.expect("sealed");
        cases.push((names[0], "/kms/v1/encrypt", sealing));
        for field in ["ciphertext", "iv"] {
            opening[field] = sealed[field].clone();
        }
        cases.push((names[1], "/kms/v1/decrypt", opening));
    }
    on.close().await;
    for (name, path, body) in &cases {
        let case = json!({ "path": path, "body": body });
        fs::write(case_file(data_dir, name), case.to_string()).expect("written");
    }
    cases.into_iter().map(|(name, ..)| name).collect()
}

fn cases_of_a_pair(key_id: String) -> [Case; 3] {
    let path = format!("/kms/v1/keys/{key_id}?tenant_id={TENANT}&environment=dev&plane=tenant");
    let mut batch = body(key_id, "Ed25519");
    let item = json!({ "data": base64(&MESSAGE) });
    batch["items"] = json!(vec![item; BATCH]);
    let generate = json!({
        "tenant_id": TENANT,
        "environment": "dev",
        "plane": "tenant",
        "key_type": "Ed25519",
        "key_usage": ["sign", "verify"],
    });
    [
        ("get key", String::leak(path), Value::Null),
        ("sign 100 Ed25519", "/kms/v1/sign/batch", batch),
        ("generate Ed25519", "/kms/v1/keys", generate),
    ]
}

fn body(key_id: String, algorithm: &str) -> Value {
    json!({
        "tenant_id": TENANT,
        "environment": "dev",
        "plane": "tenant",
        "key_id": key_id,
        "algorithm": algorithm,
    })
}
