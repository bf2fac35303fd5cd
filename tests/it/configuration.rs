//! A faulty configuration never starts, is named in full, and tells no secret.

use std::net::TcpListener;
use std::path::Path;

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{KmsProcess, base64, in_scope, unbase64};

/// Every setting of the contract.
const SETTINGS: [&str; 54] = [
    "data_dir",
    "server.listen",
    "server.ops_listen",
    "server.max_body_bytes",
    "server.request_timeout",
    "server.max_in_flight",
    "server.shutdown_grace",
    "server.cors_origins",
    "tls.certificate",
    "tls.private_key",
    "tls.client_ca",
    "tls.crl",
    "auth.require_jwt",
    "auth.jwks",
    "auth.issuer",
    "auth.audience",
    "approvals.mode",
    "approvals.jwks",
    "approvals.quorum",
    "approvals.operations",
    "hsm.backend",
    "hsm.allow_software_in_production",
    "hsm.software.kek_file",
    "hsm.software.rsa_stock",
    "hsm.pkcs11.module",
    "hsm.pkcs11.token_label",
    "hsm.pkcs11.token_serial",
    "hsm.pkcs11.pin",
    "hsm.pkcs11.sessions",
    "hsm.pkcs11.deadline",
    "store.url",
    "keys.rotation_schedule.RSA-2048",
    "keys.rotation_schedule.Ed25519",
    "keys.rotation_schedule.AES-256",
    "keys.rotation_grace_period",
    "keys.max_usage_per_day",
    "keys.allowed_modules",
    "limits.requests_per_second",
    "limits.burst",
    "limits.groups.lifecycle.requests_per_second",
    "limits.groups.lifecycle.burst",
    "limits.groups.sign.requests_per_second",
    "limits.groups.sign.burst",
    "limits.groups.verify.requests_per_second",
    "limits.groups.verify.burst",
    "limits.groups.encrypt.requests_per_second",
    "limits.groups.encrypt.burst",
    "limits.groups.decrypt.requests_per_second",
    "limits.groups.decrypt.burst",
    "limits.groups.read.requests_per_second",
    "limits.groups.read.burst",
    "log.format",
    "log.level",
    "environment",
];

const CANARY: &str = "canary-pin-5150";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn the_configuration_in_effect_is_printed_in_full_with_where_each_value_is_from() {
    let folder = folder();
    let files = folder.path().join("files");
    std::fs::create_dir(&files).expect("a folder");
    let text = "[keys]\nmax_usage_per_day = 77\n[server]\nmax_in_flight = 5\n";
    std::fs::write(files.join("default.toml"), text).expect("written");
    let settings = [
        ("KMS__SERVER__MAX_IN_FLIGHT", "9"),
        ("CORS_ORIGINS", "https://app.example.com"),
        ("HSM_CREDENTIALS", CANARY),
        ("UNRELATED", "left alone"),
    ];
    let arguments = ["check-config", "--config", files.to_str().expect("UTF-8")];
    let ended = KmsProcess::run(folder.path(), &arguments, &settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for setting in SETTINGS {
        let lines: Vec<&str> = ended
            .stdout
            .lines()
            .filter(|line| {
                let quoted = line.replace('"', "");
                quoted.starts_with(&format!("{setting} = "))
                    || quoted.starts_with(&format!("# {setting}: "))
                    || quoted == format!("# {setting} is not set")
            })
            .collect();
        let [line] = lines[..] else {
            panic!("one line of {setting}: {}", ended.stdout);
        };
        let has_origin = line.contains("  # ") || line.starts_with("# ");
        assert!(has_origin, "{line}");
    }
    let file = files.join("default.toml").display().to_string();
    for (start, origin) in [
        ("keys.max_usage_per_day = 77  #", file.as_str()),
        ("server.max_in_flight = 9  #", "KMS__SERVER__MAX_IN_FLIGHT"),
        ("server.cors_origins = ", "CORS_ORIGINS"),
        ("hsm.pkcs11.pin = \"********\"", "HSM_CREDENTIALS"),
        ("log.level = \"info\"  #", "default"),
        ("# environment: development", "default"),
    ] {
        let line = ended.stdout.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start}: {}", ended.stdout));
        assert!(line.contains(origin), "{line}");
    }
    assert!(!ended.output().contains(CANARY));
    assert!(!ended.output().contains("UNRELATED"));
}

