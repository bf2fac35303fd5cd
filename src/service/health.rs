//! Readiness: what the last probe of the dependencies found.
//!
//! A background task probes; requests only read. A probe that stops coming is
//! itself a failure, since nobody knows any longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::KmsService;
use crate::domain::key::HsmBackendName;
use crate::ports::hsm::HsmBackend;
use crate::ports::material::Standing;

/// How long one check may take before it counts as failed.
const CHECK_DEADLINE: Duration = Duration::from_secs(4);

/// How old a report may be before it counts as none.
const REPORT_EXPIRES_AFTER: Duration = Duration::from_secs(20);

/// Whether the service is fit to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// Everything works.
    Healthy,
    /// It serves, and something needs looking at.
    Degraded,
    /// It cannot serve.
    Unhealthy,
}

impl HealthStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// Good.
    Pass,
    /// To be looked at.
    Warn,
    /// Bad.
    Fail,
}

impl CheckStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Warn, Self::Fail];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it went.
    pub status: CheckStatus,
    /// In words, without inner messages.
    pub detail: String,
}

/// All checks together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// The sum of them.
    pub status: HealthStatus,
    /// Each of them.
    pub checks: Vec<Check>,
}

impl HealthReport {
    fn of(checks: Vec<Check>) -> Self {
        let has = |status| checks.iter().any(|check| check.status == status);
        let status = if has(CheckStatus::Fail) {
            HealthStatus::Unhealthy
        } else if has(CheckStatus::Warn) {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        };
        Self { status, checks }
    }

    fn failing(name: &'static str, detail: &str) -> Self {
        Self::of(vec![Check {
            name,
            status: CheckStatus::Fail,
            detail: detail.to_owned(),
        }])
    }
}

/// Where the last report hangs.
#[derive(Default)]
pub(super) struct HealthBoard {
    last: Mutex<Option<(Instant, Arc<HealthReport>)>>,
    draining: AtomicBool,
}

impl HealthBoard {
    fn publish(&self, report: HealthReport) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), Arc::new(report)));
    }

    fn read(&self, now: Instant) -> Arc<HealthReport> {
        if self.draining.load(Ordering::Relaxed) {
            return Arc::new(HealthReport::failing(
                "shutdown",
                "the service is shutting down",
            ));
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            None => Arc::new(HealthReport::failing("probe", "no probe has finished yet")),
            Some((taken, _)) if now.duration_since(*taken) > REPORT_EXPIRES_AFTER => Arc::new(
                HealthReport::failing("probe", "the last probe is too long ago"),
            ),
            Some((_, report)) => Arc::clone(report),
        }
    }
}

impl KmsService {
    /// What the last probe found. Touches no dependency.
    pub fn health(&self) -> Arc<HealthReport> {
        self.health.read(Instant::now())
    }

    /// From now on the service calls itself unhealthy, so that no new requests
    /// are sent its way while it finishes the ones it has.
    pub fn begin_shutdown(&self) {
        self.health.draining.store(true, Ordering::Relaxed);
    }

    /// Tries every dependency for real and publishes what it finds: a round of
    /// cryptography in the HSM, a durable write to the store, a signature of the
    /// ledger's key and a look at its newest receipt, a read of the trust anchors.
    /// With a store that is well, settles what became of unfinished changes.
    pub async fn probe_health(&self) -> Arc<HealthReport> {
        let data_plane = &self.ports.data_plane;
        let anchors_in_doubt = self.begin_settling();
        let keys_in_doubt = self.begin_settling_keys();
        let (hsms, store, newest, anchors) = tokio::join!(
            self.probe_backends(),
            deadline(data_plane.probe_write()),
            deadline(data_plane.newest_receipt()),
            deadline(data_plane.count_trust_anchors()),
        );
        let hsm_passes = |check: &Check| check.status != CheckStatus::Fail;
        self.metrics
            .set_hsm_available(hsms.first().is_some_and(hsm_passes));
        if store.is_ok() {
            // Late or not, the report does not wait for it any longer.
            let settling =
                async { tokio::join!(anchors_in_doubt.settle(), keys_in_doubt.settle()) };
            let _ = tokio::time::timeout(CHECK_DEADLINE, settling).await;
        }
        let ledger = newest.and_then(|newest| match newest {
            Some(receipt) if !self.ports.ledger.is_genuine(&receipt.leaf) => {
                Err(ProbeFailure::Wrong("the newest receipt does not verify"))
            }
            _ => Ok(()),
        });
        let mut checks = hsms;
        checks.extend([
            check("store", store, |()| "a write is durable".to_owned()),
            check("ledger", ledger, |()| {
                "the newest receipt verifies".to_owned()
            }),
            check("trust_store", anchors, |number| {
                format!("{number} trust anchors")
            }),
        ]);
        checks.extend(self.check_quarantine());
        checks.push(self.check_scheduler());
        let now = self.ports.clock.now();
        checks.extend(self.ports.material.iter().map(|material| {
            let (status, detail) = match material.standing(now) {
                Standing::Good(detail) => (CheckStatus::Pass, detail),
                Standing::NeedsCare(detail) => (CheckStatus::Warn, detail),
                Standing::Unusable(detail) => (CheckStatus::Fail, detail),
            };
            Check {
                name: material.name(),
                status,
                detail,
            }
        }));
        let named = checks.iter().map(|check| (check.name, check.status));
        self.metrics
            .set_health_checks(now, named.map(|(name, status)| (name, status.as_str())));
        self.health.publish(HealthReport::of(checks));
        self.health()
    }

