//! Operations beside each other: what RSA takes from the light ones, and what a burst
//! of key generations does to whoever waits for a key.

use std::time::{Duration, Instant};

use tokio::task::spawn_local;

use crate::load::connection::Request;
use crate::load::{Workload, closed, connect};
use crate::report::{Line, QUANTILES};
use crate::requests::{KIBIBYTE, Key, TENANT, base64, generate};
use crate::servers::Server;
use crate::settings::Settings;

/// Connections of each operation.
const CONNECTIONS: usize = 32;

/// RSA keys that are asked for at once.
const BURST: usize = 64;

/// How many bursts there are, each when the stock is full again.
const BURSTS: usize = 3;

/// Every line of them.
pub(crate) async fn run(settings: &Settings, emit: &mut impl FnMut(Line)) {
    if settings.wants("beside") {
        let kms = Server::kms(None, &[]).await;
        let requests = of_service(&kms).await;
        beside(&kms, &requests, "HTTP", settings.line, emit).await;
        drop(kms);
        let bare = Server::bare(None).await;
        beside(
            &bare,
            &of_bare(&requests),
            "bare handler that works",
            settings.line,
            emit,
        )
        .await;
    }
    if settings.wants("generate RSA-2048 in bursts") {
        for stock in [0, BURST] {
            let setting = ("KMS__HSM__SOFTWARE__RSA_STOCK", stock.to_string());
            let kms = Server::kms(None, &[setting]).await;
            emit(bursts(&kms, stock).await);
        }
    }
}

/// A light operation, another one, and the heavy one.
struct Requests {
    ed25519: Request,
    aes: Request,
    rsa: Request,
    bodies: [serde_json::Value; 3],
}

async fn of_service(kms: &Server) -> Requests {
    let ed25519 = Key::make(kms, TENANT, "Ed25519").await.sign("Ed25519");
    let aes = Key::make(kms, TENANT, "AES-256").await;
    let plain = serde_json::json!({ "plaintext": base64(&KIBIBYTE) });
    let aes = aes.one("AES-256-GCM", plain);
    let rsa = Key::make(kms, TENANT, "RSA-2048")
        .await
        .sign("RSA-PSS-SHA256");
    Requests {
        ed25519: Request::post("/kms/v1/sign", &ed25519),
        aes: Request::post("/kms/v1/encrypt", &aes),
        rsa: Request::post("/kms/v1/sign", &rsa),
        bodies: [ed25519, aes, rsa],
    }
}

fn of_bare(requests: &Requests) -> Requests {
    let [ed25519, aes, rsa] = &requests.bodies;
    Requests {
        ed25519: Request::post("/works/ed25519", ed25519),
        aes: Request::post("/works/aes", aes),
        rsa: Request::post("/works/rsa", rsa),
        bodies: requests.bodies.clone(),
    }
}

/// All three at once, each from its connections in a closed loop; then the light ones
/// without RSA.
async fn beside(
    server: &Server,
    requests: &Requests,
    through: &str,
    lasting: Duration,
    emit: &mut impl FnMut(Line),
) {
    let light = [
        ("sign Ed25519", &requests.ed25519),
        ("encrypt AES-256-GCM 1 KiB", &requests.aes),
    ];
    let heavy = [("sign RSA-PSS", &requests.rsa)];
    for (all, what) in [
        (
            [light.as_slice(), &heavy].concat(),
            "beside RSA and the light ones",
        ),
        (light.to_vec(), "beside the light ones alone"),
    ] {
        let before = server.process().cpu();
        let loads = all.iter().map(|(_, request)| {
            let workload = Workload::new(vec![Request::clone(request)]);
            let target = server.target.clone();
            spawn_local(async move {
                let connections = connect(&target, CONNECTIONS).await;
                closed::run(connections, &workload, lasting).await.1
            })
        });
        let loads: Vec<_> = loads.collect();
        let mut outcomes = Vec::new();
        for load in loads {
            outcomes.push(load.await.expect("no panic"));
        }
        let answered: usize = outcomes.iter().map(|outcome| outcome.answered()).sum();
        let cpu_us = server.process().cpu_seconds_since(&before) * 1e6 / answered as f64;
        for ((name, _), outcome) in all.iter().zip(&outcomes) {
            outcome.insist(name);
            emit(Line {
                name: format!("{name}, {what}"),
                through: through.to_owned(),
                at_once: CONNECTIONS,
                per_second: outcome.per_second(),
                latency_ms: Some(QUANTILES.map(|quantile| outcome.quantile_ms(quantile))),
                cpu_us,
                resident_mib: Some(server.process().resident_mib()),
                ..Line::default()
            });
        }
    }
}

/// Bursts of RSA keys, all at once from as many connections.
async fn bursts(kms: &Server, stock: usize) -> Line {
    let request = Request::post("/kms/v1/keys", &generate(TENANT, "RSA-2048"));
    let mut latencies = Vec::new();
    let mut cpu_seconds = 0.0;
    let mut lasted = Duration::ZERO;
    for _ in 0..BURSTS {
        while kms.stock().await < stock {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let connections = connect(&kms.target, BURST).await;
        let (before, started) = (kms.process().cpu(), Instant::now());
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                let request = request.clone();
                spawn_local(async move {
                    let status = connection.exchange(&request).await;
                    assert_eq!(status, 201, "a key was not made");
                    started.elapsed().as_secs_f64() * 1e3
                })
            })
            .collect();
        for task in tasks {
            latencies.push(task.await.expect("no panic"));
        }
        lasted += started.elapsed();
        cpu_seconds += kms.process().cpu_seconds_since(&before);
    }
    latencies.sort_by(f64::total_cmp);
    let last = latencies.len() - 1;
    let quantile = |quantile: f64| latencies[(quantile * last as f64).round() as usize];
    Line {
        name: format!("generate RSA-2048 in bursts of {BURST}, {stock} in stock"),
        through: "HTTP".to_owned(),
        at_once: BURST,
        per_second: latencies.len() as f64 / lasted.as_secs_f64(),
        latency_ms: Some(QUANTILES.map(quantile)),
        cpu_us: cpu_seconds * 1e6 / latencies.len() as f64,
        resident_mib: Some(kms.process().resident_mib()),
        ..Line::default()
    }
}
