//! What is measured of a store, large or small.

use std::time::{Duration, Instant};

use kms::domain::algorithm::KeyType;
use serde_json::{Value, json};

use super::FEW;
use super::fill::{FIRST_TENANT, Made};
use crate::dice::Dice;
use crate::load::connection::{Connection, Request};
use crate::load::{Workload, closed, connect};
use crate::matrix;
use crate::requests::{KIBIBYTE, Key, MESSAGE, base64, generate, scope_query, scoped};
use crate::servers::Server;

/// Connections at once, where it is about throughput.
const CONNECTIONS: usize = 32;

/// Keys of one page.
const PAGE: usize = 100;

/// A figure, and what it is of.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: String,
}

fn figure(name: &str, value: String) -> Figure {
    Figure {
        name: name.to_owned(),
        value,
    }
}

/// Signing, verifying and encrypting, each with all of these keys in turn; where there
/// are many, first what their first uses take.
pub(crate) async fn throughput(kms: &Server, keys: &[&Made], lasting: Duration) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, says, requests) in [
        ("sign Ed25519", "\"signature\"", sign(keys)),
        ("verify Ed25519", "\"valid\":true", verify(keys)),
        ("encrypt AES-256-GCM 1 KiB", "\"ciphertext\"", encrypt(keys)),
    ] {
        let number = requests.len();
        let connections = connect(&kms.target, CONNECTIONS).await;
        let workload = Workload::new(requests).saying(says);
        let connections = match number > FEW {
            true => {
                let (connections, first) = first_uses(kms, connections, &workload, number).await;
                figures.push(figure(&format!("{name}, the first use of each key"), first));
                connections
            }
            false => connections,
        };
        let (_, outcome, cpu_us) =
            matrix::peak(kms.process(), connections, &workload, lasting).await;
        outcome.insist(name);
        let value = format!(
            "{:.0}/s, p99 {:.1} ms, {cpu_us:.0} µs ({number} keys)",
            outcome.per_second(),
            outcome.quantile_ms(0.99),
        );
        figures.push(figure(name, value));
    }
    figures
}

/// Goes through all of the requests once, or a little more.
async fn first_uses(
    kms: &Server,
    mut connections: Vec<Connection>,
    workload: &Workload,
    number: usize,
) -> (Vec<Connection>, String) {
    let (started, before) = (Instant::now(), kms.process().cpu());
    let mut answered = 0;
    while answered < number {
        let outcome;
        (connections, outcome) =
            closed::run(connections, workload, Duration::from_millis(250)).await;
        outcome.insist("the first uses");
        answered += outcome.answered();
    }
    let cpu_us = kms.process().cpu_seconds_since(&before) * 1e6 / answered as f64;
    let per_second = answered as f64 / started.elapsed().as_secs_f64();
    (connections, format!("{per_second:.0}/s, {cpu_us:.0} µs"))
}

fn of_type<'a>(keys: &'a [&Made], key_type: KeyType) -> impl Iterator<Item = &'a Made> {
    let of_type = keys.iter().copied();
    of_type.filter(move |key| key.key_type == key_type)
}

fn sign(keys: &[&Made]) -> Vec<Request> {
    let requests = of_type(keys, KeyType::Ed25519).map(|key| {
        let fields = json!({ "key_id": key.key_id, "data": base64(&MESSAGE) });
        Request::post("/kms/v1/sign", &scoped(&key.tenant, fields))
    });
    shuffled(requests.collect())
}

fn verify(keys: &[&Made]) -> Vec<Request> {
    let requests = of_type(keys, KeyType::Ed25519).map(|key| {
        let fields = json!({
            "key_id": key.key_id, "data": base64(&MESSAGE), "signature": key.signature.get(),
        });
        Request::post("/kms/v1/verify", &scoped(&key.tenant, fields))
    });
    shuffled(requests.collect())
}

fn encrypt(keys: &[&Made]) -> Vec<Request> {
    let requests = of_type(keys, KeyType::Aes256).map(|key| {
        let fields = json!({ "key_id": key.key_id, "plaintext": base64(&KIBIBYTE) });
        Request::post("/kms/v1/encrypt", &scoped(&key.tenant, fields))
    });
    shuffled(requests.collect())
}

/// In an order that is no order (Fisher and Yates), the same in every run.
fn shuffled<T>(mut all: Vec<T>) -> Vec<T> {
    let mut dice = Dice::new(0x5417);
    for end in (1..all.len()).rev() {
        all.swap(end, dice.below(end + 1));
    }
    all
}

