//! Threads for what takes long, at a priority below that of the async workers: the
//! kernel takes the core from them for whoever needs it for microseconds only. What
//! callers wait for comes first, in the order in which they asked; while nobody waits,
//! the threads do what is spare. Knows nothing of keys.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ports::hsm::{HsmError, HsmFault};

/// How long what is spare rests after it failed, which it would at once again.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Something to do while nobody waits.
pub(super) type SpareJob = Box<dyn FnOnce() -> Result<(), HsmFault> + Send>;

/// Says what there is to do while nobody waits. It is asked under the lock that
/// callers take, so it answers at once.
pub(super) type Spare = Box<dyn Fn() -> Option<SpareJob> + Send + Sync>;

/// What the threads are.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerSettings {
    pub(super) name: &'static str,
    pub(super) threads_at_most: usize,
    /// How far they step back: what is added to the nice value (nice(2)), where each
    /// step is a quarter more or less of a core that two want (sched(7)). So at a
    /// positive value they are slowed, and never starved.
    pub(super) nice: i32,
}

/// A line of jobs, and the threads that do them. They are started when there is
/// something to do.
pub(super) struct Workers {
    shared: Arc<Shared>,
    settings: WorkerSettings,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    spare: Spare,
}

#[derive(Default)]
struct State {
    /// By the order in which they came. There are as many as callers who wait, which
    /// the number of requests under way bounds.
    waiting: BTreeMap<u64, Job>,
    next_place: u64,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    spare_rests_until: Option<Instant>,
    is_stopping: bool,
}

enum Task {
    ForCaller(Job),
    Spare(SpareJob),
}

impl Workers {
    /// Threads of this kind, none of which is started yet.
    pub(super) fn new(settings: WorkerSettings, spare: Spare) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                spare,
            }),
            settings,
        }
    }

    /// Runs a job as soon as its turn comes. Dropping the future before that withdraws
    /// the job; after that the job runs to its end, and holds its thread until then.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the threads are stopped, or there is none and none
    /// can be started; [`HsmFault::Refused`] when the job panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, answered) = oneshot::channel();
        let _place = self.wait_in_line(Box::new(move || {
            // Whoever no longer waits needs no answer.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(job)));
        }))?;
        match answered.await {
            Ok(Ok(outcome)) => Ok(outcome),
            // The panic's own text stays here; the panic hook has reported it.
            Ok(Err(_)) => Err(HsmError::Fault(HsmFault::Refused)),
            Err(_) => Err(stopped()),
        }
    }

    /// Sees to it that there is a thread that does what is spare.
    pub(super) fn begin_spare(&self) {
        let mut state = self.shared.lock();
        if !state.is_stopping && state.threads.is_empty() {
            // If there can be none yet, the first caller brings one.
            let _ = self.start_thread(&mut state);
        }
        drop(state);
        self.look_for_spare();
    }

    /// Lets an idle thread look whether there is something spare to do.
    pub(super) fn look_for_spare(&self) {
        // Behind the lock no thread is between its look and its sleep.
        drop(self.shared.lock());
        self.shared.changed.notify_one();
    }

    /// Takes no more jobs, gives up those that have not begun, and waits for the end
    /// of those that have.
    pub(super) async fn stop(&self) {
        self.begin_to_stop();
        let threads = std::mem::take(&mut self.shared.lock().threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // What panicked in it was caught and answered.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }

    fn begin_to_stop(&self) {
        let mut state = self.shared.lock();
        state.is_stopping = true;
        let given_up = std::mem::take(&mut state.waiting);
        drop(state);
        drop(given_up);
        self.shared.changed.notify_all();
    }

    fn wait_in_line(&self, job: Job) -> Result<Place<'_>, HsmError> {
        let mut state = self.shared.lock();
        if state.is_stopping {
            return Err(stopped());
        }
        // Threads that were woken and have not come yet still count as idle.
        if state.idle <= state.waiting.len() && state.threads.len() < self.settings.threads_at_most
        {
            match self.start_thread(&mut state) {
                Err(fault) if state.threads.is_empty() => {
                    return Err(HsmError::Unavailable(fault.into()));
                }
                // The others serve, one after the other.
                Ok(()) | Err(_) => {}
            }
        }
        let number = state.next_place;
        state.next_place += 1;
        state.waiting.insert(number, job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(Place {
            shared: &self.shared,
            number,
        })
    }

    fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
        let (shared, settings) = (Arc::clone(&self.shared), self.settings);
        let thread = thread::Builder::new()
            .name(settings.name.to_owned())
            .spawn(move || {
                step_back(settings);
                shared.work();
            })?;
        state.threads.push(thread);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Whoever drops this may be an async thread, which must not wait for a job.
        self.begin_to_stop();
    }
}

fn stopped() -> HsmError {
    HsmError::Unavailable("the service stops and begins no more long computations".into())
}

/// Lets the kernel prefer the other threads of this process to the one that calls.
fn step_back(settings: WorkerSettings) {
    // On Linux a nice value is a thread's (nice(2), "C library/kernel differences").
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(settings.nice) {
        tracing::debug!(%error, thread = settings.name, "runs at the priority of everything else");
    }
}

/// A caller's place in the line, which is given up with it.
struct Place<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // What a job holds is not dropped under the lock.
        let _withdrawn = self.shared.lock().waiting.remove(&self.number);
    }
}

impl Shared {
    fn work(&self) {
        while let Some(task) = self.next_task() {
            match task {
                Task::ForCaller(job) => job(),
                Task::Spare(job) => {
                    let outcome = catch_unwind(AssertUnwindSafe(job));
                    if !matches!(outcome, Ok(Ok(()))) {
                        tracing::warn!(
                            "something that nobody waits for failed, and is tried again later"
                        );
                        let until = Instant::now() + REST_AFTER_FAILURE;
                        self.lock().spare_rests_until = Some(until);
                    }
                }
            }
        }
    }

    /// Waits for the next task; `None` when the pool stops.
    fn next_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.is_stopping {
                return None;
            }
            if let Some((_, job)) = state.waiting.pop_first() {
                return Some(Task::ForCaller(job));
            }
            let rest = state
                .spare_rests_until
                .map(|until| until.saturating_duration_since(Instant::now()))
                .filter(|rest| !rest.is_zero());
            if rest.is_none()
                && let Some(job) = (self.spare)()
            {
                return Some(Task::Spare(job));
            }
            state.idle += 1;
            state = match rest {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(rest) => {
                    self.changed
                        .wait_timeout(state, rest)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, and every step under it leaves a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