    /// Whether every key has its secret, where a backend keeps secrets itself.
    fn check_quarantine(&self) -> Option<Check> {
        let (number, named, looked_at) = self.quarantine.cases();
        self.metrics.set_keys_quarantined(number);
        let is_kept_elsewhere = |hsm: &dyn HsmBackend| hsm.name().keeps_keys();
        if number == 0 && !self.ports.hsm.all().any(is_kept_elsewhere) {
            return None;
        }
        let (status, detail) = match (number, looked_at) {
            (0, None) => (
                CheckStatus::Pass,
                "the HSM was not held against the store yet".to_owned(),
            ),
            (0, Some(when)) => (
                CheckStatus::Pass,
                format!("the HSM had every key at {when}"),
            ),
            (_, _) => {
                let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                let more = if number > named.len() { ", …" } else { "" };
                let named = named.join(", ");
                let what = format!("keys that their HSM does not have: {number} ({named}{more})");
                (CheckStatus::Warn, what)
            }
        };
        Some(Check {
            name: "keys",
            status,
            detail,
        })
    }

    /// Whether what is due for keys is done.
    fn check_scheduler(&self) -> Check {
        let (status, detail) = match self.scheduler.complaint(Instant::now()) {
            Some(complaint) => (CheckStatus::Warn, complaint),
            None if self.scheduler.has_run() => {
                (CheckStatus::Pass, "nothing is overdue".to_owned())
            }
            None => (CheckStatus::Pass, "no round has finished yet".to_owned()),
        };
        Check {
            name: "scheduler",
            status,
            detail,
        }
    }

    /// Does a round of work in each backend, that for new keys first. Without another
    /// one most of the service still serves.
    async fn probe_backends(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for (place, hsm) in self.ports.hsm.all().enumerate() {
            let name = match (place, hsm.name()) {
                (0, _) => "hsm",
                (_, HsmBackendName::Software) => "hsm_software",
                (_, HsmBackendName::Pkcs11) => "hsm_pkcs11",
            };
            let found = deadline(hsm.self_test()).await;
            let mut check = check(name, found, |()| "a test key works".to_owned());
            if let Some(condition) = hsm.condition() {
                check.detail = format!("{}; {condition}", check.detail);
            }
            if place > 0 && check.status == CheckStatus::Fail {
                check.status = CheckStatus::Warn;
            }
            checks.push(check);
        }
        checks
    }
}

/// Why a probe failed.
enum ProbeFailure {
    Late,
    Failed(Box<dyn std::error::Error + Send + Sync>),
    Wrong(&'static str),
}

async fn deadline<T, E: std::error::Error + Send + Sync + 'static>(
    probe: impl Future<Output = Result<T, E>>,
) -> Result<T, ProbeFailure> {
    match tokio::time::timeout(CHECK_DEADLINE, probe).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(ProbeFailure::Failed(Box::new(error))),
        Err(_) => Err(ProbeFailure::Late),
    }
}

fn check<T>(
    name: &'static str,
    found: Result<T, ProbeFailure>,
    describe: impl FnOnce(T) -> String,
) -> Check {
    let (status, detail) = match found {
        Ok(found) => (CheckStatus::Pass, describe(found)),
        Err(ProbeFailure::Late) => (CheckStatus::Fail, "did not answer in time".to_owned()),
        Err(ProbeFailure::Wrong(what)) => (CheckStatus::Fail, what.to_owned()),
        Err(ProbeFailure::Failed(error)) => {
            tracing::warn!(
                check = name,
                error = &*error as &dyn std::error::Error,
                "health check failed"
            );
            (CheckStatus::Fail, "unavailable, see the log".to_owned())
        }
    };
    Check {
        name,
        status,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing() -> HealthReport {
        HealthReport::of(vec![Check {
            name: "store",
            status: CheckStatus::Pass,
            detail: String::new(),
        }])
    }

    #[test]
    fn nothing_is_healthy_before_the_first_probe_nor_long_after_the_last() {
        let board = HealthBoard::default();
        let now = Instant::now();
        assert_eq!(board.read(now).status, HealthStatus::Unhealthy);
        board.publish(passing());
        assert_eq!(board.read(now).status, HealthStatus::Healthy);
        let later = now + REPORT_EXPIRES_AFTER + Duration::from_secs(2);
        assert_eq!(board.read(later).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn a_service_that_shuts_down_is_unhealthy_at_once() {
        let board = HealthBoard::default();
        board.publish(passing());
        board.draining.store(true, Ordering::Relaxed);
        assert_eq!(board.read(Instant::now()).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn one_failure_makes_it_unhealthy_and_one_warning_degraded() {
        let check = |status| Check {
            name: "store",
            status,
            detail: String::new(),
        };
        let report = |statuses: &[CheckStatus]| {
            HealthReport::of(statuses.iter().copied().map(check).collect()).status
        };
        use CheckStatus::{Fail, Pass, Warn};
        assert_eq!(report(&[Pass, Pass]), HealthStatus::Healthy);
        assert_eq!(report(&[Pass, Warn]), HealthStatus::Degraded);
        assert_eq!(report(&[Warn, Fail]), HealthStatus::Unhealthy);
    }
}
