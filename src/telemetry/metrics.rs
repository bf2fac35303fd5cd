//! The metrics, by name. No label is a key, tenant or caller: the number of
//! series is bounded by these files.

mod condition;
mod labels;
#[cfg(target_os = "linux")]
mod process;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::domain::algorithm::KeyType;
use crate::domain::error::{ErrorCode, KmsError};
use crate::domain::key::KeyState;
use crate::domain::key_usage::KeyUsage;
use crate::domain::time::Timestamp;

use self::condition::Condition;
pub use self::labels::{JwksSet, RequestOperation};

/// Milliseconds; dense around the budgets of 20, 30, 50, 60, 100, 500 and 1,000.
const LATENCY_BUCKETS_MS: [f64; 18] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 50.0, 60.0, 100.0, 250.0, 500.0, 1_000.0,
    2_500.0, 5_000.0, 10_000.0,
];

/// How a reading of renewable material can end.
const TAKEN: &str = "taken";

/// How a TLS handshake can end; the second, a reading too.
const ESTABLISHED: &str = "established";
const REFUSED: &str = "refused";

/// Where the pair of a new RSA key comes from.
const FROM_STOCK: &str = "stock";
const MADE_FOR_IT: &str = "generated";

/// The statuses of failures on our side: `INTERNAL_ERROR` and `DEPENDENCY_UNAVAILABLE`.
const OUR_FAILURES: [u16; 2] = [500, 503];

/// Every metric of the service.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_errors: IntCounterVec,
    operation_latency: HistogramVec,
    keys: IntGaugeVec,
    key_usage: IntCounterVec,
    hsm_available: IntGauge,
    keys_quarantined: IntGauge,
    keys_due: IntGaugeVec,
    scheduler_last_run: IntGauge,
    hsm_latency: HistogramVec,
    ledger_size: IntGauge,
    ledger_commit_latency: Histogram,
    rate_limited: IntCounter,
    jwks_age: GaugeVec,
    reloads: IntCounterVec,
    tls_handshakes: IntCounterVec,
    tls_handshakes_refused: IntCounterVec,
    tls_certificate_expiry: IntGaugeVec,
    crl_age: IntGaugeVec,
    rekey_remaining: IntGauge,
    rsa_stock: IntGauge,
    rsa_pairs: IntCounterVec,
    condition: Condition,
    #[cfg(target_os = "linux")]
    process: process::Process,
}

