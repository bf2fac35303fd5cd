//! Looking keys up.

use super::pipeline::store_away;
use super::{KmsService, RequestContext};
use crate::domain::algorithm::KeyType;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef};
use crate::domain::key::{KeyRecord, KeyState};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::{KeyQuery, LineQuery};

/// Which keys to list.
pub struct ListKeysRequest {
    /// Whose.
    pub scope: Scope,
    /// Only those in this state.
    pub key_state: Option<KeyState>,
    /// Only those of this type.
    pub key_type: Option<KeyType>,
    /// Only those that bear, or bore, this alias.
    pub key_alias: Option<KeyAlias>,
    /// Only those after this one.
    pub after: Option<KeyId>,
    /// At most so many.
    pub limit: usize,
}

/// One page of keys.
pub struct KeyListing {
    /// The keys, oldest first.
    pub keys: Vec<KeyRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<KeyId>,
}

/// How much a key is used.
pub struct UsageReport {
    /// Uses on this UTC day.
    pub used: u64,
    /// Uses that a day has.
    pub limit: u64,
    /// When the next day begins.
    pub resets_at: Timestamp,
    /// When the key was used last.
    pub last_used_at: Option<Timestamp>,
}

/// One page of a line of rotations.
pub struct VersionListing {
    /// The keys, oldest first.
    pub keys: Vec<KeyRecord>,
    /// After how many rotations the next page begins, if there is one.
    pub next: Option<u32>,
}

impl KmsService {
    /// The metadata of one key, and how much it is used.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::KeyNotFound`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn get_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<(KeyRecord, UsageReport), KmsError> {
        let found = self.find_key(context, scope, key).await?;
        let data_plane = &self.ports.data_plane;
        let count = data_plane.usage_count(found.record.key_id).await;
        let count = count.map_err(store_away)?;
        let now = self.ports.clock.now();
        let usage = UsageReport {
            used: count.used_on_day_of(now),
            limit: found.record.access_policy.max_usage_per_day,
            resets_at: now.next_utc_day(),
            last_used_at: count.last_used_at,
        };
        Ok((found.record.clone(), usage))
    }

    /// One page of the line of rotations that a key belongs to, oldest first.
    ///
    /// # Errors
    /// As for [`KmsService::get_key`].
    pub async fn key_versions(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
        after: Option<u32>,
        limit: usize,
    ) -> Result<VersionListing, KmsError> {
        let found = self.find_key(context, scope, key).await?;
        let page = self
            .ports
            .data_plane
            .list_line(LineQuery {
                scope: scope.clone(),
                line_id: found.record.line_id,
                after,
                limit,
            })
            .await
            .map_err(store_away)?;
        let next = page
            .has_more
            .then(|| page.keys.last().map(|record| record.rotation_count))
            .flatten();
        Ok(VersionListing {
            keys: page.keys,
            next,
        })
    }

    /// One page of a scope's keys.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::DependencyUnavailable`].
    pub async fn list_keys(
        &self,
        context: &RequestContext,
        request: ListKeysRequest,
    ) -> Result<KeyListing, KmsError> {
        context.caller.authorize(&request.scope)?;
        let page = self
            .ports
            .data_plane
            .list_keys(KeyQuery {
                scope: request.scope,
                key_state: request.key_state,
                key_type: request.key_type,
                key_alias: request.key_alias,
                after: request.after,
                limit: request.limit,
            })
            .await
            .map_err(store_away)?;
        let next = page
            .has_more
            .then(|| page.keys.last().map(|record| record.key_id))
            .flatten();
        Ok(KeyListing {
            keys: page.keys,
            next,
        })
    }
}
