//! `HandleStore`: the part of the data plane (M29) through which handles are
//! replaced, when their secrets are sealed under another key.

use async_trait::async_trait;

use super::data_plane::Unavailable;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::scope::Scope;

/// What the store does with handles whatever the state of their keys: those of
/// destroyed keys that wait for their erasure are among them.
///
/// A record never changes by it, and so neither does its version: a use that was
/// permitted with the old handle is kept.
#[async_trait]
pub trait HandleStore: Send + Sync + 'static {
    /// One page of the handles that are not erased, by the ids of their keys.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn list_handles(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<HandlePage, Unavailable>;

    /// Puts each new handle in the place of the old one, durably, all or none; but
    /// one that is no longer the old one, since it was erased or replaced meanwhile,
    /// stays as it is. Answers how many were replaced. From then on
    /// [`DataPlane::find_key`] finds the new ones.
    ///
    /// [`DataPlane::find_key`]: super::data_plane::DataPlane::find_key
    ///
    /// # Errors
    /// [`Unavailable`], also for a new handle that is not as long as the old one: a
    /// handle is overwritten in its place.
    async fn replace_handles(
        &self,
        replacements: Vec<HandleReplacement>,
    ) -> Result<u64, Unavailable>;

    /// Sees to it that nothing is left on the disk of handles that were replaced.
    /// `false` while somebody who reads holds that up.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn wipe_replaced(&self) -> Result<bool, Unavailable>;

    /// Moves what is pinned to a name from one value to another, durably, and answers
    /// what is pinned then: the new value, or, where it was not the old one, that.
    ///
    /// # Errors
    /// [`Unavailable`], also where nothing is pinned to the name.
    async fn move_pin(
        &self,
        name: &'static str,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<u8>, Unavailable>;
}

/// A handle that is kept, and what its secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptHandle {
    /// The key.
    pub key_id: KeyId,
    /// Where it lives.
    pub scope: Scope,
    /// What kind of key it is.
    pub key_type: KeyType,
    /// Whose handle it is.
    pub backend: HsmBackendName,
    /// The handle.
    pub handle: KeyHandle,
}

/// One page of handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlePage {
    /// The handles, by the ids of their keys.
    pub handles: Vec<KeptHandle>,
    /// Whether there are more after the last.
    pub has_more: bool,
}

/// A handle to be put in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleReplacement {
    /// The key.
    pub key_id: KeyId,
    /// What must be there.
    pub from: KeyHandle,
    /// What takes its place, in as many bytes.
    pub to: KeyHandle,
}
