//! Looking keys up.

use super::pipeline::store_away;
use super::{KmsService, RequestContext};
use crate::domain::algorithm::KeyType;
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef};
use crate::domain::key::{KeyRecord, KeyState};
use crate::domain::scope::Scope;
use crate::ports::data_plane::KeyQuery;

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

impl KmsService {
    /// The metadata of one key.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::KeyNotFound`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn get_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<KeyRecord, KmsError> {
        let found = self.find_key(context, scope, key).await?;
        Ok(found.record.clone())
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