#[test]
fn every_fault_is_named_at_once_and_serving_says_the_same_as_checking() {
    let folder = folder();
    let settings = [
        ("KMS__SERVER__LISTEN", "nowhere"),
        ("KMS__SERVER__REQUEST_TIMEOUT", "soon"),
        ("KMS__KEYS__MAX_USAGE_PER_DAY", "-1"),
        ("KMS__SERVR__LISTEN", "127.0.0.1:1"),
        ("KMS__HSM__PKCS11__SESSIONS", CANARY),
        ("KMS__HSM__PKCS11__PINN", CANARY),
        ("HSM_CREDENTIALS", CANARY),
        ("KMS__LOG__FORMAT", "json"),
    ];
    let checked = KmsProcess::run(folder.path(), &["check-config"], &settings);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(64), ""));
    for (setting, variable) in [
        ("server.listen", "KMS__SERVER__LISTEN"),
        ("server.request_timeout", "KMS__SERVER__REQUEST_TIMEOUT"),
        ("keys.max_usage_per_day", "KMS__KEYS__MAX_USAGE_PER_DAY"),
        ("servr.listen", "is KMS__SERVER__LISTEN meant?"),
        ("hsm.pkcs11.sessions", "KMS__HSM__PKCS11__SESSIONS"),
        ("hsm.pkcs11.pinn", "KMS__HSM__PKCS11__PINN"),
    ] {
        let line = checked
            .stderr
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{setting} (")));
        let line = line.unwrap_or_else(|| panic!("no {setting}: {}", checked.stderr));
        assert!(line.contains(variable), "{line}");
    }
    assert!(checked.stderr.contains("6 faults"), "{}", checked.stderr);
    for arguments in [&["serve"][..], &[], &["ledger", "public-key"]] {
        let served = KmsProcess::run(folder.path(), arguments, &settings);
        assert_eq!(served.code, Some(64), "{}", served.output());
        assert_eq!(served.output(), checked.stderr, "{arguments:?}");
    }
    assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
    // Nothing was made on the way.
    let left = std::fs::read_dir(folder.path()).expect("a folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn production_refuses_every_hole_in_one_message() {
    let folder = folder();
    let kek = folder.path().join("kek");
    let settings = [
        ("ENVIRONMENT", "production"),
        ("KMS__APPROVALS__MODE", "development"),
        ("KMS__STORE__URL", "memory:"),
        ("KMS__HSM__SOFTWARE__KEK_FILE", kek.to_str().expect("UTF-8")),
    ];
    for cors in ["*", ""] {
        let mut settings = settings.to_vec();
        settings.push(("CORS_ORIGINS", cors));
        let ended = KmsProcess::run(folder.path(), &["serve"], &settings);
        assert_eq!(ended.code, Some(64), "{}", ended.output());
        for (setting, why) in [
            ("tls.certificate", "mutual TLS"),
            ("tls.private_key", "mutual TLS"),
            ("tls.client_ca", "mutual TLS"),
            ("server.cors_origins", "production"),
            ("hsm.backend", "allow_software_in_production"),
            ("hsm.software.kek_file", "development"),
            ("approvals.mode", "signature"),
            ("store.url", "memory"),
        ] {
            let line = ended
                .stderr
                .lines()
                .find(|line| line.trim_start().starts_with(setting) && line.contains(why));
            assert!(line.is_some(), "{setting}: {}", ended.stderr);
        }
    }
    let nothing = [("ENVIRONMENT", "production")];
    let ended = KmsProcess::run(folder.path(), &["serve"], &nothing);
    assert_eq!(ended.code, Some(64), "{}", ended.output());
    let missing = "hsm.software.kek_file: production makes no";
    assert!(ended.stderr.contains(missing), "{}", ended.stderr);
}

#[test]
fn help_and_version_succeed_and_a_wrong_argument_says_so() {
    let folder = folder();
    let help = KmsProcess::run(folder.path(), &["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for command in ["serve", "check-config", "ledger"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
    }
    let version = KmsProcess::run(folder.path(), &["--version"], &[]);
    assert_eq!(version.code, Some(0));
    let wanted = format!("kms {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.stdout, wanted);
    for arguments in [&["srve"][..], &["--confg", "x"], &["ledger", "eat"]] {
        let ended = KmsProcess::run(folder.path(), arguments, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        let named = arguments.iter().any(|wrong| ended.stderr.contains(wrong));
        assert!(named, "{}", ended.stderr);
    }
}

#[test]
fn an_address_that_is_taken_is_named_with_its_setting() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (variable, setting) in [
        ("KMS__SERVER__LISTEN", "server.listen"),
        ("KMS__SERVER__OPS_LISTEN", "server.ops_listen"),
    ] {
        let ended = KmsProcess::run(folder.path(), &["serve"], &[(variable, &address)]);
        assert_does_not_start(&ended.output(), ended.code, &[&address, setting]);
    }
}

#[track_caller]
fn assert_does_not_start(output: &str, code: Option<i32>, because: &[&str]) {
    assert_eq!(code, Some(1), "{output}");
    let line = output.lines().find(|line| line.contains("cannot start"));
    let line = line.unwrap_or_else(|| panic!("no reason: {output}"));
    for part in because {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!output.contains("listening"), "{output}");
}

#[track_caller]
fn refuses_to_start(folder: &Path, because: &[&str]) {
    let ended = KmsProcess::run(folder, &["serve"], &[]);
    assert_does_not_start(&ended.output(), ended.code, because);
}

#[tokio::test]
async fn two_processes_never_share_a_data_folder() {
    let folder = folder();
    let kms = KmsProcess::start(folder.path(), &[]);
    let path = folder.path().display().to_string();
    refuses_to_start(folder.path(), &["another process", &path]);
    // The first has not noticed.
    kms.generate_id("Ed25519").await;
    kms.stop();
    KmsProcess::start(folder.path(), &[]).stop();
}

/// A data folder that was used and left in an orderly way.
async fn used_folder() -> tempfile::TempDir {
    let folder = folder();
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("Ed25519").await;
    kms.stop();
    folder
}

/// Puts a file aside, and back again.
struct Aside<'a>(&'a Path);

impl Aside<'_> {
    fn name(&self) -> std::path::PathBuf {
        self.0.with_extension("aside")
    }

    fn put(path: &Path) -> Aside<'_> {
        let aside = Aside(path);
        std::fs::rename(path, aside.name()).expect("moved");
        aside
    }

    fn back(self) {
        std::fs::rename(self.name(), self.0).expect("moved");
    }
}

