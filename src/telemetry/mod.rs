//! What the service says about itself: logs and metrics.

pub mod log;
pub mod metrics;
pub mod trace_context;
