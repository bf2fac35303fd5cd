//! What comes out: lines as they are measured, and at the end a table and pictures.

pub(crate) mod pictures;
pub(crate) mod svg;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

/// One measured line.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// What the operation was measured through.
    pub(crate) through: String,
    /// Connections, or tasks at once.
    pub(crate) at_once: usize,
    /// Answers a second, in the closed loop.
    pub(crate) per_second: f64,
    /// p50, p95, p99 and p99.9 in milliseconds, in the open loop.
    pub(crate) latency_ms: Option<[f64; 4]>,
    /// Microseconds of the server's cores for an answer, in the closed loop.
    pub(crate) cpu_us: f64,
    /// Resident memory of the server afterwards, in MiB.
    pub(crate) resident_mib: Option<f64>,
    /// Receipts that shared a durable write, and milliseconds that one took.
    pub(crate) writes: Option<(f64, f64)>,
    /// Microseconds that it takes at least.
    pub(crate) limit_us: Option<f64>,
}

/// The quantiles that are told.
pub(crate) const QUANTILES: [f64; 4] = [0.50, 0.95, 0.99, 0.999];
