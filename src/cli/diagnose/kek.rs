//! The key-encryption key: whether it is there, is for its owner only, and is the one
//! that the store's secrets are sealed under.

use std::collections::{BTreeMap, BTreeSet};

use super::report::Report;
use crate::adapters::data_plane::sqlite::look::StoreLook;
use crate::adapters::hsm::software::kek::KeyEncryptionKey;
use crate::adapters::hsm::software::seal::{BEGINNING_LEN, sealed_under};
use crate::app::kek::{KEK_PIN, KekFiles, NEXT_KEK_PIN};
use crate::cli::fault::with_causes;
use crate::config::{Config, HsmKind};
use crate::domain::key::HsmBackendName;
use crate::ports::ledger_source::SourceFault;
use crate::ports::material::counted;

const CHECK: &str = "kek";
const FROM_BACKUP: &str = "restore it from its backup: without it no key that it seals can be used";

/// What a store says of its secrets.
struct InStore {
    /// The id that is pinned as the one in force.
    in_force: Option<String>,
    /// The id that everything is to be sealed under.
    to: Option<String>,
    /// The numbers of secrets by the id that they are sealed under.
    sealed: BTreeMap<String, u64>,
}

/// Looks at the key, and holds it to what this store says.
pub(super) fn look_inside(
    config: &Config,
    store: &StoreLook,
    report: &mut Report,
) -> Result<(), SourceFault> {
    let text = |pin: Option<Vec<u8>>| pin.map(|id| String::from_utf8_lossy(&id).into_owned());
    let counts = store.count_by_beginning(HsmBackendName::Software, BEGINNING_LEN)?;
    let mut sealed = BTreeMap::new();
    for (beginning, number) in counts {
        match sealed_under(&beginning) {
            Some(id) => *sealed.entry(id).or_default() += number,
            None => report.bad(
                CHECK,
                format_args!(
                    "{} sealed in no form that is known",
                    counted(number, "stored secret is", "stored secrets are")
                ),
                "use the release that sealed them, or restore the store from its backup",
            ),
        }
    }
    let in_store = InStore {
        in_force: text(store.pin(KEK_PIN)?),
        to: text(store.pin(NEXT_KEK_PIN)?),
        sealed,
    };
    look(config, Some(&in_store), report);
    Ok(())
}

/// Looks at the key, beside no store that could say anything of it.
pub(super) fn look_alone(config: &Config, report: &mut Report) {
    look(config, None, report);
}

fn look(config: &Config, in_store: Option<&InStore>, report: &mut Report) {
    let files = KekFiles::of(config);
    let shown = files.kek().display();
    let mut load = |loaded: Result<Option<KeyEncryptionKey>, _>| match loaded {
        Ok(kek) => kek.map(|kek| kek.id()),
        Err(fault) => {
            report.bad(CHECK, with_causes(&fault), FROM_BACKUP);
            None
        }
    };
    let (current, next) = (load(files.load()), load(files.load_next()));
    let sealed = in_store.map_or(0, |store| store.sealed.values().sum::<u64>());
    if sealed == 0 {
        match (&current, config.hsm.backend) {
            (Some(id), _) => report.good(CHECK, format_args!("{shown} holds the key {id}")),
            (None, HsmKind::Pkcs11) => {}
            (None, HsmKind::Software) if files.kek().exists() => {}
            (None, HsmKind::Software) => {
                report.good(CHECK, format_args!("{shown} is made at the first start"));
            }
        }
        return;
    }
    let old: BTreeSet<String> = files.load_old().iter().map(|(_, kek)| kek.id()).collect();
    let is_there =
        |id: &String| current.as_ref() == Some(id) || next.as_ref() == Some(id) || old.contains(id);
    let held = match &current {
        Some(current) => format!("{shown} holds {current}"),
        None => format!("{shown} holds none"),
    };
    let pinned = in_store.and_then(|store| store.in_force.as_ref());
    let needed = in_store.into_iter().flat_map(|store| &store.sealed);
    let mut missing: BTreeMap<&String, u64> = needed
        .filter(|(id, _)| !is_there(id))
        .map(|(id, number)| (id, *number))
        .collect();
    if let Some(pinned) = pinned.filter(|id| !is_there(id)) {
        missing.entry(pinned).or_default();
    }
    for (id, number) in missing {
        let is_pinned = match pinned == Some(id) {
            true => ", which the store has pinned",
            false => "",
        };
        report.bad(
            CHECK,
            format_args!(
                "{} sealed under the key {id}{is_pinned}; it is in none of {shown}, {shown}.next and \
                 {shown}.old ({held})",
                counted(number, "stored secret is", "stored secrets are")
            ),
            FROM_BACKUP,
        );
    }
    let to = in_store.and_then(|store| store.to.as_ref());
    match (&current, pinned) {
        (Some(current), Some(pinned)) if current == pinned => {
            report.good(
                CHECK,
                format_args!("{shown} holds the key {current}, which the store has pinned"),
            );
        }
        (_, Some(pinned)) if is_there(pinned) => report.note(
            CHECK,
            format_args!(
                "the key {pinned}, which the store has pinned, lies beside {shown}: the service \
                 finishes the change by itself"
            ),
        ),
        // Said already.
        (_, Some(_)) => {}
        (_, None) => report.note(CHECK, "the store has pinned no key; the next start does"),
    }
    if to.is_some() && to != pinned {
        report.note(
            CHECK,
            "a change of the key is under way; kms rekey --status says how far",
        );
    }
}
