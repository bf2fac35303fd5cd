//! Where a key set comes from: a file, or an address that is asked in the
//! background and never while a request waits.
//!
//! Knows how to read and how often at most; what the keys are for is not its
//! business.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::sync::Notify;

use super::key_set::{KeySet, LARGEST_SET};
use crate::domain::error::{Dependency, KmsError};
use crate::domain::time::{Period, Timestamp};
use crate::ports::clock::Clock;
use crate::ports::material::{Material, MaterialFault, Standing, counted};
use crate::telemetry::metrics::{JwksSet, Metrics};

/// How long one fetch may take, from the connection to the last byte.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);

/// From this age on a set from an address needs somebody to look after it.
const OLD_AFTER: Period = Period::seconds(60 * 60);

/// Whose keys a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetRole {
    /// The identity service's (M21), which sign the callers' tokens.
    Callers,
    /// The approvers'.
    Approvers,
}

impl KeySetRole {
    const fn name(self) -> &'static str {
        match self {
            Self::Callers => "jwks",
            Self::Approvers => "approvers_jwks",
        }
    }

    /// The setting that says where the set is.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Callers => "auth.jwks",
            Self::Approvers => "approvals.jwks",
        }
    }

    const fn metric(self) -> JwksSet {
        match self {
            Self::Callers => JwksSet::M21,
            Self::Approvers => JwksSet::Approvers,
        }
    }
}

/// Where a key set is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySetOrigin {
    /// A file, which is watched.
    File(PathBuf),
    /// An address (`http` or `https`), which is asked now and then. May hold a
    /// password, so it is never printed.
    Address(String),
}

/// How often an address is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Though nothing is known to have changed.
    pub refresh_every: Duration,
    /// At most, when tokens come whose keys are unknown or the last try failed:
    /// made-up names must not turn this service into a flood.
    pub at_most_every: Duration,
    /// While there is no set at all, so that the service recovers soon.
    pub first_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh_every: Duration::from_secs(5 * 60),
            at_most_every: Duration::from_secs(60),
            first_every: Duration::from_secs(5),
        }
    }
}

/// A key set that is kept up to date.
pub struct KeySetSource {
    role: KeySetRole,
    origin: KeySetOrigin,
    pace: Pace,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    client: OnceLock<reqwest::Client>,
    current: ArcSwapOption<Loaded>,
    attempts: Mutex<Attempts>,
    is_missed: AtomicBool,
    missed: Notify,
}

/// A set in force.
struct Loaded {
    keys: Arc<KeySet>,
    read_at: Timestamp,
}

/// What is remembered of the tries to read.
#[derive(Default)]
struct Attempts {
    last: Option<Timestamp>,
    has_failed: bool,
    told: Vec<String>,
}

impl KeySetSource {
    /// A source that has not read anything yet.
    pub fn new(
        role: KeySetRole,
        origin: KeySetOrigin,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with_pace(role, origin, Pace::default(), clock, metrics)
    }

