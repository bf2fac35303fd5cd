//! Where key pairs are generated that take long: on a few threads of their own, which
//! the kernel puts behind every other one of the process, so that nobody who signs
//! waits for them. What callers wait for comes first, in the order in which they
//! asked; while nobody waits, the threads do what is spare. Knows nothing of keys.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ports::hsm::{HsmError, HsmFault};

/// How far the threads step back. A thread at this nice value gets about a tenth of a
/// core from one that is never idle (sched(7)), so it is slowed and not starved.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// How long what is spare rests after it failed, which it would at once again.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Something to do while nobody waits.
pub(super) type SpareJob = Box<dyn FnOnce() -> Result<(), HsmFault> + Send>;

/// Says what there is to do while nobody waits. It is asked under the lock that
/// callers take, so it answers at once.
pub(super) type Spare = Box<dyn Fn() -> Option<SpareJob> + Send + Sync>;

/// Threads that generate key pairs, at most half as many as there are cores. They are
/// started when there is something to do.
pub(super) struct GenerationPool {
    shared: Arc<Shared>,
    threads_at_most: usize,
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

impl GenerationPool {
    /// A pool for a machine with so many cores.
    pub(super) fn new(cores: usize, spare: Spare) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                spare,
            }),
            threads_at_most: (cores / 2).max(1),
        }
    }

    /// Runs a job as soon as its turn comes. Dropping the future before that withdraws
    /// the job; after that the job runs to its end, and holds its thread until then.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the pool is stopped, or has no thread and gets
    /// none; [`HsmFault::Refused`] when the job panics.
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
        if state.idle <= state.waiting.len() && state.threads.len() < self.threads_at_most {
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
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("kms-generation".to_owned())
            .spawn(move || {
                step_back();
                shared.work();
            })?;
        state.threads.push(thread);
        Ok(())
    }
}

impl Drop for GenerationPool {
    fn drop(&mut self) {
        // Whoever drops this may be an async thread, which must not wait for a pair.
        self.begin_to_stop();
    }
}

fn stopped() -> HsmError {
    HsmError::Unavailable("key pairs are no longer generated: the service stops".into())
}

