//! Which key-encryption keys a start needs, whatever a crash or a restored backup
//! has left. Seals nothing.

use super::files::KekFiles;
use super::{KEK_PIN, LOOKED_AT_ONCE, NEXT_KEK_PIN, count_by_kek};
use crate::adapters::hsm::software::kek::{KekFault, KeyEncryptionKey};
use crate::adapters::hsm::software::ring::KekRing;
use crate::app::StartError;
use crate::domain::key::HsmBackendName;
use crate::ports::data_plane::{DataPlane, Unavailable};
use crate::ports::handle_store::KeptHandle;

/// The key-encryption keys that a service starts with.
pub(in crate::app) struct KeksAtStart {
    pub(in crate::app) ring: KekRing,
    pub(in crate::app) ids: KekIds,
}

/// Which they are.
pub(in crate::app) struct KekIds {
    /// The id of the one that the store says is in force.
    pub(super) in_force: String,
    /// The id of the one that everything is to be sealed under, where something may
    /// not be yet. It leads the ring.
    pub(super) to: Option<String>,
}

impl KeksAtStart {
    fn settled(kek: KeyEncryptionKey) -> Self {
        Self {
            ids: KekIds {
                in_force: kek.id(),
                to: None,
            },
            ring: KekRing::of(kek),
        }
    }
}

/// The keys: made on the first start, and after that those that the store knows or
/// none. A new one beside an old store would make every key in it unreadable for
/// good without saying so.
///
/// # Errors
/// [`StartError`], before anything is sealed.
pub(in crate::app) async fn keks_at_start(
    files: &KekFiles,
    data_plane: &dyn DataPlane,
) -> Result<KeksAtStart, StartError> {
    let mut found = FoundKeks::load(files)?;
    if !has_keys(data_plane).await? {
        return without_keys(files, found, data_plane).await;
    }
    // A store of an early release knows no pins: they are those of its one key.
    let Some(first) = found.current.as_ref().or(found.next()) else {
        return Err(found.missing(files));
    };
    let in_force = text(data_plane.pin(KEK_PIN, first.id().as_bytes()).await?);
    let to = text(data_plane.pin(NEXT_KEK_PIN, in_force.as_bytes()).await?);
    if to != in_force {
        return in_between(files, found, data_plane, in_force, to).await;
    }
    if let Some(kek) = found.take_from_place(&in_force) {
        return Ok(KeksAtStart::settled(kek));
    }
    let Some(current) = found.current.take() else {
        return Err(found.missing(files));
    };
    let Some(old) = found.take(&in_force) else {
        return Err(foreign(files));
    };
    // A store from before a change that the files have behind them: a restored backup.
    let to = current.id();
    tracing::warn!(
        from = in_force,
        to,
        "the store's secrets are sealed under a key-encryption key from before, and are sealed \
         anew under the one in its place"
    );
    move_next_pin(data_plane, &in_force, &to).await?;
    Ok(KeksAtStart {
        ring: KekRing::of(current).and(old),
        ids: KekIds {
            in_force,
            to: Some(to),
        },
    })
}

/// The keys of a store where some secrets may be sealed anew, and others not yet.
async fn in_between(
    files: &KekFiles,
    mut found: FoundKeks,
    data_plane: &dyn DataPlane,
    in_force: String,
    to: String,
) -> Result<KeksAtStart, StartError> {
    let in_use = count_by_kek(data_plane).await?;
    for (id, number) in &in_use {
        if let Some(id) = id
            && !found.has(id)
        {
            return Err(found
                .unreadable_next()
                .unwrap_or(StartError::KekIncomplete {
                    kek_id: id.clone(),
                    number: *number,
                    file: files.kek().display().to_string(),
                }));
        }
    }
    let (sealing, to) = match found.take(&to) {
        Some(next) => (next, to),
        // Nothing is sealed under the next key, and it is gone: as if it had never been.
        None => {
            let kek = found.take(&in_force).ok_or_else(|| foreign(files))?;
            move_next_pin(data_plane, &to, &in_force).await?;
            if in_use.keys().all(|id| id.as_ref() == Some(&in_force)) {
                return Ok(KeksAtStart::settled(kek));
            }
            (kek, in_force.clone())
        }
    };
    let mut ring = KekRing::of(sealing);
    for id in in_use.into_keys().flatten().chain([in_force.clone()]) {
        if let Some(kek) = found.take(&id) {
            ring = ring.and(kek);
        }
    }
    Ok(KeksAtStart {
        ring,
        ids: KekIds {
            in_force,
            to: Some(to),
        },
    })
}

