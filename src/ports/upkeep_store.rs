//! `UpkeepStore`: the store's side of what is done for keys without anybody asking:
//! what is due, who does it, and what was begun in a backend and not stored yet.

use async_trait::async_trait;

use super::data_plane::Unavailable;
use crate::domain::ids::KeyId;
use crate::domain::key::HsmBackendName;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;

/// A part of [`DataPlane`](super::data_plane::DataPlane).
///
/// **A key that a backend keeps itself** is announced by [`begin_key`] before it is
/// made there. The transaction that inserts it takes the intent away, and conflicts
/// where there is none any more. So an intent that is left over names all that a crash
/// can leave in the backend, and once it is given up by [`abandon_key`] the key can be
/// destroyed there: no transaction will store it.
///
/// [`begin_key`]: UpkeepStore::begin_key
/// [`abandon_key`]: UpkeepStore::abandon_key
#[async_trait]
pub trait UpkeepStore: Send + Sync + 'static {
    /// The keys of all scopes that are due, the longest due first: at most so many. Of
    /// those to be replaced the ones that have expired, which nothing can be protected
    /// with any longer, come before all others.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn keys_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueKey>, Unavailable>;

    /// How many keys are due; counts to `most` and no further.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn count_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        most: usize,
    ) -> Result<u64, Unavailable>;

    /// The keys of all scopes that a backend is to hold, destroyed ones left out: at
    /// most so many after this one, by id.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn keys_held(
        &self,
        backend: HsmBackendName,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Scope)>, Unavailable>;

    /// Takes a task on, or holds on to it: whether it is this holder's now, until the
    /// lease ends. Another holder's is respected until its end, unless that lies so far
    /// ahead that only a clock that was set back since can have made it.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn take_lease(
        &self,
        name: &'static str,
        now: Timestamp,
        lease: Lease,
    ) -> Result<bool, Unavailable>;

    /// Leaves a task to others at once, if it is this holder's.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn release_lease(
        &self,
        name: &'static str,
        holder: LeaseHolder,
    ) -> Result<(), Unavailable>;

    /// Announces, durably, that a backend is about to make this key.
    ///
    /// # Errors
    /// [`Unavailable`]; the key must not be made then.
    async fn begin_key(&self, intent: KeyIntent) -> Result<(), Unavailable>;

    /// Keys that were announced before this instant and are not stored: at most so many,
    /// oldest first. Those that were given up are among them until they are ended.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn open_intents(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeyIntent>, Unavailable>;

    /// Gives up an announced key, durably: whether it was announced and not stored.
    ///
    /// # Errors
    /// [`Unavailable`]; it may then still be stored.
    async fn abandon_key(&self, key_id: KeyId) -> Result<bool, Unavailable>;

    /// Forgets a key that was given up, once its backend does not have it.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn end_intent(&self, key_id: KeyId) -> Result<(), Unavailable>;
}

/// What a key is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DueKind {
    /// To be replaced: active, and past its `rotate_at`.
    Rotate,
    /// To be archived: past its grace period.
    Archive,
    /// To lose its secret: destroyed, and past its `erase_at`.
    Erase,
}

impl DueKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Rotate, Self::Archive, Self::Erase];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Archive => "archive",
            Self::Erase => "erase",
        }
    }
}

/// A key that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueKey {
    /// Which.
    pub key_id: KeyId,
    /// Where it lives.
    pub scope: Scope,
    /// Since when.
    pub due_at: Timestamp,
}

/// Who holds a lease: drawn anew by every process.
pub type LeaseHolder = [u8; 16];

/// A claim to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub holder: LeaseHolder,
    /// Until when.
    pub until: Timestamp,
}

impl Lease {
    /// Whether this one, asked for now, takes the place of that one.
    pub fn replaces(&self, now: Timestamp, held: &Lease) -> bool {
        // Clocks of replicas differ by less than a lease is long.
        let longest = self.until.microseconds() - now.microseconds();
        let is_from_a_clock_set_back = held.until.microseconds() - now.microseconds() > 2 * longest;
        held.holder == self.holder || held.until <= now || is_from_a_clock_set_back
    }
}

/// A key that a backend is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIntent {
    /// Which.
    pub key_id: KeyId,
    /// Where it is made.
    pub backend: HsmBackendName,
    /// Since when.
    pub begun_at: Timestamp,
}
