//! `kms ledger verify --url`: the ledger of a running service, over the network.

use std::path::Path;

use super::{kept_checkpoint, public_key, verify};
use crate::support::{Ended, Pki, TestKms, UNTHROTTLED};

/// The settings of a service that module M27 may audit.
fn audited() -> Vec<(&'static str, &'static str)> {
    [&UNTHROTTLED[..], &[("KMS__AUTH__AUDITORS", "M27")]].concat()
}

/// Verifies without blocking the service in this process.
async fn verify_there(kms: &TestKms, arguments: &[&str]) -> Ended {
    let folder = kms.folder().to_owned();
    let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        verify(&folder, &arguments)
    })
    .await
    .expect("no panic")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_a_running_service_verifies_by_its_address() {
    let kms = TestKms::start_with(&audited()).await;
    kms.leave_receipts(600).await;
    let url = format!("http://{}", kms.address());
    let key = public_key(kms.folder());
    let since = kept_checkpoint(kms.folder(), &kms.folder().join("since"));
    kms.leave_receipts(10).await;
    let arguments = ["--url", &url, "--public-key", &key, "--since", &since];
    let ended = verify_there(&kms, &arguments).await;
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .starts_with("verified: 610 receipts\nsize: 610\n")
    );
    assert!(
        ended
            .stdout
            .contains("grown out of the given checkpoint: 600\n")
    );
    // Only an auditor reads receipts.
    let ended = verify_there(&kms, &["--url", &url, "--module", "M21"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains(&format!("{url}/kms/v1/ledger/tile/entries/000 answers 403")),
        "{}",
        ended.stderr
    );
    let key = kms::domain::ledger::VerifierKey::new("kms", [9; 32]).to_string();
    let ended = verify_there(&kms, &["--url", &url, "--public-key", &key]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("not signed by a given public key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_limits_its_callers_is_verified_at_its_pace() {
    let limits = [
        ("KMS__LIMITS__REQUESTS_PER_SECOND", "20"),
        ("KMS__LIMITS__BURST", "40"),
        ("KMS__AUTH__AUDITORS", "M27"),
    ];
    let folder = crate::ledger_start::used_folder(10).await;
    let kms = TestKms::start_in(folder, &limits).await;
    let url = format!("http://{}", kms.address());
    while kms.get("/kms/v1/ledger/checkpoint").await.status != 429 {}
    let ended = verify_there(&kms, &["--url", &url]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_a_service_in_production_verifies_with_a_certificate() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &audited()).await;
    let url = format!("https://localhost:{}", kms.address().port());
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let client = pki.client("tenant123", "M27");
    let pem = client.pem();
    let start = pem.find("-----BEGIN CERTIFICATE").expect("a certificate");
    std::fs::write(&key, &pem[..start]).expect("written");
    std::fs::write(&certificate, &pem[start..]).expect("written");
    let authority = pki.path("ca.pem");
    let arguments = [
        "--url",
        &url,
        "--cacert",
        text(&authority),
        "--cert",
        text(&certificate),
        "--key",
        text(&key),
    ];
    let ended = verify_there(&kms, &arguments).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    let ended = verify_there(&kms, &arguments[..4]).await;
    assert_eq!(ended.code, Some(1), "without a certificate");
    assert!(ended.stderr.contains(&url), "{}", ended.stderr);
}
