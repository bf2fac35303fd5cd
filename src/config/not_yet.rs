//! What the settings promise and this version doesn't keep: refused by name,
//! since a setting that is ignored would be believed.
//!
//! Whoever builds one of these deletes its line here.

use super::fault::Fault;
use super::{ApprovalMode, Config, HsmKind, StoreUrl};

/// The settings that ask for what isn't there.
pub(super) fn check(config: &Config) -> Vec<Fault> {
    let (auth, approvals) = (&config.auth, &config.approvals);
    let asked = [
        (
            auth.require_jwt,
            "auth.require_jwt",
            "this version checks no tokens yet; set it to false",
        ),
        (auth.jwks.is_some(), "auth.jwks", UNSET),
        (auth.issuer.is_some(), "auth.issuer", UNSET),
        (auth.audience.is_some(), "auth.audience", UNSET),
        (
            approvals.mode == ApprovalMode::Signed,
            "approvals.mode",
            "this version doesn't verify signed approvals yet; set it to development",
        ),
        (approvals.jwks.is_some(), "approvals.jwks", UNSET),
        (
            approvals.quorum.get() != 1,
            "approvals.quorum",
            "this version takes one approver only; set it to 1",
        ),
        (
            config.hsm.backend == HsmKind::Pkcs11,
            "hsm.backend",
            "this version doesn't speak PKCS#11 yet; set it to software",
        ),
        (
            matches!(config.store.url, StoreUrl::Postgres(_)),
            "store.url",
            "this version doesn't speak to PostgreSQL yet; set sqlite:PATH",
        ),
    ];
    asked
        .into_iter()
        .filter(|(is_asked, ..)| *is_asked)
        .map(|(_, setting, what)| Fault::new(setting, what))
        .collect()
}

const UNSET: &str = "this version doesn't use it yet; leave it unset";

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, faults_of};

    #[test]
    fn everything_this_version_cannot_do_is_refused_by_name() {
        for (variable, value, setting) in [
            ("KMS__AUTH__REQUIRE_JWT", "true", "auth.require_jwt"),
            ("KMS__AUTH__JWKS", "a", "auth.jwks"),
            ("KMS__AUTH__ISSUER", "a", "auth.issuer"),
            ("KMS__AUTH__AUDIENCE", "a", "auth.audience"),
            ("KMS__APPROVALS__MODE", "signed", "approvals.mode"),
            ("KMS__APPROVALS__JWKS", "a", "approvals.jwks"),
            ("KMS__APPROVALS__QUORUM", "2", "approvals.quorum"),
            ("KMS__HSM__BACKEND", "pkcs11", "hsm.backend"),
            ("KMS__STORE__URL", "postgres://u@h/d", "store.url"),
        ] {
            let given = Given::new("development").set(variable, value);
            let mut faults = faults_of(&given);
            faults.retain(|fault| fault.contains("this version"));
            assert_eq!(faults.len(), 1, "{variable}: {faults:?}");
            assert!(faults[0].starts_with(setting), "{faults:?}");
            assert!(faults[0].contains(variable), "{faults:?}");
        }
    }

    #[test]
    fn what_production_refuses_is_listed_beside_what_is_missing_here() {
        let given = Given::new("production").set("KMS__APPROVALS__QUORUM", "2");
        let message = faults_of(&given).join("\n");
        for expected in ["tls.client_ca", "approvals.quorum"] {
            assert!(message.contains(expected), "{expected} in {message}");
        }
    }
}
