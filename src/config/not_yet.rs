//! What the settings promise and this version doesn't keep: refused by name,
//! since a setting that is ignored would be believed.
//!
//! Whoever builds one of these deletes its line here.

use super::fault::Fault;
use super::{Config, StoreUrl};

/// The settings that ask for what isn't there.
pub(super) fn check(config: &Config) -> Vec<Fault> {
    let asked = [(
        matches!(config.store.url, StoreUrl::Postgres(_)),
        "store.url",
        "this version doesn't speak to PostgreSQL yet; set sqlite:PATH",
    )];
    asked
        .into_iter()
        .filter(|(is_asked, ..)| *is_asked)
        .map(|(_, setting, what)| Fault::new(setting, what))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, faults_of};

    #[test]
    fn everything_this_version_cannot_do_is_refused_by_name() {
        let given = Given::new("development").set("KMS__STORE__URL", "postgres://u@h/d");
        let mut faults = faults_of(&given);
        faults.retain(|fault| fault.contains("this version"));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("store.url"), "{faults:?}");
        assert!(faults[0].contains("KMS__STORE__URL"), "{faults:?}");
    }

    #[test]
    fn what_production_refuses_is_listed_beside_what_is_missing_here() {
        let given = Given::new("production").set("KMS__STORE__URL", "postgres://u@h/d");
        let message = faults_of(&given).join("\n");
        for expected in ["tls.client_ca", "store.url (KMS__STORE__URL)"] {
            assert!(message.contains(expected), "{expected} in {message}");
        }
    }
}
