//! The condition that the service is in, apart from what is asked of it: its health
//! checks, what it stands on, and what will run out one day.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::Metrics;
use crate::domain::error::Dependency;
use crate::domain::time::Timestamp;

/// What a health check may say.
const CHECK_STATUSES: [&str; 3] = ["pass", "warn", "fail"];

/// How the verification of an approval can end.
const ACCEPTED: &str = "accepted";
const REFUSED: &str = "refused";

/// The metrics of this file.
pub(super) struct Condition {
    health_check: IntGaugeVec,
    /// The checks that were ever there.
    checks: Mutex<BTreeSet<&'static str>>,
    health_probed: IntGauge,
    dependency_failures: IntCounterVec,
    disk_free: IntGaugeVec,
    disk_size: IntGaugeVec,
    crl_expiry: IntGaugeVec,
    rsa_stock_target: IntGauge,
    daily_limits_neared: IntCounter,
    daily_limit_refusals: IntCounter,
    approvals: IntCounterVec,
}

impl Condition {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let condition = Self {
            health_check: IntGaugeVec::new(
                Opts::new(
                    "kms_health_check",
                    "Whether a health check has this status: 1 for the one it has.",
                ),
                &["check", "status"],
            )?,
            checks: Mutex::default(),
            health_probed: IntGauge::new(
                "kms_health_probed_seconds",
                "When the dependencies were last probed, in seconds since 1970.",
            )?,
            dependency_failures: IntCounterVec::new(
                Opts::new(
                    "kms_dependency_failures_total",
                    "Requests that got 503, by what was not available.",
                ),
                &["dependency"],
            )?,
            // Vectors without a label have no series until they are set: nobody is
            // told that a disk is full which was not looked at.
            disk_free: IntGaugeVec::new(
                Opts::new(
                    "kms_disk_free_bytes",
                    "Bytes that the service may still write to the file system of its store.",
                ),
                &[],
            )?,
            disk_size: IntGaugeVec::new(
                Opts::new(
                    "kms_disk_size_bytes",
                    "Size of the file system of the store, in bytes.",
                ),
                &[],
            )?,
            crl_expiry: IntGaugeVec::new(
                Opts::new(
                    "kms_crl_expiry_seconds",
                    "Seconds until the first revocation list has to be renewed; negative after.",
                ),
                &[],
            )?,
            rsa_stock_target: IntGauge::new(
                "kms_rsa_stock_target",
                "RSA pairs that are to be kept ready; 0 where none are.",
            )?,
            daily_limits_neared: IntCounter::new(
                "kms_daily_limits_neared_total",
                "How often a key came to 80 % of its daily limit.",
            )?,
            daily_limit_refusals: IntCounter::new(
                "kms_daily_limit_refusals_total",
                "Uses that were refused because their key was used up for the day.",
            )?,
            approvals: IntCounterVec::new(
                Opts::new(
                    "kms_approvals_total",
                    "Approvals that were asked for, by whether they were good.",
                ),
                &["outcome"],
            )?,
        };
        registry.register(Box::new(condition.health_check.clone()))?;
        registry.register(Box::new(condition.health_probed.clone()))?;
        registry.register(Box::new(condition.dependency_failures.clone()))?;
        registry.register(Box::new(condition.disk_free.clone()))?;
        registry.register(Box::new(condition.disk_size.clone()))?;
        registry.register(Box::new(condition.crl_expiry.clone()))?;
        registry.register(Box::new(condition.rsa_stock_target.clone()))?;
        registry.register(Box::new(condition.daily_limits_neared.clone()))?;
        registry.register(Box::new(condition.daily_limit_refusals.clone()))?;
        registry.register(Box::new(condition.approvals.clone()))?;
        // Zeros and not gaps, so that the first one shows in a rate.
        for dependency in Dependency::ALL {
            condition
                .dependency_failures
                .with_label_values(&[dependency.as_str()]);
        }
        for outcome in [ACCEPTED, REFUSED] {
            condition.approvals.with_label_values(&[outcome]);
        }
        Ok(condition)
    }

    fn set_check(&self, check: &str, status: &str) {
        for one in CHECK_STATUSES {
            self.health_check
                .with_label_values(&[check, one])
                .set(i64::from(one == status));
        }
    }
}

