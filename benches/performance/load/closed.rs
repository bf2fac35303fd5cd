//! The closed loop: every connection sends its next request when it has read the
//! answer to the last. It finds the peak; its latencies hide the queue in front of it.

use std::time::{Duration, Instant};

use tokio::task::spawn_local;

use super::connection::Connection;
use super::{Outcome, Workload};

/// Loads the server for that long, and hands the connections back.
pub(crate) async fn run(
    connections: Vec<Connection>,
    workload: &Workload,
    lasting: Duration,
) -> (Vec<Connection>, Outcome) {
    let started = Instant::now();
    let until = started + lasting;
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let workload = workload.clone();
            spawn_local(async move {
                let mut outcome = Outcome::default();
                let mut sent = Instant::now();
                while sent < until {
                    let status = connection.exchange(&workload.next()).await;
                    let status = workload.judge(status, connection.body());
                    let answered = Instant::now();
                    outcome.record(answered - sent, status, connection.body());
                    sent = answered;
                }
                outcome.took = sent - started;
                outcome.samples.push(connection.body().to_vec());
                (connection, outcome)
            })
        })
        .collect();
    let (mut connections, mut all) = (Vec::new(), Outcome::default());
    for task in tasks {
        let (connection, outcome) = task.await.expect("no panic");
        connections.push(connection);
        all.absorb(outcome);
    }
    (connections, all.sorted())
}
