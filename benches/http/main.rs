//! The whole HTTP path under load, beside a bare axum handler in the same run.
//!
//! `cargo bench --bench http` starts the service (durable receipts, every check,
//! its usual log to nowhere) and a server that does nothing, each as a process of
//! its own, and sends both the same load from 32 kept-alive connections. Absolute
//! figures are the machine's; the ratios are what to compare.
//!
//! `KMS_BENCH_SECONDS` sets the time for each line (default 5).

mod bare;
mod load;
mod server;

use std::io::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::load::{Measured, Request, measure};
use self::server::Server;

/// Requests at once.
const CONNECTIONS: usize = 32;

/// The argument with which this program starts itself as the bare server.
const BARE: &str = "--bare-server";

fn main() {
    if std::env::args().any(|argument| argument == BARE) {
        return bare::serve();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let seconds = option_env_seconds();
    let mut out = io::stdout();
    let header = "| operation | requests/s | of bare | p50 ms | p99 ms | server CPU µs | RSS MiB \
                  | receipts a write | ms a write |";
    let line = "| --- ".repeat(9);
    writeln!(out, "{header}\n{line}|").expect("written");

    let bare = Server::bare();
    let body = json!({ "data": base64(&[7u8; 180]), "algorithm": "Ed25519" });
    let request = Request::post("/echo", &body);
    let floor = measure(&bare, &request, CONNECTIONS, seconds).await;
    print_line(&mut out, "bare axum handler", &floor, &floor, (0.0, 0.0));
    drop(bare);

    let kms = Server::kms();
    for (name, request) in requests(&kms).await {
        let before = kms.writes().await;
        let measured = measure(&kms, &request, CONNECTIONS, seconds).await;
        let writes = kms.writes().await.since(before);
        print_line(&mut out, name, &measured, &floor, writes);
    }
}

fn print_line(
    out: &mut impl io::Write,
    name: &str,
    measured: &Measured,
    floor: &Measured,
    (receipts, milliseconds): (f64, f64),
) {
    writeln!(
        out,
        "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {} | {receipts:.1} | {milliseconds:.2} |",
        measured.per_second(),
        measured.per_second() / floor.per_second(),
        measured.quantile_ms(0.50),
        measured.quantile_ms(0.99),
        measured.cpu_microseconds(),
        measured.resident_mib,
    )
    .expect("written");
    assert_eq!(measured.failed, 0, "{name}: requests failed");
}

/// Every operation, with keys made for it.
async fn requests(kms: &Server) -> Vec<(&'static str, Request)> {
    let rsa = generate(kms, "RSA-2048").await;
    let ed25519 = generate(kms, "Ed25519").await;
    let aes = generate(kms, "AES-256").await;
    let data = base64(&[7u8; 100]);
    let kibibyte = base64(&[7u8; 1024]);
    let mut requests = Vec::new();
    for (sign, verify, key, algorithm) in [
        ("sign Ed25519", "verify Ed25519", &ed25519, "Ed25519"),
        ("sign RSA-PSS", "verify RSA-PSS", &rsa, "RSA-PSS-SHA256"),
        (
            "sign RSA-PKCS1v15",
            "verify RSA-PKCS1v15",
            &rsa,
            "RSA-PKCS1v15-SHA256",
        ),
    ] {
        let body = scoped(json!({ "key_id": key, "data": data, "algorithm": algorithm }));
        let signed = kms.post("/kms/v1/sign", &body).await;
        requests.push((sign, Request::post("/kms/v1/sign", &body)));
        let mut body = body;
        body["signature"] = signed["signature"].clone();
        requests.push((verify, Request::post("/kms/v1/verify", &body)));
    }
    for (encrypt, decrypt, algorithm) in [
        (
            "encrypt AES-256-GCM 1 KiB",
            "decrypt AES-256-GCM 1 KiB",
            "AES-256-GCM",
        ),
        (
            "encrypt ChaCha20-Poly1305 1 KiB",
            "decrypt ChaCha20-Poly1305 1 KiB",
            "ChaCha20-Poly1305",
        ),
    ] {
        let key = json!({ "key_id": aes, "algorithm": algorithm });
        let mut body = scoped(key.clone());
        body["plaintext"] = json!(kibibyte);
        let sealed = kms.post("/kms/v1/encrypt", &body).await;
        requests.push((encrypt, Request::post("/kms/v1/encrypt", &body)));
        let mut body = scoped(key);
        body["ciphertext"] = sealed["ciphertext"].clone();
        body["iv"] = sealed["iv"].clone();
        requests.push((decrypt, Request::post("/kms/v1/decrypt", &body)));
    }
    let scope = "tenant_id=bench&environment=dev&plane=tenant";
    let path = format!("/kms/v1/keys/{ed25519}?{scope}");
    requests.push(("get key", Request::get(&path)));
    let made = kms.post("/kms/v1/keys", &key_request("AES-256")).await;
    let receipt_id = made["receipt_id"].as_str().expect("an id");
    let path = format!("/kms/v1/receipts/{receipt_id}?{scope}");
    requests.push(("get receipt with its proof", Request::get(&path)));
    requests.push(("get checkpoint", Request::get("/kms/v1/ledger/checkpoint")));
    for (name, key_type) in [
        ("generate Ed25519", "Ed25519"),
        ("generate AES-256", "AES-256"),
        ("generate RSA-2048", "RSA-2048"),
    ] {
        let request = Request::post("/kms/v1/keys", &key_request(key_type));
        requests.push((name, request));
    }
    requests
}

async fn generate(kms: &Server, key_type: &str) -> String {
    let made = kms.post("/kms/v1/keys", &key_request(key_type)).await;
    made["key_id"].as_str().expect("a key").to_owned()
}

fn key_request(key_type: &str) -> Value {
    let usage = match key_type {
        "AES-256" => json!(["encrypt", "decrypt"]),
        _ => json!(["sign", "verify"]),
    };
    scoped(json!({
        "key_type": key_type,
        "key_usage": usage,
        "access_policy": { "max_usage_per_day": 1_000_000_000 },
        "approval_token": "approved for the benchmark",
    }))
}

fn scoped(mut fields: Value) -> Value {
    fields["tenant_id"] = json!("bench");
    fields["environment"] = json!("dev");
    fields["plane"] = json!("tenant");
    fields
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark is no part of the service and has no configuration"
)]
fn option_env_seconds() -> Duration {
    let seconds = std::env::var("KMS_BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}
