//! What a store says of the keys that it is sealed under.

use std::collections::BTreeMap;
use std::path::Path;

use crate::adapters::data_plane::sqlite::handles::{count_by_beginning, pinned, require_sound_log};
use crate::adapters::data_plane::sqlite::snapshot::SnapshotFault;
use crate::adapters::hsm::software::seal::{BEGINNING_LEN, sealed_under};
use crate::app::kek::{KEK_PIN, NEXT_KEK_PIN};
use crate::cli::fault::Fault;
use crate::domain::key::HsmBackendName;

/// How things stand in a store.
pub(super) struct State {
    in_force: Option<String>,
    to: Option<String>,
    /// The numbers of secrets by the id of the key that they are sealed under; under
    /// `None` those that are no sealed secrets.
    pub(super) sealed: BTreeMap<Option<String>, u64>,
}

impl State {
    /// Reads it from the store's file, which may be served meanwhile.
    pub(super) fn look(database: &Path) -> Result<Self, Fault> {
        require_sound_log(database).map_err(|fault| Fault::caused(&fault))?;
        let id = |name| -> Result<Option<String>, Fault> {
            let id = pinned(database, name).map_err(|fault| Fault::caused(&fault))?;
            Ok(id.map(|id| String::from_utf8_lossy(&id).into_owned()))
        };
        // The pins last: a change that comes to its end meanwhile is not taken for one
        // that has begun.
        let sealed = secrets_by_kek(database).map_err(|fault| Fault::caused(&fault))?;
        Ok(Self {
            to: id(NEXT_KEK_PIN)?,
            in_force: id(KEK_PIN)?,
            sealed,
        })
    }

    /// The id of the key in force.
    pub(super) fn in_force(&self) -> Result<&str, Fault> {
        self.in_force.as_deref().ok_or_else(|| {
            Fault::failed("the store knows no key-encryption key: start the service on it once")
        })
    }

    /// The id of the key that everything is being sealed under, while it is.
    pub(super) fn under_way(&self) -> Option<&str> {
        self.to.as_deref().filter(|_| self.to != self.in_force)
    }

    /// How many secrets are sealed under another key than this.
    pub(super) fn not_sealed_under(&self, id: &str) -> u64 {
        let others = self
            .sealed
            .iter()
            .filter(|(other, _)| other.as_deref() != Some(id));
        others.map(|(_, number)| number).sum()
    }
}

/// The numbers of secrets in the file of a store by the id of the key that they are
/// sealed under.
pub(in crate::cli) fn secrets_by_kek(
    database: &Path,
) -> Result<BTreeMap<Option<String>, u64>, SnapshotFault> {
    let counts = count_by_beginning(database, HsmBackendName::Software, BEGINNING_LEN)?;
    let mut by_kek = BTreeMap::new();
    for (beginning, number) in counts {
        *by_kek.entry(sealed_under(&beginning)).or_default() += number;
    }
    Ok(by_kek)
}
