//! Where long computations run that callers wait for: on threads of their own behind
//! the async workers, and never more of them at once than there are cores, since beyond
//! that each only slows the others and everybody else. Knows nothing of keys.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::workers::{WorkerSettings, Workers};
use crate::adapters::backlog::Backlog;
use crate::ports::hsm::{HsmError, HsmFault};

/// How far the threads step back. Of a core that an async worker never leaves they get a
/// tenth, and async workers seldom do: so whoever asks for microseconds does not wait
/// behind RSA signatures of 230 µs, and those get on all the same.
const NICE: i32 = 10;

/// A bound on the computations that run at once. The generation of RSA pairs, which
/// takes a hundred times as long as a signature, is not among them.
/// The pieces of batches wait for each other before they wait for a place, so that
/// whoever comes with a single job has at most a place's worth of them before him.
pub(super) struct CpuPool {
    workers: Workers,
    pieces: Arc<Semaphore>,
    unhurried: Arc<Semaphore>,
    backlog: Backlog,
}

impl CpuPool {
    /// A pool for a machine with so many cores, which says here what waits for one.
    pub(super) fn new(cores: usize, backlog: Backlog) -> Self {
        // On a single core, too, a signature must not wait for a large body.
        let at_once = cores.max(2);
        let settings = WorkerSettings {
            name: "kms-compute",
            threads_at_most: at_once,
            nice: NICE,
        };
        Self {
            workers: Workers::new(settings, Box::new(|| None)),
            pieces: Arc::new(Semaphore::new(at_once)),
            unhurried: Arc::new(Semaphore::new(1)),
            backlog,
        }
    }

    /// Runs a job as soon as there is room, as [`Workers::run`] does.
    ///
    /// # Errors
    /// As for [`Workers::run`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let waiting = self.backlog.wait();
        let job = move || {
            drop(waiting);
            job()
        };
        self.workers.run(job).await
    }

    /// Runs a job of a task's own, which no caller waits for: one at a time, on the
    /// runtime's threads for such, so that callers' jobs do not stand behind it.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the runtime shuts down; [`HsmFault::Refused`] when
    /// the job panics.
    pub(super) async fn run_unhurried<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let turn = Arc::clone(&self.unhurried)
            .acquire_owned()
            .await
            .map_err(|closed| HsmError::Unavailable(closed.into()))?;
        let running = tokio::task::spawn_blocking(move || {
            // The turn is the job's and not the caller's, who may go away.
            let _turn = turn;
            job()
        });
        running.await.map_err(|failure| match failure.is_panic() {
            true => HsmError::Fault(HsmFault::Refused),
            false => HsmError::Unavailable(failure.into()),
        })
    }

    /// Takes no more jobs, and waits for the end of those that have begun.
    pub(super) async fn stop(&self) {
        self.workers.stop().await;
    }

    /// Runs a piece of a batch, as [`CpuPool::run`] does, while at most as many
    /// pieces as there are places run or wait for one.
    ///
    /// # Errors
    /// As for [`CpuPool::run`].
    pub(super) async fn run_piece<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let turn = Arc::clone(&self.pieces)
            .acquire_owned()
            .await
            .map_err(|closed| HsmError::Unavailable(closed.into()))?;
        self.run(move || {
            let _turn = turn;
            job()
        })
        .await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A job that says when it runs and then waits to be let go.
    pub(in super::super) fn held() -> (
        impl FnOnce() + Send + 'static,
        tokio::sync::oneshot::Receiver<()>,
        mpsc::Sender<()>,
    ) {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel();
        let job = move || {
            let _ = started.send(());
            let _ = released.recv();
        };
        (job, has_started, release)
    }

    #[tokio::test]
    async fn no_more_jobs_run_than_there_are_places() {
        let pool = CpuPool::new(2, Backlog::default());
        let (first, first_started, first_release) = held();
        let (second, second_started, second_release) = held();
        let mut first = Box::pin(pool.run(first));
        let mut second = Box::pin(pool.run(second));
        let mut third = Box::pin(pool.run(|| ()));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is held"),
            _ = &mut second => panic!("it is held"),
            _ = &mut third => panic!("there is no room"),
            () = async {
                first_started.await.expect("it runs");
                second_started.await.expect("it runs");
            } => {}
        }
        first_release.send(()).expect("it waits");
        second_release.send(()).expect("it waits");
        assert!(first.await.is_ok() && second.await.is_ok() && third.await.is_ok());
    }

    /// Guards single calls: behind the pieces of however many batches, each would wait
    /// for all of them.
    #[tokio::test]
    async fn a_single_job_waits_for_no_more_pieces_than_there_are_places() {
        let pool = Arc::new(CpuPool::new(2, Backlog::default()));
        let (first, first_started, first_release) = held();
        let (second, second_started, second_release) = held();
        let mut first = Box::pin(pool.run_piece(first));
        let mut second = Box::pin(pool.run_piece(second));
        let mut third = Box::pin(pool.run_piece(|| ()));
        let mut single = Box::pin(pool.run(|| 7));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is held"),
            _ = &mut second => panic!("it is held"),
            // It asks before the single job does.
            _ = &mut third => panic!("it is not its turn"),
            _ = &mut single => panic!("there is no room"),
            () = async {
                first_started.await.expect("it runs");
                second_started.await.expect("it runs");
            } => {}
        }
        first_release.send(()).expect("it waits");
        tokio::select! {
            biased;
            done = &mut first => done.expect("ran"),
            _ = &mut second => panic!("it is held"),
        }
        // A place is free, and the third piece has not asked for it yet.
        assert_eq!(single.await.expect("ran"), 7);
        second_release.send(()).expect("it waits");
        assert!(second.await.is_ok() && third.await.is_ok());
    }

    #[tokio::test]
    async fn an_unhurried_job_takes_no_place_of_a_callers_and_waits_for_its_like() {
        let pool = CpuPool::new(2, Backlog::default());
        let (first, first_started, first_release) = held();
        let (second, second_started, second_release) = held();
        let mut first = Box::pin(pool.run_unhurried(first));
        let mut second = Box::pin(pool.run_unhurried(second));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is held"),
            _ = &mut second => panic!("it is not its turn"),
            () = async {
                first_started.await.expect("it runs");
                for _ in 0..3 {
                    assert_eq!(pool.run(|| 7).await.expect("ran"), 7);
                }
            } => {}
        }
        first_release.send(()).expect("it waits");
        first.await.expect("ran");
        second_release.send(()).expect("it will wait");
        second.await.expect("ran");
        second_started.await.expect("it ran");
        let failed: Result<(), _> = pool.run_unhurried(|| panic!("for this test")).await;
        assert!(matches!(failed, Err(HsmError::Fault(HsmFault::Refused))));
        assert_eq!(pool.run_unhurried(|| 7).await.expect("ran"), 7);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_async_workers_come_first() {
        let nice = || rustix::process::getpriority_process(None).expect("is known");
        let of_job = CpuPool::new(2, Backlog::default())
            .run(nice)
            .await
            .expect("runs");
        assert_eq!(of_job, (nice() + NICE).min(19));
    }
}
