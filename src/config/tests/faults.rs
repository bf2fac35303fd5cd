//! Faults: all of them at once, each named, and no secret told.
//!
//! What one setting takes and one rule refuses is tested beside it.

use super::super::testing::{Given, faults_of, folder, load, source_of};
use super::super::*;

#[test]
fn two_spellings_of_one_variable_are_refused() {
    let given = Given::nothing()
        .set("KMS__LOG__LEVEL", "info")
        .set("kms__log__level", "trace");
    let faults = faults_of(&given);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("KMS__LOG__LEVEL") && faults[0].contains("kms__log__level"));
}

#[test]
fn every_fault_is_reported_at_once_with_its_name_and_origin() {
    let files = folder(&[(
        "default.toml",
        "[server]\nlisten = 8002\nmax_in_flight = \"many\"\n[keys]\nrotation_grace_period = \"P0D\"\n",
    )]);
    let given = Given::new("production")
        .folder(files.path())
        .set("KMS__APPROVALS__QUORUM", "9")
        .set("KMS__LOG__LEVEL", "loud");
    let faults = faults_of(&given);
    for (setting, origin, expected) in [
        ("server.listen", "default.toml", "expected an IP address"),
        ("server.max_in_flight", "default.toml", "whole number"),
        (
            "keys.rotation_grace_period",
            "default.toml",
            "longer than zero",
        ),
        (
            "approvals.quorum",
            "(KMS__APPROVALS__QUORUM)",
            "from 1 to 8",
        ),
        ("log.level", "(KMS__LOG__LEVEL)", "one of error, warn"),
        ("tls.certificate", "", "mutual TLS"),
    ] {
        let fault = faults.iter().find(|fault| fault.starts_with(setting));
        assert!(
            fault.is_some_and(|fault| fault.contains(origin) && fault.contains(expected)),
            "{setting}: {faults:?}"
        );
    }
}

#[test]
fn a_setting_at_fault_gets_no_second_fault_from_a_rule() {
    let given = Given::new("production").set("KMS__APPROVALS__MODE", "sgined");
    let mut faults = faults_of(&given);
    faults.retain(|fault| fault.starts_with("approvals.mode"));
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn an_unknown_setting_is_named_with_the_one_that_was_meant() {
    let files = folder(&[(
        "default.toml",
        "listen = \"a\"\n\"server.listen\" = \"b\"\nnonsense.x = 1\n[logg]\nlevel = \"info\"\n[extra]\n",
    )]);
    let given = Given::nothing()
        .folder(files.path())
        .set("KMS__SERVR__LISTEN", "127.0.0.1:1")
        .set("KMS__KEYS__ROTATION_SCHEDULE__RSA_4096", "P1D");
    let faults = faults_of(&given);
    assert_eq!(faults.len(), 7, "{faults:?}");
    for (start, hint) in [
        ("listen (", "is server.listen meant?"),
        ("\"server.listen\" (", "is server.listen meant?"),
        ("logg.level (", "is log.level meant?"),
        (
            "servr.listen (KMS__SERVR__LISTEN)",
            "is KMS__SERVER__LISTEN meant?",
        ),
        (
            "keys.rotation_schedule.rsa_4096 (",
            "is KMS__KEYS__ROTATION_SCHEDULE__RSA_2048 meant?",
        ),
        (
            "nonsense.x (",
            "unknown setting, expected one of those in default.toml",
        ),
        ("extra (", "unknown setting"),
    ] {
        let fault = faults.iter().find(|fault| fault.starts_with(start));
        assert!(
            fault.is_some_and(|f| f.contains(hint)),
            "{start}: {faults:?}"
        );
    }
}

#[test]
fn an_empty_section_is_not_an_unknown_setting() {
    let files = folder(&[("default.toml", "[tls]\n[hsm.pkcs11]\n")]);
    load(&Given::nothing().folder(files.path()));
}

#[test]
fn a_file_that_is_not_toml_is_named_with_its_line_and_quoted_nowhere() {
    let text = "[hsm.pkcs11]\n\npin = canary-1234 oops\n";
    let files = folder(&[("development.toml", text)]);
    let given = Given::new("development")
        .folder(files.path())
        .set("KMS__LOG__LEVEL", "loud");
    let faults = faults_of(&given);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].contains("development.toml: line 3: expected TOML"),
        "{faults:?}"
    );
    assert!(!faults[0].contains("canary"), "{faults:?}");
    assert!(faults[1].starts_with("log.level"), "{faults:?}");
}

