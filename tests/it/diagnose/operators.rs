//! Faults of what the operator lays out: certificates, revocation lists, key sets, and
//! the token.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{Findings, diagnose};
use crate::support::fake_service::FakeService;
use crate::support::outsider::{Production, Validity};
use crate::support::{Issuer, Pki, TokenService};

/// Diagnoses an empty folder with these settings.
fn with(settings: &[(&str, &str)]) -> Findings {
    let folder = tempfile::tempdir().expect("a folder");
    diagnose(folder.path(), settings)
}

#[test]
fn each_file_of_tls_is_named_with_what_is_wrong() {
    let pki = Pki::new();
    let files = pki.settings();
    let settings: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    with(&settings).well();
    let other = Pki::new();
    let read = |pki: &Pki, file: &str| std::fs::read_to_string(pki.path(file)).expect("read");
    for (file, content, words) in [
        (
            "server.key",
            read(&other, "server.key"),
            "is not the key of the first certificate",
        ),
        (
            "server.pem",
            "nonsense".to_owned(),
            "has no certificate in it",
        ),
        ("ca.pem", read(&pki, "server.pem"), "not an authority's"),
        (
            "ca.crl",
            "nonsense".to_owned(),
            "has no revocation list in it",
        ),
    ] {
        let own = read(&pki, file);
        pki.write(file, &content);
        with(&settings).only("tls", words);
        pki.write(file, &own);
        std::fs::remove_file(pki.path(file)).expect("removed");
        with(&settings).only("tls", file);
        pki.write(file, &own);
    }
    with(&settings).well();
    let found = with(&settings[..3]);
    found.well();
    found.says("note", "crl", "no certificate counts as revoked");
}

#[test]
fn a_certificate_that_ended_is_told() {
    let production = Production::lay_out();
    production.issue("late", "ca", "DNS:localhost", "serverAuth", Validity::ENDED);
    let (certificate, key) = (production.file("late.pem"), production.file("late.key"));
    let pki = Pki::new();
    let authority = pki.path("ca.pem");
    let settings = [
        (
            "KMS__TLS__CERTIFICATE",
            certificate.to_str().expect("UTF-8"),
        ),
        ("KMS__TLS__PRIVATE_KEY", key.to_str().expect("UTF-8")),
        ("KMS__TLS__CLIENT_CA", authority.to_str().expect("UTF-8")),
    ];
    with(&settings).only("tls", "ended at 2021-01-01");
}

#[test]
fn key_sets_in_files_and_at_addresses_are_read_within_a_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    let set = Issuer::key_set(&[&Issuer::ed25519("k", 1)]);
    let path = file.to_str().expect("UTF-8");
    let callers = [("KMS__AUTH__JWKS", path)];
    let approvers = [
        ("KMS__APPROVALS__MODE", "signed"),
        ("KMS__APPROVALS__JWKS", path),
    ];
    std::fs::write(&file, &set).expect("written");
    with(&callers).well();
    with(&approvers).well();
    std::fs::write(&file, "{}").expect("written");
    with(&callers).only("jwks", "is not acceptable");
    with(&approvers).only("approvers_jwks", "is not acceptable");
    std::fs::remove_file(&file).expect("removed");
    with(&callers).only("jwks", "cannot be read");

    let there = FakeService::always(200, "", set);
    let found = with(&[("KMS__AUTH__JWKS", there.address())]);
    found.well();
    found.says("ok", "jwks", "1 key");
    assert!(!found.ended.stdout.contains("1 keys"));
    let away = FakeService::always(500, "", "");
    with(&[("KMS__AUTH__JWKS", away.address())]).only("jwks", "answers 500");
    with(&[("KMS__AUTH__JWKS", "http://127.0.0.1:9/")]).only("jwks", "cannot be fetched");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!(
        "http://me:hunter2@{}",
        silent.local_addr().expect("an address")
    );
    let began = Instant::now();
    let found = with(&[("KMS__AUTH__JWKS", &address)]);
    found.only("jwks", "cannot be fetched");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(!found.ended.stdout.contains("hunter2"), "{:?}", found.ended);
}

#[test]
fn a_token_is_looked_at_as_hsm_check_does() {
    let service = TokenService::new();
    let look = |others: &[(&str, &str)]| {
        let others = [&[("KMS__HSM__SOFTWARE__RSA_STOCK", "0")], others].concat();
        Findings::of(service.run(&["diagnose", "--json"], &others))
    };
    let found = look(&[]);
    found.well();
    found.says("ok", "hsm", "login: the PIN opens the token");
    assert_eq!(service.listed(), Vec::<String>::new());
    look(&[("KMS__HSM__PKCS11__PIN", "0815-4711")]).only("hsm", "does not take the PIN");
    look(&[("KMS__HSM__PKCS11__TOKEN_LABEL", "other")]).only("hsm", "no token labelled");
}