/// The first page of a tenant's keys, and the last.
pub(crate) async fn pages(kms: &Server, lasting: Duration) -> Vec<Figure> {
    let first = format!("/kms/v1/keys?{}&limit={PAGE}", scope_query(FIRST_TENANT));
    let (last, number) = last_page(kms, &first).await;
    let of_first = latency(kms, &Request::get(&first), lasting).await;
    let of_last = latency(kms, &Request::get(&last), lasting).await;
    vec![
        figure("list keys, the first page of 100", of_first),
        figure(
            "list keys, the last page",
            format!("{of_last} (page {number})"),
        ),
    ]
}

/// The path of the last page, and how many there are.
async fn last_page(kms: &Server, first: &str) -> (String, usize) {
    let (mut path, mut number) = (first.to_owned(), 1);
    loop {
        let page = kms.get(&path).await;
        let Some(cursor) = page["next_cursor"].as_str() else {
            return (path, number);
        };
        path = format!("{first}&cursor={cursor}");
        number += 1;
    }
}

/// Of one connection, each request after the other.
async fn latency(kms: &Server, request: &Request, lasting: Duration) -> String {
    let connections = connect(&kms.target, 1).await;
    let workload = Workload::new(vec![request.clone()]);
    let (_, outcome) = closed::run(connections, &workload, lasting / 4).await;
    outcome.insist("one connection");
    let (p50, p99) = (outcome.quantile_ms(0.50), outcome.quantile_ms(0.99));
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms")
}

/// A line of so many rotations: what the first of them take and the last, and what is
/// asked of the line before and after.
pub(crate) async fn rotations(kms: &Server, number: usize, lasting: Duration) -> Vec<Figure> {
    const ALIAS: &str = "alias/long-line";
    let mut new = generate(FIRST_TENANT, "Ed25519");
    new["key_alias"] = json!("long-line");
    kms.post("/kms/v1/keys", &new).await;
    let fields = json!({ "key_id": ALIAS, "data": base64(&MESSAGE) });
    let sign = Request::post("/kms/v1/sign", &scoped(FIRST_TENANT, fields));
    let before = latency(kms, &sign, lasting).await;
    let took = rotate(kms, ALIAS, number).await;
    let tenth = (number / 10).max(1);
    let first = format!(
        "/kms/v1/keys/{ALIAS}/versions?{}&limit={PAGE}",
        scope_query(FIRST_TENANT)
    );
    let (last, pages) = last_page(kms, &first).await;
    let after = latency(kms, &sign, lasting).await;
    let of_first = latency(kms, &Request::get(&first), lasting).await;
    let of_last = latency(kms, &Request::get(&last), lasting).await;
    vec![
        figure("sign by alias, never rotated", before),
        figure(&format!("sign by alias, after {number} rotations"), after),
        figure("rotate, the first tenth of them", median(&took[..tenth])),
        figure(
            "rotate, the last tenth",
            median(&took[took.len() - tenth..]),
        ),
        figure("versions of the line, the first page", of_first),
        figure(
            "versions of the line, the last page",
            format!("{of_last} (page {pages})"),
        ),
    ]
}

async fn rotate(kms: &Server, alias: &str, number: usize) -> Vec<Duration> {
    let fields: Value = json!({ "approval_token": "approved for the benchmark" });
    let path = format!("/kms/v1/keys/{alias}/rotate");
    let request = Request::post(&path, &scoped(FIRST_TENANT, fields));
    let mut connection = Connection::open(&kms.target).await;
    let mut took = Vec::with_capacity(number);
    for _ in 0..number {
        let sent = Instant::now();
        let status = connection.exchange(&request).await;
        took.push(sent.elapsed());
        let said = String::from_utf8_lossy(connection.body());
        assert_eq!(status, 200, "{said}");
    }
    took
}

fn median(took: &[Duration]) -> String {
    let mut took = took.to_vec();
    took.sort_unstable();
    let middle = took.get(took.len() / 2).copied().unwrap_or_default();
    format!("p50 {:.2} ms", middle.as_secs_f64() * 1e3)
}

/// Keys of a fresh service, in the form of the others.
pub(crate) async fn few_keys(kms: &Server, number: usize) -> Vec<Made> {
    let mut made = Vec::new();
    for key_type in [KeyType::Ed25519, KeyType::Aes256] {
        for _ in 0..number {
            made.push(Made::through(kms, key_type).await);
        }
    }
    made
}

impl Made {
    async fn through(kms: &Server, key_type: KeyType) -> Self {
        let key = Key::make(kms, FIRST_TENANT, key_type.as_str()).await;
        let made = Self {
            tenant: key.tenant.clone(),
            key_id: key.id.clone(),
            key_type,
            signature: std::sync::OnceLock::new(),
        };
        if key_type == KeyType::Ed25519 {
            let signed = kms.post("/kms/v1/sign", &key.sign("Ed25519")).await;
            let signature = signed["signature"].as_str().expect("a signature");
            let _ = made.signature.set(signature.to_owned());
        }
        made
    }
}
