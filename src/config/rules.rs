//! Rules across settings: what production refuses, and what contradicts itself.
//!
//! It sees settings that are each valid by themselves. What this version can't
//! do is not its business.

use std::path::Path;

use super::fault::Fault;
use super::{
    ApprovalMode, Config, CorsOrigins, EnvironmentName, HsmKind, KeySetLocation, StoreUrl,
};
use crate::domain::policy::ApprovalGroup;

/// Every rule that a configuration breaks, each with how to mend it.
pub(super) fn check(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    check_name(&config.environment, &mut faults);
    check_listeners(config, &mut faults);
    check_tls(config, &mut faults);
    check_tokens(config, &mut faults);
    check_hsm(config, &mut faults);
    if config.environment.is_production() {
        check_production(config, &mut faults);
    }
    faults
}

/// `prod` is the word of a key's scope; as a deployment's name it would get
/// past everything that production refuses.
fn check_name(environment: &EnvironmentName, faults: &mut Vec<Fault>) {
    if environment.as_str() == "prod" {
        faults.push(Fault::new("environment", "expected production, in full"));
    }
}

fn check_listeners(config: &Config, faults: &mut Vec<Fault>) {
    let (api, ops) = (config.server.listen, config.server.ops_listen);
    if api.port() != 0 && ops == Some(api) {
        let what = "expected another address than server.listen's";
        faults.push(Fault::new("server.ops_listen", what));
    }
}

/// The three files make sense together only; callers are believed without a
/// certificate in development, and nowhere else.
fn check_tls(config: &Config, faults: &mut Vec<Fault>) {
    let files = [
        ("tls.certificate", config.tls.certificate.is_some()),
        ("tls.private_key", config.tls.private_key.is_some()),
        ("tls.client_ca", config.tls.client_ca.is_some()),
    ];
    let reason = if !config.environment.is_development() {
        "outside development callers are identified by mutual TLS"
    } else if config.tls.crl.is_some() || files.iter().any(|(_, is_set)| *is_set) {
        "other settings of tls are set, and need it"
    } else {
        return;
    };
    for (name, is_set) in files {
        if !is_set {
            let what = format!("{reason}; set it to the path of a PEM file");
            faults.push(Fault::new(name, what));
        }
    }
}

/// Tokens and signed approvals need the keys to check them with.
fn check_tokens(config: &Config, faults: &mut Vec<Fault>) {
    let (auth, approvals) = (&config.auth, &config.approvals);
    if auth.jwks.is_none() {
        let asking = [
            ("auth.require_jwt", auth.require_jwt),
            ("auth.issuer", auth.issuer.is_some()),
            ("auth.audience", auth.audience.is_some()),
        ];
        for (name, is_set) in asking {
            if is_set {
                let what = "this needs auth.jwks, the keys that tokens are checked with";
                faults.push(Fault::new(name, what));
            }
        }
    }
    if approvals.mode == ApprovalMode::Signed && approvals.jwks.is_none() {
        let what = "approvals.mode is signed, and needs the approvers' public keys; set it to \
                    their JWKS, a file or an address";
        faults.push(Fault::new("approvals.jwks", what));
    }
}

/// A token is reached by all three or not at all.
fn check_hsm(config: &Config, faults: &mut Vec<Fault>) {
    if config.hsm.backend != HsmKind::Pkcs11 {
        return;
    }
    let pkcs11 = &config.hsm.pkcs11;
    for (setting, is_set, what) in [
        (
            "hsm.pkcs11.module",
            pkcs11.module.is_some(),
            "the path of the vendor's library (also HSM_ENDPOINT)",
        ),
        (
            "hsm.pkcs11.token_label",
            pkcs11.token_label.is_some(),
            "the label of the token",
        ),
        (
            "hsm.pkcs11.pin",
            pkcs11.pin.is_some(),
            "the user's PIN (also HSM_CREDENTIALS)",
        ),
    ] {
        if !is_set {
            let what = format!("hsm.backend is pkcs11, and needs {what}");
            faults.push(Fault::new(setting, what));
        }
    }
}