/// Lets the kernel prefer the other threads of this process to the one that calls.
fn step_back() {
    // On Linux a nice value is a thread's (nice(2), "C library/kernel differences").
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "key pairs are generated at the priority of everything else");
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
                        tracing::warn!("a key pair that nobody waits for was not generated");
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::cpu_pool::tests::held;
    use super::*;

    /// How long anything may take that a test waits for.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A pool with nothing to do but what callers want, on so many threads.
    fn pool(threads: usize) -> Arc<GenerationPool> {
        Arc::new(GenerationPool::new(2 * threads, Box::new(|| None)))
    }

    /// Lets a caller come, and not wait for the answer yet.
    async fn comes<T>(caller: &mut (impl Future<Output = T> + Unpin)) {
        tokio::select! {
            biased;
            _ = caller => panic!("there is no free thread"),
            () = std::future::ready(()) => {}
        }
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < DEADLINE, "{what} did not come to be");
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_job_whose_caller_went_away_before_its_turn_never_runs() {
        let pool = pool(1);
        let (first, has_started, release) = held();
        let mut first = Box::pin(pool.run(first));
        comes(&mut first).await;
        has_started.await.expect("it runs");
        let runs = Arc::new(AtomicUsize::new(0));
        let count = {
            let runs = Arc::clone(&runs);
            move || runs.fetch_add(1, Ordering::SeqCst)
        };
        let mut second = Box::pin(pool.run(count.clone()));
        comes(&mut second).await;
        drop(second);
        assert!(pool.shared.lock().waiting.is_empty());
        release.send(()).expect("it waits");
        first.await.expect("ran");
        assert_eq!(pool.run(count).await.expect("runs"), 0, "nobody before it");
    }

    #[tokio::test]
    async fn a_job_whose_caller_went_away_holds_its_thread_until_it_ends() {
        let pool = pool(1);
        let (sender, order) = mpsc::channel();
        let (first, has_started, release) = held();
        let first = {
            let sender = sender.clone();
            move || {
                first();
                sender.send("first")
            }
        };
        let mut caller = Box::pin(pool.run(first));
        comes(&mut caller).await;
        has_started.await.expect("it runs");
        drop(caller);
        let mut second = Box::pin(pool.run(move || sender.send("second")));
        comes(&mut second).await;
        release.send(()).expect("it waits");
        second.await.expect("runs").expect("is heard");
        assert_eq!(
            order.iter().take(2).collect::<Vec<_>>(),
            ["first", "second"]
        );
    }

    #[tokio::test]
    async fn at_most_half_of_the_cores_generate() {
        for (cores, threads) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4)] {
            let pool = GenerationPool::new(cores, Box::new(|| None));
            assert_eq!(pool.threads_at_most, threads);
        }

        let pool = pool(2);
        assert!(pool.shared.lock().threads.is_empty(), "nobody has come");
        let (first, first_started, first_release) = held();
        let (second, second_started, second_release) = held();
        let mut first = Box::pin(pool.run(first));
        let mut second = Box::pin(pool.run(second));
        let mut third = Box::pin(pool.run(|| ()));
        comes(&mut first).await;
        comes(&mut second).await;
        first_started.await.expect("it runs");
        second_started.await.expect("it runs beside the first");
        comes(&mut third).await;
        assert_eq!(pool.shared.lock().threads.len(), 2);
        assert_eq!(pool.shared.lock().waiting.len(), 1);
        first_release.send(()).expect("it waits");
        second_release.send(()).expect("it waits");
        assert!(first.await.is_ok() && second.await.is_ok() && third.await.is_ok());
    }

    #[tokio::test]
    async fn callers_come_before_what_is_spare_and_in_their_order() {
        let (sender, order) = mpsc::channel();
        let to_do = Arc::new(AtomicUsize::new(0));
        let spare: Spare = {
            let (sender, to_do) = (sender.clone(), Arc::clone(&to_do));
            Box::new(move || {
                let less = |left: usize| left.checked_sub(1);
                to_do
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                    .ok()?;
                let sender = sender.clone();
                Some(Box::new(move || {
                    sender.send("spare").expect("is heard");
                    Ok(())
                }))
            })
        };
        let pool = GenerationPool::new(2, spare);
        let (held, has_started, release) = held();
        let mut running = Box::pin(pool.run(held));
        comes(&mut running).await;
        has_started.await.expect("it runs");
        to_do.store(2, Ordering::SeqCst);
        pool.look_for_spare();
        let tell = |what| {
            let sender = sender.clone();
            move || sender.send(what).expect("is heard")
        };
        let mut first = Box::pin(pool.run(tell("first")));
        let mut second = Box::pin(pool.run(tell("second")));
        comes(&mut first).await;
        comes(&mut second).await;
        release.send(()).expect("it waits");
        running.await.expect("ran");
        assert!(first.await.is_ok() && second.await.is_ok());
        let told = (0..4).map_while(|_| order.recv_timeout(DEADLINE).ok());
        let told: Vec<_> = told.collect();
        assert_eq!(told, ["first", "second", "spare", "spare"]);
    }

    #[tokio::test]
    async fn what_is_spare_rests_after_it_failed_and_callers_do_not() {
        let tries = Arc::new(AtomicUsize::new(0));
        let spare: Spare = {
            let tries = Arc::clone(&tries);
            Box::new(move || {
                let tries = Arc::clone(&tries);
                Some(Box::new(move || {
                    match tries.fetch_add(1, Ordering::SeqCst) {
                        0 => Err(HsmFault::Refused),
                        _ => panic!("for this test"),
                    }
                }))
            })
        };
        let pool = GenerationPool::new(2, spare);
        for failures in [1, 2] {
            pool.begin_spare();
            wait_until("the rest", || {
                let state = pool.shared.lock();
                state.idle == 1 && state.spare_rests_until.is_some()
            });
            assert_eq!(tries.load(Ordering::SeqCst), failures);
            assert_eq!(pool.run(|| 7).await.expect("runs"), 7);
            // As if the time were over.
            pool.shared.lock().spare_rests_until = None;
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_and_the_thread_goes_on() {
        let pool = pool(1);
        for _ in 0..3 {
            let outcome = pool.run(|| panic!("for this test")).await;
            let outcome: Result<(), HsmError> = outcome;
            assert!(matches!(outcome, Err(HsmError::Fault(HsmFault::Refused))));
        }
        assert_eq!(pool.run(|| 7).await.expect("runs"), 7);
        assert_eq!(pool.shared.lock().threads.len(), 1);
    }

    #[tokio::test]
    async fn stopping_gives_up_who_waits_and_waits_for_what_runs() {
        let pool = pool(1);
        let (job, has_started, release) = held();
        let mut running = Box::pin(pool.run(job));
        comes(&mut running).await;
        has_started.await.expect("it runs");
        let mut waiting = Box::pin(pool.run(|| ()));
        comes(&mut waiting).await;
        let mut stopping = Box::pin(pool.stop());
        comes(&mut stopping).await;
        assert!(matches!(waiting.await, Err(HsmError::Unavailable(_))));
        let late = tokio::time::timeout(DEADLINE, pool.run(|| ())).await;
        assert!(matches!(late, Ok(Err(HsmError::Unavailable(_)))));
        pool.begin_spare();
        // It still waits for the one that runs.
        comes(&mut stopping).await;
        release.send(()).expect("it waits");
        assert!(running.await.is_ok(), "what has begun is answered");
        stopping.await;
        assert_eq!(Arc::strong_count(&pool.shared), 1, "no thread is left");
    }

    #[tokio::test]
    async fn a_pool_that_is_dropped_ends_its_threads() {
        let pool = pool(1);
        pool.run(|| ()).await.expect("runs");
        let shared = Arc::clone(&pool.shared);
        drop(pool);
        wait_until("the end", || Arc::strong_count(&shared) == 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_prefers_every_other_thread() {
        let nice = || rustix::process::getpriority_process(None).expect("is known");
        let of_generation = pool(1).run(nice).await.expect("runs");
        assert_eq!(of_generation, (nice() + NICE).min(19));
    }
}
