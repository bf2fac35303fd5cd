use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::super::cpu_pool::tests::held;
use super::*;

/// How long anything may take that a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

const NICE: i32 = 7;

fn settings(threads_at_most: usize) -> WorkerSettings {
    WorkerSettings {
        name: "kms-test",
        threads_at_most,
        nice: NICE,
    }
}

/// Threads with nothing to do but what callers want, at most so many.
fn pool(threads: usize) -> Arc<Workers> {
    Arc::new(Workers::new(settings(threads), Box::new(|| None)))
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
async fn no_more_threads_work_than_may() {
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
    let pool = Workers::new(settings(1), spare);
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
    let pool = Workers::new(settings(1), spare);
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
    let of_worker = pool(1).run(nice).await.expect("runs");
    assert_eq!(of_worker, (nice() + NICE).min(19));
}
