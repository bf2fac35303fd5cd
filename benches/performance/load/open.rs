//! The open loop: requests are due at times that no answer changes, and latency
//! counts from then. So a server that stalls is charged for everyone who waits.
//!
//! Requests are due as if many callers sent them who know nothing of each other: the
//! time between two is exponentially distributed, from a generator with a fixed seed.
//! Whichever connection is free takes the next that is due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::connection::Connection;
use super::{Outcome, Workload};
use crate::dice::Dice;

/// Loads the server at this rate for that long, answers what came of it when the last
/// request is answered, and hands the connections back.
pub(crate) async fn run(
    connections: Vec<Connection>,
    workload: &Workload,
    rate: f64,
    lasting: Duration,
) -> (Vec<Connection>, Outcome) {
    run_arrivals(connections, workload, Arrivals::poisson(rate), lasting).await
}

/// The same with other arrivals.
pub(crate) async fn run_arrivals(
    connections: Vec<Connection>,
    workload: &Workload,
    arrivals: Arrivals,
    lasting: Duration,
) -> (Vec<Connection>, Outcome) {
    let records = Records::new(lasting);
    let started = Instant::now();
    let connections = record(connections, workload, arrivals, lasting, &records).await;
    let mut outcome = records.take(0);
    outcome.took = started.elapsed();
    for connection in &connections {
        if !connection.body().is_empty() {
            outcome.samples.push(connection.body().to_vec());
        }
    }
    (connections, outcome.sorted())
}

/// What came of requests, by the period in which they were due.
#[derive(Clone)]
pub(crate) struct Records {
    period: Duration,
    outcomes: Rc<RefCell<Vec<Outcome>>>,
}

impl Records {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            outcomes: Rc::default(),
        }
    }

    /// What a period came to; nothing is left of it.
    pub(crate) fn take(&self, period: usize) -> Outcome {
        let mut outcomes = self.outcomes.borrow_mut();
        outcomes
            .get_mut(period)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn add(&self, since_start: Duration, latency: Duration, status: u16, body: &[u8]) {
        let period = (since_start.as_nanos() / self.period.as_nanos().max(1)) as usize;
        let mut outcomes = self.outcomes.borrow_mut();
        if outcomes.len() <= period {
            outcomes.resize_with(period + 1, Outcome::default);
        }
        outcomes[period].record(latency, status, body);
    }
}

/// Loads the server for that long, and answers when the last request is answered.
pub(crate) async fn record(
    connections: Vec<Connection>,
    workload: &Workload,
    arrivals: Arrivals,
    lasting: Duration,
    records: &Records,
) -> Vec<Connection> {
    let queue = Rc::new(Queue::default());
    let started = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| {
            let (workload, records) = (workload.clone(), records.clone());
            spawn_local(serve(
                connection,
                workload,
                Rc::clone(&queue),
                started,
                records,
            ))
        })
        .collect();
    dispatch(&queue, arrivals, started, started + lasting).await;
    let mut connections = Vec::new();
    for task in tasks {
        connections.push(task.await.expect("no panic"));
    }
    connections
}

/// Of the times between requests.
const SEED: u64 = 0x5eed;

/// When requests are due.
pub(crate) struct Arrivals {
    dice: Dice,
    /// Between two bursts, on average, in seconds.
    mean_gap: f64,
    burst: usize,
}

impl Arrivals {
    /// So many a second.
    pub(crate) fn poisson(rate: f64) -> Self {
        Self::bursts(rate, 1)
    }

    /// So many a second, in bursts of so many at once.
    pub(crate) fn bursts(rate: f64, burst: usize) -> Self {
        Self {
            dice: Dice::new(SEED),
            // As good as nothing still ends.
            mean_gap: burst as f64 / rate.max(1e-3),
            burst,
        }
    }

    /// The same of other callers, who know nothing of these.
    pub(crate) fn of_others(self, which: usize) -> Self {
        Self {
            dice: Dice::new(SEED + 1 + which as u64),
            ..self
        }
    }

    fn next_gap(&mut self) -> Duration {
        Duration::from_secs_f64(-self.mean_gap * (1.0 - self.dice.fraction()).ln())
    }
}

/// What is due and not yet sent.
#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<Instant>>,
    arrived: Notify,
    is_over: Cell<bool>,
}

/// Lets requests become due, until the time is up.
async fn dispatch(queue: &Queue, mut arrivals: Arrivals, started: Instant, until: Instant) {
    let alarm = Alarm::new();
    let mut due = started + arrivals.next_gap();
    while due < until {
        let now = Instant::now();
        if due > now {
            alarm.wait(due - now).await;
            continue;
        }
        for _ in 0..arrivals.burst {
            queue.due.borrow_mut().push_back(due);
            queue.arrived.notify_one();
        }
        due += arrivals.next_gap();
    }
    queue.is_over.set(true);
    queue.arrived.notify_waiters();
}

async fn serve(
    mut connection: Connection,
    workload: Workload,
    queue: Rc<Queue>,
    started: Instant,
    records: Records,
) -> Connection {
    loop {
        let due = queue.due.borrow_mut().pop_front();
        match due {
            Some(due) => {
                let status = connection.exchange(&workload.next()).await;
                let status = workload.judge(status, connection.body());
                records.add(due - started, due.elapsed(), status, connection.body());
            }
            None if queue.is_over.get() => return connection,
            None => queue.arrived.notified().await,
        }
    }
}

/// Wakes within microseconds, where the runtime's own timer counts milliseconds
/// (timerfd_create(2)).
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "unsound for a type that gives its descriptor away, which OwnedFd does not; the \
                  other way is unsafe"
    )]
    fn new() -> Self {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK);
        Self(AsyncFd::new(timer.expect("a timer")).expect("registered"))
    }

    async fn wait(&self, time: Duration) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: time.as_secs().cast_signed(),
                // Nothing at all would turn it off.
                tv_nsec: i64::from(time.subsec_nanos().max(1)),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).expect("set");
        loop {
            let mut ready = self.0.readable().await.expect("readable");
            let read = rustix::io::read(self.0.get_ref(), &mut [0; 8]);
            match read {
                Err(Errno::AGAIN) => ready.clear_ready(),
                read => {
                    read.expect("read");
                    ready.clear_ready();
                    return;
                }
            }
        }
    }
}