    /// The same at another pace.
    pub fn with_pace(
        role: KeySetRole,
        origin: KeySetOrigin,
        pace: Pace,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            role,
            origin,
            pace,
            clock,
            metrics,
            client: OnceLock::new(),
            current: ArcSwapOption::empty(),
            attempts: Mutex::default(),
            is_missed: AtomicBool::new(false),
            missed: Notify::new(),
        }
    }

    /// Reads the set for the first time. An address that is away is no fault:
    /// the service runs, unready, and recovers when it comes.
    ///
    /// # Errors
    /// [`MaterialFault`] for a file that is missing or bad.
    pub async fn start(&self) -> Result<(), MaterialFault> {
        match (self.reload().await, &self.origin) {
            (Err(fault), KeySetOrigin::File(_)) => Err(fault),
            (Err(fault), KeySetOrigin::Address(_)) => {
                tracing::warn!(
                    material = self.role.name(),
                    error = &fault as &dyn std::error::Error,
                    "the key set is away; what needs it answers 503 until it comes"
                );
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    /// The set in force.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] when there never was one.
    pub(super) fn keys(&self) -> Result<Arc<KeySet>, KmsError> {
        match &*self.current.load() {
            Some(loaded) => Ok(Arc::clone(&loaded.keys)),
            None => Err(KmsError::unavailable(
                Dependency::Iam,
                "the key set has not been read yet",
            )),
        }
    }

    /// Says that a token named a key that the set does not have, so that reading
    /// it again may help. Costs the caller nothing.
    pub(super) fn want_refresh(&self) {
        if !self.is_missed.swap(true, Ordering::Relaxed) {
            self.missed.notify_one();
        }
    }

    /// Whether somebody misses a key since the last reading.
    #[cfg(test)]
    pub(super) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }

    async fn read(&self) -> Result<KeySet, MaterialFault> {
        let setting = self.role.setting();
        let (bytes, place) = match &self.origin {
            KeySetOrigin::File(path) => {
                let place = format!("the key set {} ({setting})", path.display());
                (read_file(path.clone(), &place).await?, place)
            }
            KeySetOrigin::Address(address) => {
                let place = format!("the key set at the address in {setting}");
                (self.fetch(address, &place).await?, place)
            }
        };
        KeySet::parse(&bytes)
            .map_err(|fault| MaterialFault::new(format!("{place} is not acceptable: {fault}")))
    }

    async fn fetch(&self, address: &str, place: &str) -> Result<Vec<u8>, MaterialFault> {
        let failed = |error: reqwest::Error| MaterialFault {
            what: format!("{place} cannot be fetched"),
            // The address may hold a password.
            source: Some(Box::new(error.without_url())),
        };
        let client = self.client().map_err(failed)?;
        let mut response = client.get(address).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            let what = format!("{place} answers {} and not 200", response.status().as_u16());
            return Err(MaterialFault::new(what));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > LARGEST_SET {
                return Err(MaterialFault::new(format!("{place} is larger than 1 MiB")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Made with the first fetch, since it needs the machine's authorities, whose
    /// absence must not keep the service from starting.
    fn client(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .timeout(FETCH_DEADLINE)
            .connect_timeout(FETCH_DEADLINE)
            // Whoever could redirect could name another's keys.
            .redirect(reqwest::redirect::Policy::none())
            // Settings come from the configuration and not from variables.
            .no_proxy()
            .user_agent(concat!("kms/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }

    fn publish(&self, keys: KeySet, read_at: Timestamp) {
        let mut notes = keys.notes().to_vec();
        if self.role == KeySetRole::Approvers && keys.without_owner() > 0 {
            notes.push(format!(
                "{} of its keys name no owner: their holders can approve under any name; add sub \
                 to each JWK",
                keys.without_owner()
            ));
        }
        let keys = Arc::new(keys);
        self.current.store(Some(Arc::new(Loaded { keys, read_at })));
        let mut attempts = self.attempts();
        attempts.has_failed = false;
        // Once, and not with every refresh.
        if attempts.told != notes {
            for note in &notes {
                tracing::warn!(material = self.role.name(), "key set: {note}");
            }
            attempts.told = notes;
        }
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until reading again makes sense though nobody's interval says
    /// so; `None` when there is no reason to.
    fn due_in(&self) -> Option<Duration> {
        let (last, has_failed) = {
            let attempts = self.attempts();
            (attempts.last, attempts.has_failed)
        };
        let pause = if self.current.load().is_none() {
            self.pace.first_every
        } else if has_failed || self.is_missed.load(Ordering::Relaxed) {
            self.pace.at_most_every
        } else {
            return None;
        };
        let elapsed = last.map_or(pause, |last| age(last, self.clock.now()));
        Some(pause.saturating_sub(elapsed))
    }
}

fn age(then: Timestamp, now: Timestamp) -> Duration {
    let microseconds = now.microseconds().saturating_sub(then.microseconds());
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
}

async fn read_file(path: PathBuf, place: &str) -> Result<Vec<u8>, MaterialFault> {
    let failed = |error: std::io::Error| MaterialFault {
        what: format!("{place} cannot be read"),
        source: Some(Box::new(error)),
    };
    tokio::task::spawn_blocking(move || read_bounded(&path))
        .await
        .map_err(std::io::Error::other)
        .and_then(|read| read)
        .map_err(failed)
}

/// Reads one byte more than is taken at most, which tells that there are more.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST_SET + 1).unwrap_or(u64::MAX);
    std::fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[async_trait]
impl Material for KeySetSource {
    fn name(&self) -> &'static str {
        self.role.name()
    }

    fn files(&self) -> Vec<PathBuf> {
        match &self.origin {
            KeySetOrigin::File(path) => vec![path.clone()],
            KeySetOrigin::Address(_) => Vec::new(),
        }
    }

    fn refresh_every(&self) -> Option<Duration> {
        match &self.origin {
            KeySetOrigin::File(_) => None,
            KeySetOrigin::Address(_) => Some(self.pace.refresh_every),
        }
    }

    async fn wanted(&self) {
        if let KeySetOrigin::File(_) = self.origin {
            // A file that changes is noticed without anybody's missing anything.
            return std::future::pending().await;
        }
        loop {
            // Whoever drops this future and asks again loses nothing: what is
            // missed is remembered until the next reading.
            match self.due_in() {
                Some(Duration::ZERO) => return,
                Some(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.missed.notified() => {}
                },
                None => self.missed.notified().await,
            }
        }
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let now = self.clock.now();
        self.attempts().last = Some(now);
        // What is missed from here on may be missing in the answer too.
        self.is_missed.store(false, Ordering::Relaxed);
        match self.read().await {
            Ok(keys) => {
                self.publish(keys, now);
                Ok(())
            }
            Err(fault) => {
                self.attempts().has_failed = true;
                Err(fault)
            }
        }
    }

    fn standing(&self, now: Timestamp) -> Standing {
        let Some(loaded) = &*self.current.load() else {
            return Standing::Unusable("never read: tokens cannot be checked".to_owned());
        };
        let age = age(loaded.read_at, now);
        self.metrics.set_jwks_age(self.role.metric(), age);
        let keys = counted(loaded.keys.len() as u64, "key", "keys");
        let is_address = matches!(self.origin, KeySetOrigin::Address(_));
        if self.attempts().has_failed {
            Standing::NeedsCare(format!(
                "the last reading failed; {keys} read {} s ago: still in force",
                age.as_secs()
            ))
        } else if is_address && age > OLD_AFTER.as_duration() {
            Standing::NeedsCare(format!("{keys}, read {} s ago", age.as_secs()))
        } else {
            Standing::Good(keys)
        }
    }
}

#[cfg(test)]
mod tests;
