//! Operations beside each other: what RSA takes from the light ones, and what a burst
//! of key generations does to whoever waits for a key.

use std::time::Duration;

use tokio::task::spawn_local;

use crate::load::connection::Request;
use crate::load::open::{Arrivals, run_arrivals};
use crate::load::{Workload, closed, connect};
use crate::report::{Line, QUANTILES};
use crate::requests::{KIBIBYTE, Key, TENANT, base64, generate};
use crate::servers::Server;
use crate::settings::Settings;

/// Connections of each operation.
const CONNECTIONS: usize = 32;

/// RSA keys at once, and how many a second on average.
const BURST: usize = 64;
const BURST_RATE: f64 = 100.0;

/// As many may wait in the service at once; the others wait here, which counts.
const BURST_CONNECTIONS: usize = 128;

/// How much longer than a line the bursts go on.
const BURST_LINES: f64 = 10.0 / 3.0;

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
        let kms = Server::kms(None, &[]).await;
        emit(bursts(&kms, settings.line.mul_f64(BURST_LINES)).await);
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

/// Bursts of RSA keys, in the open loop: whoever waits behind others is charged for it.
async fn bursts(kms: &Server, lasting: Duration) -> Line {
    let workload = Workload::new(vec![Request::post(
        "/kms/v1/keys",
        &generate(TENANT, "RSA-2048"),
    )]);
    let connections = connect(&kms.target, BURST_CONNECTIONS).await;
    let before = kms.process().cpu();
    let arrivals = Arrivals::bursts(BURST_RATE, BURST);
    let (_, outcome) = run_arrivals(connections, &workload, arrivals, lasting).await;
    let refused = match outcome.failed {
        0 => String::new(),
        failed => format!(", {failed} of {} refused", outcome.answered()),
    };
    Line {
        name: format!("generate RSA-2048 in bursts of {BURST}, {BURST_RATE} a second due{refused}"),
        through: "HTTP".to_owned(),
        at_once: BURST_CONNECTIONS,
        per_second: outcome.per_second(),
        latency_ms: Some(QUANTILES.map(|quantile| outcome.quantile_ms(quantile))),
        cpu_us: kms.process().cpu_seconds_since(&before) * 1e6 / outcome.answered().max(1) as f64,
        resident_mib: Some(kms.process().resident_mib()),
        ..Line::default()
    }
}
