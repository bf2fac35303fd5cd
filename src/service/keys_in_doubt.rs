//! Keeping the backend the same as the store, when the making or the revocation of
//! a key ends in the middle.
//!
//! A key that no store has taken must leave the backend, and so must one that was
//! revoked; one that the store has must not lose its secret. A commit whose request
//! was given up, or that the store did not answer in time, may be either. What is
//! left to do is noted here then, and the next probe that finds the store well asks
//! it and does that.

use std::time::Duration;

use super::KmsService;
use super::doubts::Doubts;
use super::pipeline::store_away;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyId, KeyRef};
use crate::domain::key::{HsmBackendName, KeyHandle, KeyRecord};
use crate::domain::lifecycle_permit::ErasePermit;
use crate::domain::scope::Scope;
use crate::ports::data_plane::Unavailable;
use crate::ports::hsm::GeneratedKey;
use crate::ports::upkeep_store::KeyIntent;

/// Longer than any backend takes to make a key, and any request to store it.
const LONGEST_MAKING: Duration = Duration::from_secs(300);

/// Forgotten keys that are given up in one round.
const AT_ONCE: usize = 32;

/// What is left to do in the backend, depending on what the store has kept.
pub(super) enum LooseEnd {
    /// A new key, to be discarded if the store does not have it.
    Made(GeneratedKey),
    /// A revocation, to be completed if the store has it.
    Revoking(ErasePermit),
}

/// A key of which nobody knows what is kept.
pub(super) struct KeyDoubt {
    scope: Scope,
    key_id: KeyId,
    end: LooseEnd,
}

/// A step in a key's life that is being kept. Dropped before it is settled, by
/// whatever cut it short, it leaves the key in doubt.
pub(super) struct UnsettledKey<'a> {
    in_doubt: &'a Doubts<KeyDoubt>,
    doubt: Option<KeyDoubt>,
}

impl UnsettledKey<'_> {
    /// How the backend finds a key that was made.
    pub(super) fn new_handle(&self) -> Option<&KeyHandle> {
        match self.doubt.as_ref().map(|doubt| &doubt.end) {
            Some(LooseEnd::Made(generated)) => Some(&generated.handle),
            _ => None,
        }
    }

    /// Which key it is.
    pub(super) fn key_id(&self) -> Option<KeyId> {
        self.doubt.as_ref().map(|doubt| doubt.key_id)
    }

    /// The store has answered: what is left to do is the caller's to do, or not.
    pub(super) fn settled(mut self) -> Option<LooseEnd> {
        self.doubt.take().map(|doubt| doubt.end)
    }
}

impl Drop for UnsettledKey<'_> {
    fn drop(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            note(self.in_doubt, doubt);
        }
    }
}

fn note(in_doubt: &Doubts<KeyDoubt>, doubt: KeyDoubt) {
    if let Err(doubt) = in_doubt.note(doubt) {
        tracing::error!(
            key_id = %doubt.key_id,
            "too many unfinished steps of keys: this one may leave a secret in the HSM"
        );
    }
}

/// Keys whose doubts were noted before a probe began.
pub(super) struct KeySettlingRound<'a> {
    service: &'a KmsService,
    doubts: Vec<KeyDoubt>,
}