/// Nothing is sealed yet, so whatever key is there, or is made now, is in force.
async fn without_keys(
    files: &KekFiles,
    found: FoundKeks,
    data_plane: &dyn DataPlane,
) -> Result<KeksAtStart, StartError> {
    let kek = match found.current {
        Some(kek) => kek,
        None => {
            let file = files.kek().display().to_string();
            tracing::info!(file, "made a new key-encryption key; back it up");
            KeyEncryptionKey::create(files.kek())?
        }
    };
    let id = kek.id();
    for name in [KEK_PIN, NEXT_KEK_PIN] {
        let pinned = data_plane.pin(name, id.as_bytes()).await?;
        data_plane.move_pin(name, &pinned, id.as_bytes()).await?;
    }
    Ok(KeksAtStart::settled(kek))
}

async fn move_next_pin(
    data_plane: &dyn DataPlane,
    from: &str,
    to: &str,
) -> Result<(), Unavailable> {
    data_plane
        .move_pin(NEXT_KEK_PIN, from.as_bytes(), to.as_bytes())
        .await
        .map(drop)
}

/// The keys that lie there, until they are taken.
struct FoundKeks {
    current: Option<KeyEncryptionKey>,
    /// One that cannot be used matters only where it is needed.
    next: Result<Option<KeyEncryptionKey>, KekFault>,
    old: Vec<KeyEncryptionKey>,
}

impl FoundKeks {
    fn load(files: &KekFiles) -> Result<Self, KekFault> {
        Ok(Self {
            current: files.load()?,
            next: files.load_next(),
            old: files.load_old().into_iter().map(|(_, kek)| kek).collect(),
        })
    }

    fn next(&self) -> Option<&KeyEncryptionKey> {
        self.next.as_ref().ok()?.as_ref()
    }

    fn has(&self, id: &str) -> bool {
        let mut all = self.current.iter().chain(self.next()).chain(&self.old);
        all.any(|kek| kek.id() == id)
    }

    /// The key of this id, if it lies where the one in force does, or will.
    fn take_from_place(&mut self, id: &str) -> Option<KeyEncryptionKey> {
        let is_it = |kek: &mut KeyEncryptionKey| kek.id() == id;
        let next = self.next.as_mut().ok();
        self.current
            .take_if(is_it)
            .or_else(|| next.and_then(|next| next.take_if(is_it)))
    }

    /// The key of this id, wherever it lies.
    fn take(&mut self, id: &str) -> Option<KeyEncryptionKey> {
        self.take_from_place(id).or_else(|| {
            let place = self.old.iter().position(|kek| kek.id() == id)?;
            Some(self.old.swap_remove(place))
        })
    }

    /// Why the next key cannot be used, where it is there and cannot be.
    fn unreadable_next(&mut self) -> Option<StartError> {
        match std::mem::replace(&mut self.next, Ok(None)) {
            Ok(_) => None,
            Err(fault) => Some(fault.into()),
        }
    }

    fn missing(&mut self, files: &KekFiles) -> StartError {
        self.unreadable_next().unwrap_or(StartError::KekMissing {
            file: files.kek().display().to_string(),
        })
    }
}

fn foreign(files: &KekFiles) -> StartError {
    StartError::KekForeign {
        file: files.kek().display().to_string(),
    }
}

fn text(pinned: Vec<u8>) -> String {
    String::from_utf8_lossy(&pinned).into_owned()
}

/// Whether the store has a secret that is sealed under some key-encryption key.
async fn has_keys(data_plane: &dyn DataPlane) -> Result<bool, Unavailable> {
    let mut after = None;
    loop {
        let page = data_plane.list_handles(after, LOOKED_AT_ONCE).await?;
        let is_sealed = |kept: &KeptHandle| kept.backend == HsmBackendName::Software;
        if page.handles.iter().any(is_sealed) {
            return Ok(true);
        }
        after = page.handles.last().map(|kept| kept.key_id);
        if !page.has_more {
            return Ok(false);
        }
    }
}
