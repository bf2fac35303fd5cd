//! `kms diagnose`: a healthy service has nothing to mend, and each thing that can be
//! wrong is named, with how to mend it, and nothing is changed by looking.

mod beside;
mod broken;
mod operators;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::outsider::Production;
use crate::support::{Ended, KmsProcess};

/// What was found.
struct Findings {
    ended: Ended,
    document: Value,
}

/// Diagnoses a data folder with these settings, as one document.
fn diagnose(folder: &Path, settings: &[(&str, &str)]) -> Findings {
    Findings::of(KmsProcess::run(folder, &["diagnose", "--json"], settings))
}

impl Findings {
    fn of(ended: Ended) -> Self {
        assert_eq!(ended.stderr, "");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
        let document = serde_json::from_str(&ended.stdout).expect("JSON");
        Self { ended, document }
    }

    /// The findings of this verdict: the check, what was found, and how to mend it.
    fn of_verdict(&self, verdict: &str) -> Vec<(&str, &str, &str)> {
        let findings = self.document["findings"].as_array().expect("a list");
        findings
            .iter()
            .filter(|finding| finding["verdict"] == verdict)
            .map(|finding| {
                let text = |name: &str| finding[name].as_str().unwrap_or_default();
                (text("check"), text("what"), text("remedy"))
            })
            .collect()
    }

    #[track_caller]
    fn well(&self) {
        assert_eq!(self.of_verdict("fail"), [], "{:?}", self.ended);
        assert_eq!(self.document["healthy"], true);
        assert_eq!(self.ended.code, Some(0), "{:?}", self.ended);
    }

    /// Checks that this alone is wrong, in these words.
    #[track_caller]
    fn only(&self, check: &str, words: &str) {
        let found = self.of_verdict("fail");
        let [(of, what, remedy)] = found.as_slice() else {
            panic!("{check}: {found:#?}");
        };
        assert_eq!(*of, check, "{what}");
        assert!(what.contains(words), "{words:?} is not in {what:?}");
        assert!(!remedy.is_empty());
        assert_eq!(self.document["healthy"], false);
        assert_eq!(self.ended.code, Some(1), "{:?}", self.ended);
    }

    /// Checks that this is wrong among others.
    #[track_caller]
    fn among(&self, check: &str, words: &str) {
        let found = self.of_verdict("fail");
        let is_it = |(of, what, _): &&(&str, &str, &str)| *of == check && what.contains(words);
        assert!(
            found.iter().any(|finding| is_it(&finding)),
            "{check} {words}: {found:#?}"
        );
        assert_eq!(self.ended.code, Some(1), "{:?}", self.ended);
    }

    /// Checks that this is found, and stands in nobody's way.
    #[track_caller]
    fn says(&self, verdict: &str, check: &str, words: &str) {
        let found = self.of_verdict(verdict);
        let is_it = |(of, what, _): &&(&str, &str, &str)| *of == check && what.contains(words);
        assert!(
            found.iter().any(|finding| is_it(&finding)),
            "{check} {words}: {found:#?}"
        );
    }
}

/// Every file of a folder, with all that shows a change.
fn state(folder: &Path) -> BTreeMap<String, (Vec<u8>, i64, i64, u32)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let found = entry.metadata().expect("there");
        let content = match found.is_dir() {
            true => Vec::new(),
            false => std::fs::read(entry.path()).expect("read"),
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(
            name,
            (content, found.mtime(), found.mtime_nsec(), found.mode()),
        );
    }
    files
}

/// The settings for the ports that this service has.
fn ports(kms: &KmsProcess) -> [(&'static str, String); 2] {
    let operations = kms.operations().expect("an operations listener");
    [
        ("KMS__SERVER__LISTEN", kms.api().to_string()),
        ("KMS__SERVER__OPS_LISTEN", operations.to_string()),
    ]
}

fn pairs<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

#[test]
fn before_the_first_start_nothing_is_wrong_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("deep/data");
    let settings = [("KMS__DATA_DIR", data.to_str().expect("UTF-8"))];
    let found = diagnose(folder.path(), &settings);
    found.well();
    for check in ["data_dir", "store", "kek"] {
        found.says("ok", check, "made at the first start");
    }
    assert_eq!(state(folder.path()), BTreeMap::new());
    let text = KmsProcess::run(folder.path(), &["diagnose"], &settings);
    assert_eq!(text.code, Some(0), "{text:?}");
    assert!(text.stdout.ends_with("\nall is well\n"), "{text:?}");
    assert!(text.stdout.contains("\nok    entropy: "), "{text:?}");
}