fn check_production(config: &Config, faults: &mut Vec<Fault>) {
    let mut refuse = |setting: &str, what: &str| faults.push(Fault::new(setting, what));
    let is_open = match &config.server.cors_origins {
        CorsOrigins::Any => true,
        CorsOrigins::Only(origins) => origins.is_empty(),
    };
    if is_open {
        refuse(
            "server.cors_origins",
            "production takes neither * nor an empty list; set CORS_ORIGINS to the origins that \
             may call, such as https://app.example.com",
        );
    }
    if config.hsm.backend == HsmKind::Software {
        if !config.hsm.allow_software_in_production {
            refuse(
                "hsm.backend",
                "production takes a hardware HSM; set pkcs11, or accept the software one with \
                 hsm.allow_software_in_production = true",
            );
        }
        if let Err(what) = check_kek(config) {
            refuse("hsm.software.kek_file", what);
        }
    }
    if config.approvals.mode != ApprovalMode::Signed {
        refuse(
            "approvals.mode",
            "production takes only approvals verified by signature; set it to signed",
        );
    }
    let left_out: Vec<&str> = [ApprovalGroup::KeyLifecycle, ApprovalGroup::TrustAnchor]
        .into_iter()
        .filter(|group| !config.approvals.operations.contains(group))
        .map(ApprovalGroup::as_str)
        .collect();
    if !left_out.is_empty() {
        let what = format!(
            "production lets nobody do these alone; add {}",
            left_out.join(" and ")
        );
        refuse("approvals.operations", &what);
    }
    for (name, jwks) in [
        ("auth.jwks", &config.auth.jwks),
        ("approvals.jwks", &config.approvals.jwks),
    ] {
        if jwks
            .as_ref()
            .is_some_and(KeySetLocation::can_be_replaced_on_the_way)
        {
            refuse(
                name,
                "keys fetched over http:// could be replaced on the way; set an https:// address \
                 or a file",
            );
        }
    }
    if matches!(config.store.url, StoreUrl::Memory) {
        refuse(
            "store.url",
            "production takes no store in memory; set sqlite:PATH or postgres://USER@HOST/DATABASE",
        );
    }
}

fn check_kek(config: &Config) -> Result<(), &'static str> {
    let Some(file) = &config.hsm.software.kek_file else {
        return Err(
            "production makes no key-encryption key of its own; make one (32 random bytes) and \
             set this to its path, outside data_dir",
        );
    };
    if is_same_file(file, &config.data_dir.join("kek")) {
        return Err(
            "this is the key-encryption key that development makes; make another for production, \
             outside data_dir",
        );
    }
    if !file.is_file() {
        return Err("expected a file, which isn't there; make one of 32 random bytes");
    }
    Ok(())
}

