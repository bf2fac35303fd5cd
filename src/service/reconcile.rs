//! Holding the store and the HSM backends against each other: every live key is to
//! have its secret, and every secret its key.
//!
//! A key whose secret is gone is in quarantine: its uses are refused as long as the
//! backend does not have it, and its metadata stays, since the backend may be the one
//! at fault. What a backend has beyond the store's keys is told and left alone: it
//! may be another service's.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::KmsService;
use super::pipeline::{hsm_failure, store_away};
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyId, KeyRef};
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::hsm::HsmBackend;

/// Keys that are asked of the store at a time.
const PAGE: usize = 1_000;

/// How many keys a report names.
const NAMED: usize = 3;

/// Keys whose secret their backend does not have.
#[derive(Default)]
pub(super) struct Quarantine(Mutex<Cases>);

#[derive(Default)]
struct Cases {
    missing: HashMap<KeyId, HsmBackendName>,
    /// When the backends were last held against the store.
    looked_at: Option<Timestamp>,
}

impl Quarantine {
    /// Whether a key is in quarantine.
    pub(super) fn holds(&self, key_id: KeyId) -> bool {
        self.lock().missing.contains_key(&key_id)
    }

    /// Puts a key in quarantine, which is logged once, with why its backend does not have
    /// it where that is known.
    pub(super) fn add(&self, record: &KeyRecord, why: Option<String>) {
        let added = self.lock().missing.insert(record.key_id, record.backend);
        if added.is_none() {
            tracing::error!(
                key_id = %record.key_id,
                backend = record.backend.as_str(),
                why,
                "the HSM does not have this key: it is in quarantine, and its metadata stays"
            );
        }
    }

    /// Lets out the keys of a backend that are not in this set, and those that it
    /// has again.
    fn keep_only(&self, backend: HsmBackendName, missing: &HashSet<KeyId>) {
        self.lock().missing.retain(|key_id, holder| {
            let stays = *holder != backend || missing.contains(key_id);
            if !stays {
                tracing::info!(%key_id, "the HSM has this key again: it leaves quarantine");
            }
            stays
        });
    }

    fn looked_at(&self, now: Timestamp) {
        self.lock().looked_at = Some(now);
    }

    /// The number of keys in quarantine, and a few of them; and when they were looked
    /// for last.
    pub(super) fn cases(&self) -> (usize, Vec<KeyId>, Option<Timestamp>) {
        let cases = self.lock();
        let mut named: Vec<KeyId> = cases.missing.keys().copied().collect();
        named.sort_unstable();
        named.truncate(NAMED);
        (cases.missing.len(), named, cases.looked_at)
    }

    fn lock(&self) -> MutexGuard<'_, Cases> {
        // A map is whole after every step, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KmsService {
    /// Holds every backend that keeps keys itself against the store, once.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] for the first that cannot be asked; nothing
    /// is decided about its keys then.
    pub async fn reconcile(&self) -> Result<(), KmsError> {
        for hsm in self.ports.hsm.all() {
            self.reconcile_backend(hsm).await?;
        }
        self.quarantine.looked_at(self.ports.clock.now());
        Ok(())
    }

    async fn reconcile_backend(&self, hsm: &dyn HsmBackend) -> Result<(), KmsError> {
        let backend = hsm.name();
        // The store first: what is made meanwhile is in the backend by then.
        let mut stored: HashMap<KeyId, Scope> = HashMap::new();
        let mut after = None;
        loop {
            let page = self
                .ports
                .data_plane
                .keys_held(backend, after, PAGE)
                .await
                .map_err(store_away)?;
            after = page.last().map(|(key_id, _)| *key_id);
            let is_last = page.len() < PAGE;
            stored.extend(page);
            if is_last {
                break;
            }
        }
        let Some(held) = hsm.inventory().await.map_err(hsm_failure)? else {
            return Ok(());
        };
        let mut missing = HashSet::new();
        for (key_id, scope) in &stored {
            if held.contains(key_id) {
                continue;
            }
            // It may have been revoked meanwhile.
            let key = KeyRef::Id(*key_id);
            let found = self.ports.data_plane.find_key(scope, &key).await;
            if let Some(found) = found.map_err(store_away)?
                && found.record.key_state != KeyState::Destroyed
            {
                let why = found
                    .handle
                    .as_ref()
                    .and_then(|handle| hsm.is_elsewhere(*key_id, handle));
                self.quarantine.add(&found.record, why);
                missing.insert(*key_id);
            }
        }
        self.quarantine.keep_only(backend, &missing);
        let strangers = held.iter().filter(|id| !stored.contains_key(id)).count();
        tracing::info!(
            backend = backend.as_str(),
            keys = stored.len(),
            missing = missing.len(),
            strangers,
            "the HSM was held against the store"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::active_key;

    #[test]
    fn a_key_leaves_quarantine_when_its_own_backend_has_it_again() {
        let quarantine = Quarantine::default();
        let (mut here, mut gone, elsewhere) = (active_key(), active_key(), active_key());
        here.backend = HsmBackendName::Pkcs11;
        gone.backend = HsmBackendName::Pkcs11;
        for record in [&here, &gone, &elsewhere] {
            quarantine.add(record, None);
        }
        quarantine.keep_only(HsmBackendName::Pkcs11, &HashSet::from([gone.key_id]));
        assert!(!quarantine.holds(here.key_id));
        assert!(quarantine.holds(gone.key_id));
        assert!(quarantine.holds(elsewhere.key_id));
        assert_eq!(quarantine.cases().0, 2);
    }
}