#[tokio::test]
async fn a_running_service_is_seen_and_a_stopped_one_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("AES-256").await;
    let settings = ports(&kms);
    let settings = pairs(&settings);
    // The service itself writes its newest checkpoint down at some time.
    let names = |folder: &Path| -> Vec<String> {
        let names = state(folder).into_keys();
        names
            .filter(|name| !name.starts_with("ledger.checkpoint"))
            .collect()
    };
    let before = names(folder.path());
    let found = diagnose(folder.path(), &settings);
    found.well();
    assert_eq!(names(folder.path()), before);
    found.says("ok", "service", "runs as process ");
    found.says("ok", "server.listen", "the service answers on 127.0.0.1:");
    found.says(
        "ok",
        "server.ops_listen",
        "the service answers on 127.0.0.1:",
    );
    found.says("ok", "ledger", "1 receipt, the newest");
    found.says("ok", "kek", "which the store has pinned");
    found.says("ok", "clock", "the newest receipt is of 20");
    // It goes on, and ends in an orderly way.
    kms.generate_id("AES-256").await;

    kms.kill();
    for _ in 0..2 {
        let before = state(folder.path());
        assert_eq!(
            before.contains_key("kms.db-shm"),
            before.contains_key("kms.db-wal")
        );
        let found = diagnose(folder.path(), &settings);
        found.well();
        found.says("ok", "service", "does not run");
        found.says("ok", "server.listen", " is free");
        found.says("ok", "ledger", "2 receipts");
        assert_eq!(state(folder.path()), before);
        // The same after an orderly end.
        KmsProcess::start(folder.path(), &[]).stop();
    }
}

#[test]
fn what_dev_pki_lays_out_for_production_is_well() {
    let production = Production::lay_out();
    let kms = production.start();
    let ports = ports(&kms);
    let environment = production.environment();
    let mut settings: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    settings.extend(pairs(&ports));
    let found = diagnose(production.file("").parent().expect("a folder"), &settings);
    found.well();
    for check in [
        "tls_certificate",
        "client_ca",
        "crl",
        "jwks",
        "approvers_jwks",
        "kek",
    ] {
        let good = found.of_verdict("ok");
        assert!(
            good.iter().any(|(of, _, _)| *of == check),
            "{check}: {good:#?}"
        );
    }
    found.says("ok", "client_ca", "1 authority");
    found.says("ok", "crl", "1 revocation list, none");
    found.says("ok", "server.listen", ", with TLS");
    found.says("ok", "server.ops_listen", "the service answers");
    kms.signal("STOP");
    let found = diagnose(production.file("").parent().expect("a folder"), &settings);
    kms.signal("CONT");
    found.among("server.listen", "does not answer: nothing within 5 s");
    found.among("server.ops_listen", "does not answer");
}

#[tokio::test]
async fn the_lock_is_not_even_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("AES-256").await;
    kms.kill();
    // The log and its index are left over, so whoever looks has to know whether anybody
    // serves. Whoever held the lock to find out would keep a service from starting.
    let calls = folder.path().join("calls");
    let ended = Command::new("strace")
        .args(["-f", "-e", "trace=open,openat,openat2,flock", "-o"])
        .arg(&calls)
        .args([env!("CARGO_BIN_EXE_kms"), "diagnose", "--json"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("KMS__DATA_DIR", folder.path())
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        .current_dir(folder.path())
        .output()
        .expect("strace runs");
    let found = Findings::of(Ended {
        code: ended.status.code(),
        stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
        stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
    });
    found.well();
    found.says("ok", "ledger", "1 receipt, the newest");
    let calls = std::fs::read_to_string(calls).expect("traced");
    assert!(calls.contains("/kms.db-wal\""), "{calls}");
    assert!(!calls.contains("kms.db.lock"), "{calls}");
    assert!(!calls.contains("flock("), "{calls}");
}