#[test]
fn a_file_or_a_folder_that_cannot_be_read_is_a_fault_and_a_missing_file_is_not() {
    let files = folder(&[]);
    load(&Given::nothing().folder(files.path()));
    std::fs::write(files.path().join("default.toml"), b"data_dir = \"\xff\"").expect("a file");
    assert!(faults_of(&Given::nothing().folder(files.path()))[0].contains("UTF-8"));
    let nowhere = files.path().join("nowhere");
    assert!(faults_of(&Given::nothing().folder(&nowhere))[0].contains("isn't there"));
}

#[test]
fn a_name_that_is_no_environment_is_a_fault_and_not_development() {
    for name in ["", "Production", "../production"] {
        let faults = faults_of(&Given::new(name));
        assert_eq!(faults.len(), 1, "{name:?}: {faults:?}");
        assert!(faults[0].starts_with("environment (ENVIRONMENT)"));
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_fault() {
    let given = Given::nothing().set("KMS__DATA_DIR", "d\u{fffd}ta");
    assert!(faults_of(&given)[0].contains("UTF-8"));
}

#[test]
fn no_secret_is_in_what_is_printed_or_in_a_fault() {
    let given = Given::nothing().set("HSM_CREDENTIALS", "canary");
    let shown = load(&given).effective.to_string();
    assert!(shown.contains("hsm.pkcs11.pin = \"********\"  # HSM_CREDENTIALS\n"));
    assert!(!shown.contains("canary"));

    let files = folder(&[("default.toml", "hsm.pkcs11.pin = [\"canary\"]")]);
    let given = Given::new("production")
        .folder(files.path())
        .set("KMS__STORE__URL", "postgres://kms:canary@db/kms")
        .set("KMS__HSM__PKCS11__SESSIONS", "canary")
        .set("KMS__HSM__PKCS11__PINN", "canary");
    let message = faults_of(&given).join("\n");
    assert!(message.contains("hsm.pkcs11.pin (") && message.contains("store.url ("));
    assert!(!message.contains("canary"), "{message}");
    assert!(
        !resolve(&source_of(&[(
            "KMS__STORE__URL",
            "postgres://kms:canary@db/kms"
        )]))
        .0
        .effective
        .to_string()
        .contains("canary")
    );
}

#[test]
fn rules_wait_for_a_file_that_cannot_be_read_and_for_the_name_of_the_environment() {
    let files = folder(&[("production.toml", "[tls")]);
    let faults = faults_of(&Given::new("production").folder(files.path()));
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("production.toml: line 1"), "{faults:?}");
    let unnamed = Given::new("Production").set("KMS__TLS__CRL", "crls");
    assert_eq!(faults_of(&unnamed).len(), 1);
}

#[test]
fn every_number_and_name_keeps_to_its_bounds() {
    for (variable, inside, outside) in [
        ("SERVER__MAX_BODY_BYTES", "1KiB", "1023"),
        ("SERVER__MAX_BODY_BYTES", "64MiB", "67108865"),
        ("SERVER__MAX_IN_FLIGHT", "1", "0"),
        ("SERVER__REQUEST_TIMEOUT", "1s", "0s"),
        ("SERVER__SHUTDOWN_GRACE", "1s", "0s"),
        ("KEYS__MAX_USAGE_PER_DAY", "1", "0"),
        (
            "KEYS__MAX_USAGE_PER_DAY",
            "9007199254740991",
            "9007199254740992",
        ),
        ("KEYS__ALLOWED_MODULES", "M21,EPC-1", "M21,-"),
        ("KEYS__ROTATION_SCHEDULE__AES_256", "1d", "P1M"),
        ("LIMITS__REQUESTS_PER_SECOND", "1", "0"),
        ("LIMITS__BURST", "1", "0"),
        ("HSM__PKCS11__SESSIONS", "1024", "1025"),
        ("APPROVALS__QUORUM", "8", "9"),
    ] {
        let given = |value| Given::nothing().set(&format!("KMS__{variable}"), value);
        assert_eq!(faults_of(&given(inside)), Vec::<String>::new());
        assert_eq!(faults_of(&given(outside)).len(), 1, "{variable}={outside}");
    }
}
