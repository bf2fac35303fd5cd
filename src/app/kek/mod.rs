//! The key-encryption key of the software HSM, at the start and when a new one is to
//! take over.
//!
//! The key lies in `<kek>`, one that is to take its place in `<kek>.next`. What is
//! true is in the store: two pins name the key that every secret is sealed under and
//! the one that they are to be sealed under, and each secret names its own. The files
//! follow. So whatever the moment of a crash, the next start goes on from there:
//!
//! 1. The store pins the new key as the next one. From then on it seals; both open.
//! 2. Every secret is sealed anew, a page at a time (`resealing.rs`).
//! 3. Once none is left, and nothing of the old is left on the disk, the store pins
//!    the new key as the one in force, and the files are put in their places.
//! 4. When no request can be under way any longer that has read an old secret, the
//!    old key is forgotten.

mod at_start;
mod files;
mod keeper;
mod material;
mod resealing;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use self::files::KekFiles;

pub(super) use self::at_start::keks_at_start;
pub(super) use self::keeper::{KekKeeper, KekKeeperPorts};

use crate::adapters::hsm::software::seal;
use crate::domain::key::HsmBackendName;
use crate::ports::data_plane::{DataPlane, Unavailable};

/// Under this name the store remembers which key its secrets are sealed under.
pub(crate) const KEK_PIN: &str = "kek_id";

/// Under this name it remembers which key they are to be sealed under: the same one,
/// but while secrets are sealed anew.
pub(crate) const NEXT_KEK_PIN: &str = "next_kek_id";

/// How many handles are read at once where they are only looked at.
const LOOKED_AT_ONCE: usize = 1_000;

/// How many secrets are sealed under which key; under `None` what is no sealed
/// secret.
async fn count_by_kek(
    data_plane: &dyn DataPlane,
) -> Result<BTreeMap<Option<String>, u64>, Unavailable> {
    let mut counts = BTreeMap::new();
    let mut after = None;
    loop {
        let page = data_plane.list_handles(after, LOOKED_AT_ONCE).await?;
        after = page.handles.last().map(|kept| kept.key_id);
        for kept in page.handles {
            if kept.backend == HsmBackendName::Software {
                let id = seal::sealed_under(kept.handle.as_bytes());
                *counts.entry(id).or_default() += 1;
            }
        }
        if !page.has_more {
            return Ok(counts);
        }
    }
}
