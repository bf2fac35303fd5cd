//! What a configuration allows and may still not mean.
//!
//! A warning stops nothing; what does is a rule's.

use std::net::SocketAddr;

use super::effective::Effective;
use crate::domain::policy::ApprovalGroup;

use super::{Config, HsmKind};

/// What is allowed and may still not be meant.
pub(super) fn check(config: &Config, effective: &Effective) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.environment.is_development() {
        let public: Vec<String> = listeners(config)
            .filter(|(_, address)| !address.ip().to_canonical().is_loopback())
            .map(|(name, address)| format!("{name} = {address}"))
            .collect();
        if !public.is_empty() {
            warnings.push(format!(
                "{} can be reached from other machines, over plain HTTP and with development \
                 identities: whoever reaches it can use every key; set a loopback address",
                public.join(" and ")
            ));
        }
    }
    if config.hsm.backend != HsmKind::Pkcs11 {
        for name in ["module", "token_label", "pin", "sessions"] {
            let name = format!("hsm.pkcs11.{name}");
            if effective.is_chosen(&name) {
                warnings.push(format!(
                    "{name} is set, and unused while hsm.backend is software"
                ));
            }
        }
    }
    if config.environment.is_production() {
        for (operation, name) in [
            (ApprovalGroup::KeyLifecycle, "key_lifecycle"),
            (ApprovalGroup::TrustAnchor, "trust_anchor"),
        ] {
            if !config.approvals.operations.contains(&operation) {
                warnings.push(format!(
                    "approvals.operations leaves out {name}, which one person can then do alone"
                ));
            }
        }
    }
    warnings
}

fn listeners(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let ops = config.server.ops_listen.map(|a| ("server.ops_listen", a));
    std::iter::once(("server.listen", config.server.listen)).chain(ops)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, load, warnings_of};

    #[test]
    fn the_defaults_warn_of_nothing() {
        let loaded = load(&Given::new("development"));
        assert_eq!(loaded.config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_development_listener_that_others_reach_is_warned_of_once() {
        let given = Given::new("development")
            .set("KMS__SERVER__LISTEN", "0.0.0.0:8002")
            .set("KMS__SERVER__OPS_LISTEN", "[::]:9002");
        let warnings = load(&given).config.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("server.listen = 0.0.0.0:8002"));
        assert!(warnings[0].contains("server.ops_listen = [::]:9002"));
        let mapped = Given::new("development").set("KMS__SERVER__LISTEN", "[::ffff:127.0.0.1]:1");
        assert_eq!(load(&mapped).config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn settings_without_effect_are_warned_of() {
        let given = Given::new("development")
            .set("KMS__LIMITS__BURST", "7")
            .set("HSM_ENDPOINT", "token.so");
        let warnings = load(&given).config.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("hsm.pkcs11.module"));
    }

    #[test]
    fn production_warns_of_operations_that_need_one_person_only() {
        let given = Given::new("production");
        assert_eq!(warnings_of(&given), Vec::<String>::new());
        let given = given.set("KMS__APPROVALS__OPERATIONS", "key_lifecycle");
        let warnings = warnings_of(&given);
        assert!(warnings[0].contains("trust_anchor"), "{warnings:?}");
    }
}