impl Metrics {
    /// The metrics of a service of this version, all at zero.
    ///
    /// # Errors
    /// [`prometheus::Error`] when two metrics have one name, which a test rules out.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let latency = |name: &str, help: &str| {
            HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_MS.to_vec())
        };
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "kms_requests_total",
                    "Requests by operation and HTTP status.",
                ),
                &["operation", "status"],
            )?,
            request_errors: IntCounterVec::new(
                Opts::new(
                    "kms_request_errors_total",
                    "Requests that failed, by error code.",
                ),
                &["code"],
            )?,
            operation_latency: HistogramVec::new(
                latency(
                    "kms_operation_latency_ms",
                    "Time from a request's head to its answer, in milliseconds.",
                ),
                &["operation"],
            )?,
            keys: IntGaugeVec::new(
                Opts::new("kms_keys_total", "Keys by type and state."),
                &["key_type", "key_state"],
            )?,
            key_usage: IntCounterVec::new(
                Opts::new("kms_key_usage_total", "Uses of keys that were done."),
                &["operation", "key_type"],
            )?,
            hsm_available: IntGauge::new(
                "kms_hsm_available",
                "Whether the HSM passed its last self-test.",
            )?,
            keys_quarantined: IntGauge::new(
                "kms_keys_quarantined",
                "Keys whose secret their HSM does not have.",
            )?,
            keys_due: IntGaugeVec::new(
                Opts::new(
                    "kms_keys_due",
                    "Keys that are due to be rotated, archived or erased.",
                ),
                &["kind"],
            )?,
            scheduler_last_run: IntGauge::new(
                "kms_scheduler_last_run_seconds",
                "When the scheduler last finished a round, in seconds since 1970.",
            )?,
            hsm_latency: HistogramVec::new(
                latency(
                    "kms_hsm_operation_latency_ms",
                    "Time spent in the HSM backend, in milliseconds.",
                ),
                &["operation"],
            )?,
            ledger_size: IntGauge::new("kms_ledger_size", "Receipts in the ledger.")?,
            ledger_commit_latency: Histogram::with_opts(latency(
                "kms_ledger_commit_latency_ms",
                "Time of one durable write of the ledger, in milliseconds.",
            ))?,
            rate_limited: IntCounter::new(
                "kms_rate_limited_total",
                "Requests refused for a rate or a daily limit.",
            )?,
            jwks_age: GaugeVec::new(
                Opts::new(
                    "kms_jwks_age_seconds",
                    "Time since a key set was last read successfully, in seconds.",
                ),
                &["set"],
            )?,
            reloads: IntCounterVec::new(
                Opts::new(
                    "kms_material_reloads_total",
                    "Readings of certificates, revocation lists and key sets while running.",
                ),
                &["material", "outcome"],
            )?,
            tls_handshakes: IntCounterVec::new(
                Opts::new(
                    "kms_tls_handshakes_total",
                    "TLS handshakes of the API listener, by outcome.",
                ),
                &["outcome"],
            )?,
            tls_handshakes_refused: IntCounterVec::new(
                Opts::new(
                    "kms_tls_handshakes_refused_total",
                    "TLS handshakes that were refused, by reason.",
                ),
                &["reason"],
            )?,
            // Vectors without a label have no series until they are set: a
            // service without TLS has no certificate that ended in 1970.
            tls_certificate_expiry: IntGaugeVec::new(
                Opts::new(
                    "kms_tls_certificate_expiry_seconds",
                    "Seconds until the server's certificate ends; negative after.",
                ),
                &[],
            )?,
            crl_age: IntGaugeVec::new(
                Opts::new(
                    "kms_crl_age_seconds",
                    "Seconds since the oldest revocation list in force was made.",
                ),
                &[],
            )?,
            rekey_remaining: IntGauge::new(
                "kms_rekey_remaining",
                "Secrets that are not sealed under the newest key-encryption key yet.",
            )?,
            rsa_stock: IntGauge::new(
                "kms_rsa_stock",
                "RSA pairs that were made beforehand and wait for a key.",
            )?,
            rsa_pairs: IntCounterVec::new(
                Opts::new(
                    "kms_rsa_pairs_total",
                    "RSA pairs of new software keys, by whether they were in stock.",
                ),
                &["source"],
            )?,
            condition: Condition::register(&registry)?,
            #[cfg(target_os = "linux")]
            process: process::Process::register(&registry)?,
            registry,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_errors.clone()))?;
        registry.register(Box::new(metrics.operation_latency.clone()))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.key_usage.clone()))?;
        registry.register(Box::new(metrics.hsm_available.clone()))?;
        registry.register(Box::new(metrics.keys_quarantined.clone()))?;
        registry.register(Box::new(metrics.keys_due.clone()))?;
        registry.register(Box::new(metrics.scheduler_last_run.clone()))?;
        registry.register(Box::new(metrics.hsm_latency.clone()))?;
        registry.register(Box::new(metrics.ledger_size.clone()))?;
        registry.register(Box::new(metrics.ledger_commit_latency.clone()))?;
        registry.register(Box::new(metrics.rate_limited.clone()))?;
        registry.register(Box::new(metrics.jwks_age.clone()))?;
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.tls_handshakes.clone()))?;
        registry.register(Box::new(metrics.tls_handshakes_refused.clone()))?;
        registry.register(Box::new(metrics.tls_certificate_expiry.clone()))?;
        registry.register(Box::new(metrics.crl_age.clone()))?;
        registry.register(Box::new(metrics.rekey_remaining.clone()))?;
        registry.register(Box::new(metrics.rsa_stock.clone()))?;
        registry.register(Box::new(metrics.rsa_pairs.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new("kms_build_info", "The running build; always 1."),
            &["version"],
        )?;
        build.with_label_values(&[version]).set(1);
        registry.register(Box::new(build))?;
        for code in ErrorCode::ALL {
            // An error that has not happened yet is a zero and not a gap, so that
            // the first one shows in a rate.
            metrics.request_errors.with_label_values(&[code.as_str()]);
        }
        for operation in RequestOperation::ALL {
            // A burst between two scrapes as well: a series that is born at 3,000 has
            // risen by nothing, and the error budget would not notice.
            for status in OUR_FAILURES {
                metrics.requests_of(operation, status);
            }
        }
        for source in [FROM_STOCK, MADE_FOR_IT] {
            metrics.rsa_pairs.with_label_values(&[source]);
        }
        Ok(metrics)
    }

    /// Counts a finished request.
    pub fn observe_request(&self, operation: RequestOperation, status: u16, took: Duration) {
        self.requests_of(operation, status).inc();
        self.operation_latency
            .with_label_values(&[operation.as_str()])
            .observe(milliseconds(took));
    }

    /// The requests of one operation that ended with this status.
    fn requests_of(&self, operation: RequestOperation, status: u16) -> IntCounter {
        let mut digits = [0u8; 3];
        let status = status_text(status, &mut digits);
        self.requests
            .with_label_values(&[operation.as_str(), status])
    }

    /// Counts a request that failed.
    pub fn count_error(&self, error: &KmsError) {
        let code = error.code();
        self.request_errors
            .with_label_values(&[code.as_str()])
            .inc();
        if code == ErrorCode::RateLimited {
            self.rate_limited.inc();
        }
        if let KmsError::DependencyUnavailable { dependency, .. } = error {
            self.count_dependency_failure(*dependency);
        }
    }

    /// From now on this material may be read again: zeros and not gaps, so that the
    /// first refusal shows in a rate.
    pub fn expect_reloads(&self, material: &'static str) {
        for outcome in [TAKEN, REFUSED] {
            self.reloads.with_label_values(&[material, outcome]);
        }
    }

    /// Counts a reading of renewable material, by its fixed name; one that failed
    /// left the old in force.
    pub fn count_reload(&self, material: &'static str, taken: bool) {
        let outcome = if taken { TAKEN } else { REFUSED };
        self.reloads.with_label_values(&[material, outcome]).inc();
    }

    /// Counts uses of a key that were done.
    pub fn count_key_usage(&self, usage: KeyUsage, key_type: KeyType, uses: usize) {
        self.key_usage
            .with_label_values(&[usage.as_str(), key_type.as_str()])
            .inc_by(uses as u64);
    }

    /// The time one call of the HSM backend took.
    pub fn observe_hsm(&self, operation: &'static str, took: Duration) {
        self.hsm_latency
            .with_label_values(&[operation])
            .observe(milliseconds(took));
    }

    /// Whether the HSM passed its last self-test.
    pub fn set_hsm_available(&self, available: bool) {
        self.hsm_available.set(i64::from(available));
    }

    /// How many keys are in quarantine.
    pub fn set_keys_quarantined(&self, number: usize) {
        self.keys_quarantined
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// How many keys are due for one kind of step.
    pub fn set_keys_due(&self, kind: &'static str, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.keys_due.with_label_values(&[kind]).set(number);
    }

    /// When the scheduler last finished a round.
    pub fn set_scheduler_last_run(&self, when: Timestamp) {
        self.scheduler_last_run
            .set(when.microseconds().div_euclid(1_000_000));
    }

    /// The time one durable write of the ledger took.
    pub fn observe_ledger_commit(&self, took: Duration) {
        self.ledger_commit_latency.observe(milliseconds(took));
    }

    /// The time since a key set was last read successfully.
    pub fn set_jwks_age(&self, set: JwksSet, age: Duration) {
        self.jwks_age
            .with_label_values(&[set.as_str()])
            .set(age.as_secs_f64());
    }

    /// The number of receipts.
    pub fn set_ledger_size(&self, receipts: u64) {
        self.ledger_size
            .set(i64::try_from(receipts).unwrap_or(i64::MAX));
    }

    /// The number of keys of one type in one state.
    pub fn set_keys(&self, key_type: KeyType, key_state: KeyState, number: u64) {
        self.keys
            .with_label_values(&[key_type.as_str(), key_state.as_str()])
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// From now on these are the reasons that a handshake may be refused for:
    /// zeros and not gaps, so that the first one shows in a rate.
    pub fn expect_handshake_refusals(&self, reasons: impl Iterator<Item = &'static str>) {
        for outcome in [ESTABLISHED, REFUSED] {
            self.tls_handshakes.with_label_values(&[outcome]);
        }
        for reason in reasons {
            self.tls_handshakes_refused.with_label_values(&[reason]);
        }
    }

    /// Counts a TLS handshake; with the reason, from a closed list, where it was
    /// refused.
    pub fn count_handshake(&self, refused: Option<&'static str>) {
        let outcome = if refused.is_some() {
            REFUSED
        } else {
            ESTABLISHED
        };
        self.tls_handshakes.with_label_values(&[outcome]).inc();
        if let Some(reason) = refused {
            self.tls_handshakes_refused
                .with_label_values(&[reason])
                .inc();
        }
    }

    /// The time until the server's certificate ends.
    pub fn set_tls_certificate_expiry_seconds(&self, seconds: i64) {
        let none: [&str; 0] = [];
        self.tls_certificate_expiry
            .with_label_values(&none)
            .set(seconds);
    }

    /// The age of the oldest revocation list in force.
    pub fn set_crl_age_seconds(&self, seconds: i64) {
        let none: [&str; 0] = [];
        self.crl_age.with_label_values(&none).set(seconds);
    }

    /// The number of secrets that are to be sealed anew.
    pub fn set_rekey_remaining(&self, secrets: u64) {
        self.rekey_remaining
            .set(i64::try_from(secrets).unwrap_or(i64::MAX));
    }

    /// How many RSA pairs wait for a key.
    pub fn set_rsa_stock(&self, pairs: usize) {
        self.rsa_stock.set(i64::try_from(pairs).unwrap_or(i64::MAX));
    }

    /// Counts the RSA pair of a new key: one that was in stock, or one that somebody
    /// waited for.
    pub fn count_rsa_pair(&self, was_in_stock: bool) {
        let source = if was_in_stock {
            FROM_STOCK
        } else {
            MADE_FOR_IT
        };
        self.rsa_pairs.with_label_values(&[source]).inc();
    }

    /// Everything, in the Prometheus text format.
    ///
    /// # Errors
    /// [`prometheus::Error`] when a metric does not encode.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        #[cfg(target_os = "linux")]
        self.process.look();
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The content type of [`Metrics::render`].
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

/// An HTTP status in three digits, without an allocation.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    for (place, digit) in [100, 10, 1].into_iter().zip(digits.iter_mut()) {
        *digit = b'0' + u8::try_from(status / place % 10).unwrap_or(0);
    }
    std::str::from_utf8(digits).unwrap_or("000")
}