impl Metrics {
    /// What a probe found: each check's name and status, from closed lists. A check
    /// that is no longer there has no status: its series stay, at zero.
    pub fn set_health_checks(
        &self,
        when: Timestamp,
        checks: impl Iterator<Item = (&'static str, &'static str)>,
    ) {
        let condition = &self.condition;
        let mut known = condition
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut gone = known.clone();
        for (check, status) in checks {
            condition.set_check(check, status);
            known.insert(check);
            gone.remove(check);
        }
        for check in gone {
            condition.set_check(check, "");
        }
        condition
            .health_probed
            .set(when.microseconds().div_euclid(1_000_000));
    }

    /// Counts a request that got 503.
    pub(super) fn count_dependency_failure(&self, dependency: Dependency) {
        self.condition
            .dependency_failures
            .with_label_values(&[dependency.as_str()])
            .inc();
    }

    /// How much of the store's file system is left, and how large it is; in bytes.
    pub fn set_disk_space(&self, free: u64, size: u64) {
        let none: [&str; 0] = [];
        for (gauge, bytes) in [
            (&self.condition.disk_free, free),
            (&self.condition.disk_size, size),
        ] {
            gauge
                .with_label_values(&none)
                .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// The time until the first revocation list has to be renewed.
    pub fn set_crl_expiry_seconds(&self, seconds: i64) {
        let none: [&str; 0] = [];
        self.condition
            .crl_expiry
            .with_label_values(&none)
            .set(seconds);
    }

    /// How many RSA pairs are to be kept ready.
    pub fn set_rsa_stock_target(&self, pairs: usize) {
        self.condition
            .rsa_stock_target
            .set(i64::try_from(pairs).unwrap_or(i64::MAX));
    }

    /// Counts a key that came to 80 % of its daily limit.
    pub fn count_daily_limit_neared(&self) {
        self.condition.daily_limits_neared.inc();
    }

    /// Counts uses that were past a daily limit.
    pub fn count_daily_limit_refusals(&self, uses: u64) {
        self.condition.daily_limit_refusals.inc_by(uses);
    }

    /// Counts an approval that was asked for.
    pub fn count_approval(&self, is_good: bool) {
        let outcome = if is_good { ACCEPTED } else { REFUSED };
        self.condition.approvals.with_label_values(&[outcome]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().expect("encodes")).expect("UTF-8")
    }

    #[test]
    fn a_check_has_one_status_and_one_that_is_gone_has_none() {
        let metrics = Metrics::new("1.2.3").expect("names are unique");
        let at = |microseconds| Timestamp::from_microseconds(microseconds).expect("a time");
        let both = [("store", "pass"), ("keys", "warn")];
        metrics.set_health_checks(at(7_900_000), both.into_iter());
        let first = text(&metrics);
        metrics.set_health_checks(at(12_000_000), [("store", "fail")].into_iter());
        let second = text(&metrics);
        for (text, series, value) in [
            (
                &first,
                r#"kms_health_check{check="store",status="pass"}"#,
                1,
            ),
            (
                &first,
                r#"kms_health_check{check="store",status="fail"}"#,
                0,
            ),
            (&first, r#"kms_health_check{check="keys",status="warn"}"#, 1),
            (&first, "kms_health_probed_seconds", 7),
            (
                &second,
                r#"kms_health_check{check="store",status="pass"}"#,
                0,
            ),
            (
                &second,
                r#"kms_health_check{check="store",status="fail"}"#,
                1,
            ),
            (
                &second,
                r#"kms_health_check{check="keys",status="warn"}"#,
                0,
            ),
            (
                &second,
                r#"kms_health_check{check="keys",status="pass"}"#,
                0,
            ),
            (&second, "kms_health_probed_seconds", 12),
        ] {
            let line = format!("\n{series} {value}\n");
            assert!(text.contains(&line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn what_was_never_looked_at_has_no_series() {
        let metrics = Metrics::new("1.2.3").expect("names are unique");
        let before = text(&metrics);
        for name in [
            "kms_disk_free_bytes",
            "kms_disk_size_bytes",
            "kms_crl_expiry",
        ] {
            assert!(!before.contains(name), "{name}");
        }
        metrics.set_disk_space(5, 9);
        metrics.set_crl_expiry_seconds(-60);
        let after = text(&metrics);
        for line in [
            "\nkms_disk_free_bytes 5\n",
            "\nkms_disk_size_bytes 9\n",
            "\nkms_crl_expiry_seconds -60\n",
        ] {
            assert!(after.contains(line), "{after}");
        }
    }
}
