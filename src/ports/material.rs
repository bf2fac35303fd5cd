//! `Material`: what the operator lays out beside the service and renews while it
//! runs: certificates, authorities, revocation lists, key sets.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::time::Timestamp;

/// One kind of renewable material, in force until a good new one takes its place.
///
/// **Verify, then swap:** [`reload`] puts the new in the place of the old only
/// once all of it is read and checked. What was in force stays in force after a
/// failure, and whoever uses it meanwhile never waits.
///
/// [`reload`]: Material::reload
#[async_trait]
pub trait Material: Send + Sync + 'static {
    /// What it is, for the log, the metrics and the health report: one of a
    /// handful of fixed words.
    fn name(&self) -> &'static str;

    /// The files and folders it is read from; a change of any of them is a
    /// reason to read again. Empty where it comes from an address.
    fn files(&self) -> Vec<PathBuf>;

    /// How often it is read again though nothing is known to have changed;
    /// `None` for files, which are watched.
    fn refresh_every(&self) -> Option<Duration> {
        None
    }

    /// Waits until somebody misses something in it (a key set: an unknown key)
    /// so that reading again may help. Never returns where that cannot be.
    async fn wanted(&self) {
        std::future::pending().await
    }

    /// Reads it again and swaps it in.
    ///
    /// # Errors
    /// [`MaterialFault`], with the old still in force.
    async fn reload(&self) -> Result<(), MaterialFault>;

    /// How it stands now, in words for an operator; also sets its gauges.
    fn standing(&self, now: Timestamp) -> Standing;
}

/// Why new material was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct MaterialFault {
    /// What is wrong with which file, and how to mend it. No secrets.
    pub what: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MaterialFault {
    /// A fault that needs no further cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }
}

/// So many of something, in words.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// How material stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Good.
    Good(String),
    /// In force, and somebody has to look after it.
    NeedsCare(String),
    /// Not usable.
    Unusable(String),
}
