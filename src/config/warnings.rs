//! What a configuration allows and may still not mean.
//!
//! A warning stops nothing; what does is a rule's.

use std::net::SocketAddr;

use super::effective::Effective;
use super::{ApprovalMode, Config, HsmKind};

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
    if config.hsm.backend != HsmKind::Pkcs11 && config.hsm.pkcs11.token().is_none() {
        for name in [
            "module",
            "token_label",
            "token_serial",
            "pin",
            "sessions",
            "deadline",
        ] {
            let name = format!("hsm.pkcs11.{name}");
            if effective.is_chosen(&name) {
                warnings.push(format!(
                    "{name} is set, and unused while hsm.backend is software and not all of \
                     hsm.pkcs11.module, token_label and pin are set"
                ));
            }
        }
    }
    if config.approvals.mode == ApprovalMode::Development && config.approvals.jwks.is_some() {
        warnings.push(
            "approvals.jwks is set, and unused while approvals.mode is development".to_owned(),
        );
    }
    warnings
}

fn listeners(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let ops = config.server.ops_listen.map(|a| ("server.ops_listen", a));
    std::iter::once(("server.listen", config.server.listen)).chain(ops)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, load};

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
            .set("HSM_ENDPOINT", "token.so")
            .set("KMS__APPROVALS__JWKS", "approvers.json");
        let warnings = load(&given).config.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].starts_with("approvals.jwks"));
        assert!(warnings[0].starts_with("hsm.pkcs11.module"));
    }
}