impl KmsService {
    /// To be held while a step in a key's life is being kept.
    pub(super) fn unsettled_key(
        &self,
        scope: &Scope,
        key_id: KeyId,
        end: LooseEnd,
    ) -> UnsettledKey<'_> {
        UnsettledKey {
            in_doubt: &self.keys_in_doubt,
            doubt: Some(KeyDoubt {
                scope: scope.clone(),
                key_id,
                end,
            }),
        }
    }

    /// Takes up the doubts there are now; see [`KmsService::begin_settling`].
    pub(super) fn begin_settling_keys(&self) -> KeySettlingRound<'_> {
        KeySettlingRound {
            service: self,
            doubts: self.keys_in_doubt.take(),
        }
    }

    /// Announces a key to the store, if the backend is going to keep it itself; whether
    /// it had to be.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`]; the key must not be made then.
    pub(super) async fn announce_key(
        &self,
        key_id: KeyId,
        backend: HsmBackendName,
    ) -> Result<bool, KmsError> {
        if !backend.keeps_keys() {
            return Ok(false);
        }
        let intent = KeyIntent {
            key_id,
            backend,
            begun_at: self.ports.clock.now(),
        };
        let announced = self.ports.data_plane.begin_key(intent).await;
        announced.map_err(store_away)?;
        Ok(true)
    }

    /// Gives up a key that was announced, and destroys what the backend has of it;
    /// whether nothing is left to do. The rest is left to the next round of upkeep.
    pub(super) async fn give_up_key(&self, key_id: KeyId, backend: HsmBackendName) -> bool {
        let data_plane = &self.ports.data_plane;
        // In this order: once it is given up no transaction stores it.
        match data_plane.abandon_key(key_id).await {
            Ok(true) => {}
            // It is stored, or nothing was left over.
            Ok(false) => return true,
            Err(_) => return false,
        }
        self.discard(key_id, backend).await && data_plane.end_intent(key_id).await.is_ok()
    }

    /// Gives up the keys that nobody is making any longer: what was announced before this
    /// process began, or so long ago that every request for it has ended. Whether all
    /// of it came to its end.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] while the store is away.
    pub(super) async fn give_up_forgotten_keys(&self) -> Result<bool, KmsError> {
        let long_ago = self.ports.clock.now().minus(LONGEST_MAKING);
        let before = long_ago.max(self.began_at);
        let intents = self.ports.data_plane.open_intents(before, AT_ONCE).await;
        for intent in intents.map_err(store_away)? {
            tracing::warn!(
                key_id = %intent.key_id,
                begun_at = %intent.begun_at,
                "a key whose making was cut short is given up"
            );
            if !self.give_up_key(intent.key_id, intent.backend).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Undoes the making of a key that was not stored.
    pub(super) async fn unmake(&self, key_id: KeyId, backend: HsmBackendName) {
        match backend.keeps_keys() {
            true => self.give_up_key(key_id, backend).await,
            false => self.discard(key_id, backend).await,
        };
    }

    /// Throws away a key that no store has; whether that came to its end.
    async fn discard(&self, key_id: KeyId, backend: HsmBackendName) -> bool {
        let discarded = match self.ports.hsm.holding(backend) {
            Ok(hsm) => hsm.discard(key_id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &discarded {
            tracing::error!(
                %key_id,
                error = error as &dyn std::error::Error,
                "a key that was not stored could not be discarded in the HSM"
            );
        }
        discarded.is_ok()
    }

    /// Erases the backend's own copy of a key whose handle the store has forgotten.
    pub(super) async fn erase(&self, key_id: KeyId, permit: &ErasePermit) {
        let erased = match self.ports.hsm.holding(permit.record().backend) {
            Ok(hsm) => hsm.erase(permit).await,
            Err(error) => Err(error),
        };
        if let Err(error) = erased {
            tracing::error!(
                %key_id,
                error = &error as &dyn std::error::Error,
                "a revoked key could not be erased in the HSM"
            );
        }
    }
}

impl KeySettlingRound<'_> {
    /// Asks the store about each, which must have answered a write since.
    pub(super) async fn settle(mut self) {
        while let Some(doubt) = self.doubts.last() {
            let Ok(kept) = self.kept_record(doubt).await else {
                // The rest is for the next round.
                return;
            };
            let Some(doubt) = self.doubts.pop() else {
                return;
            };
            tracing::info!(
                key_id = %doubt.key_id,
                is_kept = kept.is_some(),
                "an unfinished step of a key is settled"
            );
            match (doubt.end, kept) {
                (LooseEnd::Made(generated), None) => {
                    self.service.unmake(doubt.key_id, generated.backend).await;
                }
                // A revocation that was not kept leaves a key that can be restored, and
                // needs its secret then.
                (LooseEnd::Revoking(permit), Some(kept)) if kept.is_erased() => {
                    self.service.erase(doubt.key_id, &permit).await;
                }
                _ => {}
            }
        }
    }

    async fn kept_record(&self, doubt: &KeyDoubt) -> Result<Option<KeyRecord>, Unavailable> {
        let data_plane = &self.service.ports.data_plane;
        let key = KeyRef::Id(doubt.key_id);
        let found = data_plane.find_key(&doubt.scope, &key).await?;
        Ok(found.map(|key| key.record.clone()))
    }
}

impl Drop for KeySettlingRound<'_> {
    fn drop(&mut self) {
        for doubt in self.doubts.drain(..) {
            note(&self.service.keys_in_doubt, doubt);
        }
    }
}