fn write_secret(path: &Path, content: &[u8], mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn a_missing_or_foreign_secret_beside_an_old_store_is_never_replaced() {
    let folder = used_folder().await;
    for name in ["kek", "ledger.key"] {
        let path = folder.path().join(name);
        let shown = path.display().to_string();
        let aside = Aside::put(&path);
        refuses_to_start(folder.path(), &[&shown, "missing", "restore", "backup"]);
        assert!(!path.exists(), "a new one would look like the right one");

        write_secret(&path, &[0x5a; 32], 0o600);
        let because = [&shown, "is not the one", "restore", "backup"];
        refuses_to_start(folder.path(), &because);
        assert_eq!(std::fs::read(&path).expect("there"), [0x5a; 32]);

        write_secret(&path, b"short", 0o600);
        refuses_to_start(folder.path(), &[&shown, "restore"]);
        aside.back();
    }
    // Nothing of that has left a mark.
    KmsProcess::start(folder.path(), &[]).stop();
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_refused_with_how_to_mend_it() {
    let folder = used_folder().await;
    for name in ["kek", "ledger.key"] {
        let path = folder.path().join(name);
        let content = std::fs::read(&path).expect("there");
        write_secret(&path, &content, 0o644);
        let shown = path.display().to_string();
        refuses_to_start(folder.path(), &[&shown, "chmod 600"]);
        write_secret(&path, &content, 0o600);
    }
    KmsProcess::start(folder.path(), &[]).stop();
}

#[tokio::test]
async fn a_ledger_whose_newest_receipt_was_changed_is_not_served() {
    let folder = used_folder().await;
    let store = rusqlite::Connection::open(folder.path().join("kms.db")).expect("a database");
    let change = "UPDATE receipts SET leaf = CAST(replace(CAST(leaf AS TEXT), \
                  '\"success\":true', '\"success\":null') AS BLOB)";
    store
        .execute_batch(change)
        .expect_err("the store itself forbids it");
    store
        .execute_batch("DROP TRIGGER receipts_stay_the_same")
        .expect("dropped");
    assert_eq!(store.execute(change, []).expect("changed"), 1);
    drop(store);
    refuses_to_start(
        folder.path(),
        &["receipt 0 does not bear a good signature", "restore"],
    );
}

#[tokio::test]
async fn the_printed_verifier_key_checks_receipts() {
    let folder = folder();
    let early = KmsProcess::run(folder.path(), &["ledger", "public-key"], &[]);
    assert_eq!((early.code, early.stdout.as_str()), (Some(1), ""));
    assert!(early.stderr.contains("ledger.key"), "{}", early.stderr);

    let kms = KmsProcess::start(folder.path(), &[]);
    let key_id = kms.generate_id("Ed25519").await;
    let body = in_scope(json!({ "key_id": key_id, "data": base64("x") }));
    let signed = kms.post("/kms/v1/sign", &body).await;
    let receipt_id = signed.ok()["receipt_id"].as_str().expect("an id");
    let found = kms
        .get_scoped(&format!("/kms/v1/receipts/{receipt_id}"))
        .await;
    let mut receipt = found.ok()["receipt"].clone();

    // Beside the running service too.
    let printed = KmsProcess::run(folder.path(), &["ledger", "public-key"], &[]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let line = printed.stdout.strip_suffix('\n').expect("a line");
    let parts: Vec<&str> = line.splitn(3, '+').collect();
    let [name, hash, key] = parts[..] else {
        panic!("name+hash+key: {line}");
    };
    let key = unbase64(&json!(key));
    assert_eq!(key[0], 1, "Ed25519");
    let digest = Sha256::digest([name.as_bytes(), b"\n", &key].concat());
    let wanted: String = digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash, wanted);

    let fields = receipt.as_object_mut().expect("an object");
    let signature = unbase64(&fields.remove("signature").expect("a signature"));
    let unsigned = serde_json_canonicalizer::to_vec(&receipt).expect("canonical");
    let key = VerifyingKey::try_from(&key[1..]).expect("a key");
    let signature = Signature::from_slice(&signature).expect("64 bytes");
    key.verify_strict(&unsigned, &signature).expect("genuine");
    kms.stop();
}
