//! Where long computations run: on the runtime's blocking threads, and never more
//! of them at once than there are cores, since beyond that each only slows the
//! others and everybody else. Knows nothing of keys.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::ports::hsm::{HsmError, HsmFault};

/// A bound on the computations that run at once. The generation of RSA pairs, which
/// takes a hundred times as long as a signature, is not among them.
/// The pieces of batches wait for each other before they wait for a place, so that
/// whoever comes with a single job has at most a place's worth of them before him.
pub(super) struct CpuPool {
    jobs: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
}

impl CpuPool {
    /// A pool for a machine with so many cores.
    pub(super) fn new(cores: usize) -> Self {
        Self {
            // On a single core, too, a signature must not wait for a page of secrets
            // that are sealed anew.
            jobs: Arc::new(Semaphore::new(cores.max(2))),
            pieces: Arc::new(Semaphore::new(cores.max(2))),
        }
    }

    /// Runs a job as soon as there is room. Dropping the future before that
    /// withdraws the job; after that the job runs to its end, and holds its place
    /// until then.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the runtime shuts down;
    /// [`HsmFault::Refused`] when the job panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let place = Arc::clone(&self.jobs)
            .acquire_owned()
            .await
            .map_err(|closed| HsmError::Unavailable(closed.into()))?;
        let running = tokio::task::spawn_blocking(move || {
            // The place belongs to the job and not to whoever waits for it: else
            // a caller who goes away would let one job too many in.
            let _place = place;
            job()
        });
        running.await.map_err(|failure| match failure.is_panic() {
            // The panic's own text stays here; the panic hook has reported it.
            true => HsmError::Fault(HsmFault::Refused),
            false => HsmError::Unavailable(failure.into()),
        })
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
    async fn a_job_whose_caller_went_away_keeps_its_place_until_it_ends() {
        let pool = Arc::new(CpuPool::new(2));
        let (job, has_started, release) = held();
        let caller = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(job).await }
        });
        has_started.await.expect("it runs");
        caller.abort();
        assert!(caller.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(pool.jobs.available_permits(), 1);

        release.send(()).expect("it waits");
        // It comes back, which is only known by taking all there are.
        let _all = pool.jobs.acquire_many(2).await.expect("open");
    }

    #[tokio::test]
    async fn no_more_jobs_run_than_there_are_places() {
        let pool = CpuPool::new(2);
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
        let pool = Arc::new(CpuPool::new(2));
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
    async fn a_panic_is_a_fault_and_gives_its_place_back() {
        let pool = CpuPool::new(2);
        for _ in 0..3 {
            let outcome = pool.run(|| panic!("for this test")).await;
            let outcome: Result<(), HsmError> = outcome;
            assert!(matches!(outcome, Err(HsmError::Fault(HsmFault::Refused))));
        }
        assert_eq!(pool.jobs.available_permits(), 2);
    }
}
