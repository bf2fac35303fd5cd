//! Sealing secrets anew, a page at a time and no faster than leaves room for
//! requests.

use std::time::Duration;

use tokio::time::Instant;

use super::count_by_kek;
use super::keeper::{KekKeeper, Stage};
use crate::adapters::hsm::software::seal::SecretBinding;
use crate::domain::ids::KeyId;
use crate::domain::key::HsmBackendName;
use crate::ports::data_plane::Unavailable;
use crate::ports::handle_store::{HandleReplacement, KeptHandle};

/// Secrets that are sealed anew in one write: few enough that a request which waits
/// for it does not notice.
const PAGE: usize = 100;

/// The shortest rest between two writes.
const SHORTEST_REST: Duration = Duration::from_millis(5);

/// How often the progress is logged.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How far it has come.
pub(super) struct Progress {
    /// Secrets that are not sealed under the key that seals; `None` before they were
    /// counted.
    pub(super) remaining: Option<u64>,
    /// Those of them that did not open.
    stuck: u64,
    /// What it waits for.
    hindered_by: Option<&'static str>,
    said: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            remaining: None,
            stuck: 0,
            hindered_by: None,
            said: Instant::now(),
        }
    }
}

/// What one pass over all secrets came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// All are sealed under the key that seals, and no other can come to be stored.
    NoneLeft,
    /// So are all that were found, but a key that was made before may still come.
    Unsettled,
    /// There were others. They are sealed anew now, but for some that may have come
    /// behind.
    SomeSealed,
    /// There were others, and none of them could be sealed anew.
    Stuck,
}

impl KekKeeper {
    /// Goes through all secrets once, and seals anew those that are sealed under
    /// another key than the one that seals.
    pub(super) async fn pass(&mut self) -> Result<Passed, Unavailable> {
        self.count().await?;
        // Before the first look: what is settled then is seen by it.
        let is_settled = !self.ports.hsm.has_unsettled();
        let (mut found, mut stuck, mut after) = (0, 0, None);
        loop {
            let started = Instant::now();
            let page = self.ports.data_plane.list_handles(after, PAGE).await?;
            after = page.handles.last().map(|kept| kept.key_id).or(after);
            let others: Vec<KeptHandle> = page
                .handles
                .into_iter()
                .filter(|kept| kept.backend == HsmBackendName::Software)
                .filter(|kept| !self.ports.hsm.is_sealed_anew(&kept.handle))
                .collect();
            if !others.is_empty() {
                let number = others.len() as u64;
                let not_sealed = self.seal_anew(others).await?;
                found += number;
                stuck += not_sealed;
                self.set_remaining(|remaining| remaining.saturating_sub(number - not_sealed));
                tokio::time::sleep(started.elapsed().max(SHORTEST_REST)).await;
            }
            self.say_progress();
            self.answer_all().await;
            if !page.has_more {
                break;
            }
        }
        self.progress.stuck = stuck;
        self.progress.hindered_by = None;
        self.set_remaining(|_| stuck);
        Ok(match (found, is_settled) {
            (0, true) => Passed::NoneLeft,
            (0, false) => Passed::Unsettled,
            _ if found == stuck => Passed::Stuck,
            _ => Passed::SomeSealed,
        })
    }

    /// Seals these anew; answers how many of them could not be.
    async fn seal_anew(&self, others: Vec<KeptHandle>) -> Result<u64, Unavailable> {
        let sealed: Vec<(KeyId, _)> = others
            .into_iter()
            .map(|kept| {
                let binding = SecretBinding {
                    key_id: kept.key_id,
                    scope: kept.scope,
                    key_type: kept.key_type,
                };
                (kept.key_id, (binding, kept.handle))
            })
            .collect();
        let work = sealed.iter().map(|(_, work)| work.clone()).collect();
        let anew = self.ports.hsm.reseal(work).await;
        let anew = anew.map_err(|error| Unavailable(Box::new(error)))?;
        let mut replacements = Vec::with_capacity(sealed.len());
        let mut stuck = 0;
        for ((key_id, (_, from)), to) in sealed.into_iter().zip(anew) {
            match to {
                Ok(Some(to)) => replacements.push(HandleReplacement { key_id, from, to }),
                Ok(None) => {}
                // Which key and why is in the log already.
                Err(_) => stuck += 1,
            }
        }
        // How many were replaced says nothing: what was not is erased or changed, and
        // the next pass looks at it.
        self.ports.data_plane.replace_handles(replacements).await?;
        Ok(stuck)
    }

    /// Counts once how many there are to do.
    async fn count(&mut self) -> Result<(), Unavailable> {
        if self.progress.remaining.is_some() {
            return Ok(());
        }
        let sealing = Some(self.ports.hsm.sealing_id());
        let counts = count_by_kek(&*self.ports.data_plane).await?;
        let others = counts.iter().filter(|(id, _)| **id != sealing);
        let number = others.map(|(_, number)| number).sum();
        tracing::info!(number, "secrets to be sealed anew");
        self.progress.remaining = Some(number);
        self.set_remaining(|remaining| remaining);
        Ok(())
    }

    /// Something holds it up.
    pub(super) fn hindered(&mut self, by: &'static str) {
        self.progress.hindered_by = Some(by);
        self.note_progress();
    }

    fn set_remaining(&mut self, change: impl FnOnce(u64) -> u64) {
        let remaining = change(self.progress.remaining.unwrap_or(0));
        self.progress.remaining = Some(remaining);
        self.ports.metrics.set_rekey_remaining(remaining);
        self.note_progress();
    }

    fn say_progress(&mut self) {
        if self.progress.said.elapsed() >= SAY_EVERY {
            self.progress.said = Instant::now();
            tracing::info!(
                remaining = self.progress.remaining,
                "secrets are being sealed anew"
            );
        }
    }

    /// Writes down how it stands, for the health report.
    pub(super) fn note_progress(&self) {
        let Stage::Resealing { to } = &self.stage else {
            return;
        };
        let mut words = format!("secrets are being sealed anew under {to}");
        if let Some(remaining) = self.progress.remaining {
            words.push_str(&format!(", {remaining} to go"));
        }
        if self.progress.stuck > 0 {
            words.push_str(&format!(
                "; {} do not open, the log says of which keys: the old key-encryption key is \
                 needed until these keys are revoked",
                self.progress.stuck
            ));
        }
        if let Some(by) = self.progress.hindered_by {
            words.push_str(&format!("; {by}"));
        }
        self.board.write(|notes| notes.resealing = Some(words));
    }
}
