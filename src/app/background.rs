//! What runs beside the requests until the service stops: probing, reconciling, upkeep of
//! keys, and writing the newest checkpoint down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kek::KekKeeper;
use super::known_checkpoint::{self, KnownCheckpoint};
use crate::service::{KmsService, Scheduler};

/// How often the dependencies are probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How often the HSM is held against the store.
const RECONCILE_EVERY: Duration = Duration::from_secs(3_600);

/// How soon it is tried again where one of the two could not be asked.
const RECONCILE_AGAIN: Duration = Duration::from_secs(10);

/// How often what is due for keys is looked for.
const SCHEDULE_EVERY: Duration = Duration::from_secs(1);

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    Draining,
    Drained,
}

pub(super) async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // A sender that is gone has nothing left to wait for.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

pub(super) fn spawn_prober(
    service: Arc<KmsService>,
    phases: watch::Receiver<Phase>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut stop = std::pin::pin!(reached(phases, Phase::Draining));
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
                () = &mut stop => return,
            }
            service.probe_health().await;
        }
    })
}

/// Holds the HSM against the store: at the start, or as soon as both can be asked,
/// once an hour, and when somebody asks.
pub(super) async fn keep_reconciled(
    service: Arc<KmsService>,
    mut asked: watch::Receiver<u64>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = tokio::select! {
            reconciled = service.reconcile() => match reconciled {
                Ok(()) => RECONCILE_EVERY,
                // The health report says what is away.
                Err(_) => RECONCILE_AGAIN,
            },
            () = &mut stop => return,
        };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            // Whoever could ask is gone only when all of this is.
            Ok(()) = asked.changed() => {}
            () = &mut stop => return,
        }
    }
}

/// Does what is due for keys, a short round at a time.
pub(super) async fn keep_scheduled(service: Arc<KmsService>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut scheduler = Scheduler::default();
    loop {
        // A round is not cut short: what it has begun it ends.
        if let Err(error) = service.run_scheduler(&mut scheduler).await {
            tracing::debug!(%error, "the scheduler's round was cut short");
        }
        tokio::select! {
            () = tokio::time::sleep(SCHEDULE_EVERY) => {}
            () = &mut stop => break,
        }
    }
    service.stop_scheduler(scheduler).await;
}

pub(super) async fn keep_written_down(
    checkpoint: Arc<KnownCheckpoint>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        checkpoint.write_down().await;
        tokio::select! {
            () = tokio::time::sleep(known_checkpoint::WRITE_EVERY) => {}
            () = &mut stop => return,
        }
    }
}

pub(super) async fn keep_keks(keeper: KekKeeper, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = keeper.keep() => {}
        () = stop => {}
    }
}
