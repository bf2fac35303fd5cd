//! The whole HTTP path: every operation from 1, 8, 32 and 128 connections, with and
//! without TLS, each beside a bare handler with bodies of the same size.

use std::collections::HashMap;
use std::time::Duration;

use crate::load::connection::{Connection, Request};
use crate::load::{Outcome, Workload, closed, connect, open};
use crate::operations::{Operation, operations};
use crate::pki::Pki;
use crate::primitives::{Primitive, Primitives};
use crate::process::Process;
use crate::report::{Line, QUANTILES};
use crate::servers::Server;
use crate::settings::Settings;

/// Connections at once.
const CONNECTIONS: [usize; 4] = [1, 8, 32, 128];

/// The number that gets the whole time of a line; the others get half of it, and the
/// bare handler half of theirs.
pub(crate) const MAIN: usize = 32;

/// What the path is called without and with TLS.
pub(crate) const PLAIN: &str = "HTTP";
pub(crate) const MUTUAL_TLS: &str = "mTLS";

/// Before the name of what the bare handler does.
pub(crate) const BARE: &str = "bare handler";

/// One way to the service, and to a bare handler.
struct Way {
    through: &'static str,
    bare: Server,
    kms: Server,
    operations: Vec<Operation>,
}

impl Way {
    async fn open(settings: &Settings, through: &'static str, pki: Option<&Pki>) -> Self {
        let kms = Server::kms(pki, &[]).await;
        let all = operations(&kms).await.into_iter();
        Self {
            through,
            bare: Server::bare(pki).await,
            operations: all.filter(|one| settings.wants(one.name)).collect(),
            kms,
        }
    }
}

/// Every line; each is handed over as soon as it is measured. An operation without TLS, the
/// same with it, and the bare handler of either come one after the other, since a machine
/// that is shared is faster in one minute than in another. The answer says what is
/// missing, and why.
pub(crate) async fn run(
    settings: &Settings,
    pki: &Pki,
    primitives: &Primitives,
    emit: &mut impl FnMut(Line),
) -> Option<&'static str> {
    let plain = Way::open(settings, PLAIN, None).await;
    let tls = Way::open(settings, MUTUAL_TLS, Some(pki)).await;
    for number in CONNECTIONS {
        let lasting = match number {
            MAIN => settings.line,
            _ => settings.line / 2,
        };
        let mut floors = HashMap::new();
        for pair in plain.operations.iter().zip(&tls.operations) {
            for (way, operation) in [(&plain, pair.0), (&tls, pair.1)] {
                let class = operation.bare.class;
                let floor = match floors.get(&(way.through, class)) {
                    Some(known) => *known,
                    None => {
                        let line = bare_line(way, operation, number, lasting / 2).await;
                        let cpu_us = line.cpu_us;
                        floors.insert((way.through, class), cpu_us);
                        emit(line);
                        cpu_us
                    }
                };
                let measured = measure(&way.kms, &operation.request, number, lasting);
                let (mut line, answers) = measured.await;
                let check = &operation.check;
                check.hold(operation.name, &way.kms, &answers).await;
                line.name = operation.name.to_owned();
                line.through = way.through.to_owned();
                line.limit_us = Some(floor + least(operation, primitives));
                emit(line);
            }
        }
    }
    let is_batch = |operation: &Operation| operation.receipts > 1;
    let has_batches = settings.only.is_some() || plain.operations.iter().any(is_batch);
    (!has_batches).then_some("The service answers 404 to batches, so there are no lines of them.\n")
}

async fn bare_line(way: &Way, operation: &Operation, number: usize, lasting: Duration) -> Line {
    let measured = measure(&way.bare, &operation.bare.request, number, lasting);
    let (mut line, _) = measured.await;
    let (asked, answered) = operation.bare.class;
    line.name = format!("{BARE}, {asked} B there, {answered} B back");
    line.through = way.through.to_owned();
    line
}

/// Microseconds of what no handler can save: the operation itself, and a signature for
/// each receipt.
pub(crate) fn least(operation: &Operation, primitives: &Primitives) -> f64 {
    let own = operation.primitive.map_or(0.0, |(primitive, times)| {
        primitives.of(primitive) * times as f64
    });
    own + primitives.of(Primitive::SignEd25519) * operation.receipts as f64
}

/// A line without its names, and some of the answers: half of the time the closed
/// loop, half of it the open loop at half the rate that the first came to.
pub(crate) async fn measure(
    server: &Server,
    request: &Request,
    number: usize,
    lasting: Duration,
) -> (Line, Vec<Vec<u8>>) {
    let connections = connect(&server.target, number).await;
    let workload = Workload::new(vec![request.clone()]);
    let process = server.process();
    let before = server.writes().await;
    let (connections, peak, cpu_us) = peak(process, connections, &workload, lasting / 2).await;
    let writes = server.writes().await.since(before);
    peak.insist("closed loop");
    let rate = peak.per_second() / 2.0;
    let (_, steady) = open::run(connections, &workload, rate, lasting / 2).await;
    steady.insist("open loop");
    let line = Line {
        at_once: number,
        per_second: peak.per_second(),
        latency_ms: Some(QUANTILES.map(|quantile| steady.quantile_ms(quantile))),
        cpu_us,
        resident_mib: Some(process.resident_mib()),
        writes,
        ..Line::default()
    };
    let mut answers = peak.samples;
    answers.extend(steady.samples);
    answers.truncate(16);
    (line, answers)
}

/// The closed loop, with the CPU that an answer takes in microseconds.
pub(crate) async fn peak(
    process: Process,
    connections: Vec<Connection>,
    workload: &Workload,
    lasting: Duration,
) -> (Vec<Connection>, Outcome, f64) {
    // Caches, branch predictors and the allocator get a little time of their own.
    let (connections, _) = closed::run(connections, workload, lasting / 10).await;
    let before = process.cpu();
    let (connections, outcome) = closed::run(connections, workload, lasting).await;
    let cpu_us = process.cpu_seconds_since(&before) * 1e6 / outcome.answered().max(1) as f64;
    (connections, outcome, cpu_us)
}
