//! The load generator: it shares the cores with the server, so it runs on one thread
//! and does as little as it can for a request.

pub(crate) mod closed;
pub(crate) mod connection;
pub(crate) mod open;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use memchr::memmem;

use self::connection::{Connection, Request, Target};

/// What to send: these requests, one after the other and from the start again.
#[derive(Clone)]
pub(crate) struct Workload {
    requests: Rc<[Request]>,
    next: Rc<Cell<usize>>,
    says: Option<&'static [u8]>,
}

/// What an answer counts as that is a success and not what it has to be.
const WRONG_ANSWER: u16 = 0;

impl Workload {
    pub(crate) fn new(requests: Vec<Request>) -> Self {
        assert!(!requests.is_empty(), "nothing to send");
        Self {
            requests: requests.into(),
            next: Rc::default(),
            says: None,
        }
    }

    /// The same, where every answer has to have this in it.
    pub(crate) fn saying(self, says: &'static str) -> Self {
        Self {
            says: Some(says.as_bytes()),
            ..self
        }
    }

    /// The status of an answer, or that it is wrong.
    fn judge(&self, status: u16, body: &[u8]) -> u16 {
        match self.says {
            Some(says) if memmem::find(body, says).is_none() && status < 300 => WRONG_ANSWER,
            _ => status,
        }
    }

    fn next(&self) -> Request {
        let place = self.next.get();
        self.next.set((place + 1) % self.requests.len());
        self.requests[place].clone()
    }
}

/// So many kept-alive connections.
pub(crate) async fn connect(target: &Target, number: usize) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(number);
    for _ in 0..number {
        connections.push(Connection::open(target).await);
    }
    connections
}

/// What a load came to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Of each request that was answered, in nanoseconds.
    latencies: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Answers that were no success.
    pub(crate) failed: usize,
    /// The body of the first of them.
    pub(crate) failure: Option<String>,
    /// The last answer of each connection.
    pub(crate) samples: Vec<Vec<u8>>,
}

impl Outcome {
    fn record(&mut self, latency: Duration, status: u16, body: &[u8]) {
        self.latencies
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if !(200..300).contains(&status) {
            self.failed += 1;
            if self.failure.is_none() {
                self.failure = Some(format!("{status} {}", String::from_utf8_lossy(body)));
            }
        }
    }

    /// Takes in what another one came to.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.took = self.took.max(other.took);
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
        self.samples.extend(other.samples);
    }

    /// Makes the quantiles ready to be asked for.
    pub(crate) fn sorted(mut self) -> Self {
        self.latencies.sort_unstable();
        self
    }

    /// How many were answered.
    pub(crate) fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// Answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// The latency that this part of all requests did not exceed, in milliseconds.
    /// Of a sorted outcome only.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * quantile).ceil() as usize;
        self.latencies
            .get(place)
            .map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e6)
    }

    /// Ends the run where anything failed: figures of refusals say nothing.
    pub(crate) fn insist(&self, name: &str) {
        if let Some(failure) = &self.failure {
            panic!(
                "{name}: {} of {} failed: {failure}",
                self.failed,
                self.answered()
            );
        }
    }
}
