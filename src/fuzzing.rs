//! What is done with bytes from strangers, a function a kind of them, for the fuzzer and
//! for the test that runs its corpus. Each panics where something does not hold that has
//! to hold whatever the bytes are.
//!
//! Compiled for those two only.

use crate::adapters::data_plane::sqlite::fuzzing as store;
use crate::adapters::hsm::software::fuzzing as secrets;
use crate::adapters::iam::fuzzing as identities;
use crate::adapters::trust_plane::fuzzing as anchors;
use crate::config::fuzzing as configurations;
use crate::domain::ledger::fuzzing as ledger;
use crate::http::fuzzing as wire;
use crate::tls::fuzzing as certificates;

/// Does something with bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("anchor", anchors::anchor),
    ("certificate", certificates::certificate),
    ("claims", identities::claims),
    ("configuration", configurations::configuration),
    ("key_set", identities::key_set),
    ("log", store::log),
    ("note", ledger::note),
    ("query", wire::query),
    ("receipt", ledger::receipt),
    ("request", wire::request),
    ("revocation_list", certificates::revocation_list),
    ("sealed", secrets::sealed),
    ("strict_json", identities::strict_json),
    ("tile", ledger::tile),
    ("token", identities::token),
];

/// Does what the target of this name does.
///
/// # Panics
/// Where there is none, and where something does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("no target {name}"));
    target(bytes);
}

#[cfg(test)]
mod tests;