/// Links and relative paths followed, as far as the files exist.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        path.canonicalize()
            .ok()
            .or_else(|| Some(folder?.join(path.file_name()?)))
            .or_else(|| std::path::absolute(path).ok())
    };
    one == other || resolved(one) == resolved(other)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Given, faults_of};
    use super::*;

    /// What a production configuration has to say, but for what is not in this version.
    fn production(folder: &Path) -> Given {
        let kek = folder.join("production-kek");
        std::fs::write(&kek, [7; 32]).expect("a scratch file");
        Given::new("production")
            .set("CORS_ORIGINS", "https://app.example.com")
            .set("KMS__TLS__CERTIFICATE", "tls.pem")
            .set("KMS__TLS__PRIVATE_KEY", "tls.key")
            .set("KMS__TLS__CLIENT_CA", "clients.pem")
            .set("KMS__APPROVALS__JWKS", "approvers.json")
            .set("KMS__HSM__ALLOW_SOFTWARE_IN_PRODUCTION", "true")
            .set("KMS__HSM__SOFTWARE__KEK_FILE", &kek.display().to_string())
            .set("KMS__DATA_DIR", &folder.join("data").display().to_string())
    }

    /// The faults of [`check`] alone: none of them says that this version can't.
    fn broken(given: &Given) -> Vec<String> {
        let mut faults = faults_of(given);
        faults.retain(|fault| !fault.contains("this version"));
        faults
    }

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a scratch folder")
    }

    #[test]
    fn a_complete_production_configuration_breaks_no_rule() {
        let folder = scratch();
        assert_eq!(broken(&production(folder.path())), Vec::<String>::new());
    }

    #[test]
    fn production_refuses_each_hole_by_name() {
        let folder = scratch();
        let development_kek = folder.path().join("data").join("kek");
        let development_kek = development_kek.display().to_string();
        for (variable, value, setting, how) in [
            ("CORS_ORIGINS", "*", "server.cors_origins", "CORS_ORIGINS"),
            ("CORS_ORIGINS", "", "server.cors_origins", "CORS_ORIGINS"),
            ("KMS__TLS__CERTIFICATE", "", "tls.certificate", "PEM"),
            ("KMS__TLS__PRIVATE_KEY", "", "tls.private_key", "PEM"),
            ("KMS__TLS__CLIENT_CA", "", "tls.client_ca", "PEM"),
            (
                "KMS__HSM__ALLOW_SOFTWARE_IN_PRODUCTION",
                "false",
                "hsm.backend",
                "pkcs11",
            ),
            (
                "KMS__HSM__SOFTWARE__KEK_FILE",
                "",
                "hsm.software.kek_file",
                "make one",
            ),
            (
                "KMS__HSM__SOFTWARE__KEK_FILE",
                "no/such/file",
                "hsm.software.kek_file",
                "isn't there",
            ),
            (
                "KMS__HSM__SOFTWARE__KEK_FILE",
                &development_kek,
                "hsm.software.kek_file",
                "development makes",
            ),
            (
                "KMS__APPROVALS__MODE",
                "development",
                "approvals.mode",
                "signed",
            ),
            ("KMS__APPROVALS__JWKS", "", "approvals.jwks", "JWKS"),
            (
                "KMS__APPROVALS__JWKS",
                "http://iam/approvers",
                "approvals.jwks",
                "https://",
            ),
            (
                "KMS__AUTH__JWKS",
                "http://iam/jwks",
                "auth.jwks",
                "https://",
            ),
            (
                "KMS__APPROVALS__OPERATIONS",
                "key_lifecycle",
                "approvals.operations",
                "trust_anchor",
            ),
            (
                "KMS__APPROVALS__OPERATIONS",
                "trust_anchor",
                "approvals.operations",
                "key_lifecycle",
            ),
            ("KMS__STORE__URL", "memory:", "store.url", "sqlite:"),
        ] {
            let given = production(folder.path()).set(variable, value);
            let faults = broken(&given);
            assert_eq!(faults.len(), 1, "{variable}={value}: {faults:?}");
            assert!(faults[0].starts_with(setting), "{faults:?}");
            assert!(faults[0].contains(how), "{faults:?}");
        }
    }

    #[test]
    fn production_with_nothing_set_lists_everything_at_once() {
        let faults = broken(&Given::new("production"));
        let names: Vec<&str> = faults
            .iter()
            .filter_map(|fault| fault.split([':', ' ']).next())
            .collect();
        assert_eq!(
            names,
            [
                "tls.certificate",
                "tls.private_key",
                "tls.client_ca",
                "approvals.jwks",
                "server.cors_origins",
                "hsm.backend",
                "hsm.software.kek_file",
            ]
        );
    }

    #[test]
    fn a_link_to_the_development_key_is_still_the_development_key() {
        let folder = scratch();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a scratch folder");
        std::fs::write(data.join("kek"), [1; 32]).expect("a scratch file");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(data.join("kek"), &link).expect("a link");
        let given = production(folder.path())
            .set("KMS__HSM__SOFTWARE__KEK_FILE", &link.display().to_string());
        let faults = broken(&given);
        assert!(faults[0].contains("development makes"), "{faults:?}");
    }

    #[test]
    fn a_hardware_hsm_needs_no_key_encryption_key() {
        let folder = scratch();
        let given = production(folder.path())
            .set("KMS__HSM__BACKEND", "pkcs11")
            .set("KMS__HSM__ALLOW_SOFTWARE_IN_PRODUCTION", "false")
            .set("KMS__HSM__SOFTWARE__KEK_FILE", "")
            .set("HSM_ENDPOINT", "token.so")
            .set("KMS__HSM__PKCS11__TOKEN_LABEL", " kms  ")
            .set("HSM_CREDENTIALS", "1234");
        assert_eq!(broken(&given), Vec::<String>::new());
    }

    #[test]
    fn a_token_needs_module_label_and_pin_and_each_is_named() {
        let given = Given::new("development").set("KMS__HSM__BACKEND", "pkcs11");
        let faults = broken(&given);
        for (setting, how) in [
            ("hsm.pkcs11.module", "HSM_ENDPOINT"),
            ("hsm.pkcs11.token_label", "label"),
            ("hsm.pkcs11.pin", "HSM_CREDENTIALS"),
        ] {
            let is_named = |fault: &&String| fault.starts_with(setting) && fault.contains(how);
            assert_eq!(faults.iter().filter(is_named).count(), 1, "{faults:?}");
        }
        assert_eq!(faults.len(), 3);
    }

    #[test]
    fn tokens_and_signed_approvals_need_keys_everywhere() {
        for (variable, value, setting) in [
            ("KMS__AUTH__REQUIRE_JWT", "true", "auth.require_jwt"),
            ("KMS__AUTH__ISSUER", "https://iam", "auth.issuer"),
            ("KMS__AUTH__AUDIENCE", "M33", "auth.audience"),
            ("KMS__APPROVALS__MODE", "signed", "approvals.jwks"),
        ] {
            let given = Given::new("development").set(variable, value);
            let faults = broken(&given);
            assert_eq!(faults.len(), 1, "{variable}: {faults:?}");
            assert!(faults[0].starts_with(setting), "{faults:?}");
            let given = given
                .set("KMS__AUTH__JWKS", "http://iam/jwks")
                .set("KMS__APPROVALS__JWKS", "approvers.json");
            assert_eq!(broken(&given), Vec::<String>::new(), "{variable}");
        }
    }

    #[test]
    fn production_takes_keys_in_the_clear_from_its_own_machine_only() {
        let folder = scratch();
        let given = production(folder.path())
            .set("KMS__APPROVALS__JWKS", "http://127.0.0.1:8021/approvers")
            .set("KMS__AUTH__JWKS", "https://iam/jwks");
        assert_eq!(broken(&given), Vec::<String>::new());
    }

    #[test]
    fn every_environment_but_development_needs_tls() {
        let names = |environment: &str| -> Vec<String> {
            broken(&Given::new(environment))
                .iter()
                .filter_map(|fault| Some(fault.split([':', ' ']).next()?.to_owned()))
                .collect()
        };
        let files = ["tls.certificate", "tls.private_key", "tls.client_ca"];
        for environment in ["staging", "test", "dev"] {
            assert_eq!(names(environment), files, "{environment}");
        }
        assert_eq!(names("development"), Vec::<String>::new());
    }

    #[test]
    fn half_of_tls_is_refused_everywhere() {
        let given = Given::new("development").set("KMS__TLS__CRL", "crls");
        assert_eq!(broken(&given).len(), 3);
    }

    #[test]
    fn prod_is_not_a_way_around_production() {
        let faults = broken(&Given::new("prod"));
        assert!(faults[0].contains("production, in full"), "{faults:?}");
    }

    #[test]
    fn the_two_listeners_need_two_addresses() {
        let given = Given::new("development").set("KMS__SERVER__OPS_LISTEN", "127.0.0.1:8002");
        assert!(broken(&given)[0].starts_with("server.ops_listen"));
        let free = given
            .set("KMS__SERVER__LISTEN", "127.0.0.1:0")
            .set("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0");
        assert_eq!(broken(&free), Vec::<String>::new());
    }
}
