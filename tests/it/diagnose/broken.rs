//! Faults of the data folder, of the store, and of the machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{Findings, diagnose, pairs, ports, state};
use crate::support::{Ended, KmsProcess, SmallDisk, leaves, open_store};

/// The folder of a service that has stopped: two keys of the software HSM, and receipts.
async fn stopped() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("AES-256").await;
    kms.generate_id("Ed25519").await;
    kms.stop();
    folder
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn whoever_else_may_reach_the_folder_and_its_files_is_named() {
    let folder = stopped().await;
    let file = |name: &str| folder.path().join(name);
    diagnose(folder.path(), &[]).well();

    set_mode(folder.path(), 0o777);
    diagnose(folder.path(), &[]).only("data_dir", "everybody can replace what is in it");
    set_mode(folder.path(), 0o770);
    diagnose(folder.path(), &[]).only("data_dir", "all of group 0 can replace what is in it");
    // Whoever is no owner has it by the group, as a volume of a cluster.
    chown(folder.path(), Some(65_532), Some(0)).expect("this test runs as root");
    diagnose(folder.path(), &[]).says("note", "data_dir", "all of group 0 can replace");
    chown(folder.path(), Some(0), Some(0)).expect("given back");
    set_mode(folder.path(), 0o750);
    let found = diagnose(folder.path(), &[]);
    found.well();
    found.says("note", "data_dir", "others than its owner");
    set_mode(folder.path(), 0o700);

    set_mode(&file("kms.db"), 0o644);
    diagnose(folder.path(), &[]).only("data_files", "kms.db has mode 0644");
    set_mode(&file("kms.db"), 0o600);

    // As after a command that was run as root beside a service that is not.
    chown(file("ledger.checkpoint"), Some(65_532), None).expect("this test runs as root");
    diagnose(folder.path(), &[]).only("data_files", "ledger.checkpoint belongs to user 65532");
    chown(file("ledger.checkpoint"), Some(0), None).expect("given back");

    let no_folder = file("kms.db");
    let settings = [("KMS__DATA_DIR", no_folder.to_str().expect("UTF-8"))];
    diagnose(folder.path(), &settings).among("data_dir", "is no folder");
    diagnose(folder.path(), &[]).well();
}

#[tokio::test]
async fn the_keys_of_the_folder_are_held_to_the_store() {
    let folder = stopped().await;
    let file = |name: &str| folder.path().join(name);
    let other = stopped().await;
    for (name, check, missing, foreign) in [
        ("kek", "kek", "holds none", "2 stored secrets"),
        (
            "ledger.key",
            "ledger_key",
            "is missing",
            "not the one that signed",
        ),
    ] {
        let own = fs::read(file(name)).expect("read");
        let checks = |words: &str| diagnose(folder.path(), &[]).only(check, words);
        fs::remove_file(file(name)).expect("removed");
        checks(missing);
        fs::copy(other.path().join(name), file(name)).expect("copied");
        checks(foreign);
        fs::write(file(name), b"short").expect("written");
        diagnose(folder.path(), &[]).among(check, "neither 32 bytes nor");
        fs::write(file(name), &own).expect("written");
        set_mode(&file(name), 0o644);
        diagnose(folder.path(), &[]).among(check, "others than its owner can reach it");
        set_mode(&file(name), 0o600);
        diagnose(folder.path(), &[]).well();
    }
    let rekeyed = KmsProcess::run(folder.path(), &["rekey"], &[]);
    assert_eq!(rekeyed.code, Some(0), "{rekeyed:?}");
    diagnose(folder.path(), &[]).well();
    fs::copy(file("kek.next"), file("kek")).expect("copied");
    fs::remove_file(file("kek.next")).expect("removed");
    diagnose(folder.path(), &[]).only("kek", "which the store has pinned");
}

#[tokio::test]
async fn a_store_that_no_start_would_take_is_told_as_a_start_tells_it() {
    let folder = stopped().await;
    let database = folder.path().join("kms.db");
    let good = fs::read(&database).expect("read");
    let broken = |change: &dyn Fn(&Path), check: &str, words: &str| {
        change(&database);
        let before = state(folder.path());
        diagnose(folder.path(), &[]).only(check, words);
        assert_eq!(state(folder.path()), before, "{words}");
        fs::write(&database, &good).expect("written");
        set_mode(&database, 0o600);
        diagnose(folder.path(), &[]).well();
    };
    broken(
        &|database| fs::write(database, [0x55; 8_192]).expect("written"),
        "store",
        "is not a database",
    );
    broken(
        &|database| {
            let store = open_store(database.parent().expect("a folder"));
            store.pragma_update(None, "user_version", 99).expect("set");
            store
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .expect("emptied");
        },
        "store",
        "schema is version 99",
    );
    // One byte of a receipt, which says another success.
    let receipt = leaves(folder.path()).pop().expect("a receipt");
    let place = good
        .windows(receipt.len())
        .position(|window| window == receipt.as_bytes())
        .expect("in one page");
    broken(
        &|database| {
            let mut bytes = good.clone();
            let success = receipt.find("\"success\":true").expect("a field");
            bytes[place + success + 10..place + success + 14].copy_from_slice(b"tru3");
            fs::write(database, bytes).expect("written");
        },
        "ledger",
        "receipt",
    );
    broken(
        &|database| fs::remove_file(database).expect("removed"),
        "store",
        "says that it was",
    );
}

#[tokio::test]
async fn a_store_that_was_put_back_is_older_than_its_own_checkpoint() {
    let folder = stopped().await;
    let database = folder.path().join("kms.db");
    let earlier = fs::read(&database).expect("read");
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("AES-256").await;
    kms.stop();
    fs::write(&database, earlier).expect("written");
    diagnose(folder.path(), &[]).only("ledger", "was put back to an earlier state");
    let checkpoint = folder.path().join("ledger.checkpoint");
    fs::write(&checkpoint, "good day").expect("written");
    diagnose(folder.path(), &[]).only("ledger", "holds no checkpoint that this ledger has signed");
    fs::remove_file(&checkpoint).expect("removed");
    diagnose(folder.path(), &[]).well();
}

#[tokio::test]
async fn a_damaged_log_is_told_from_one_that_was_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    for _ in 0..3 {
        kms.generate_id("AES-256").await;
    }
    kms.kill();
    let log = folder.path().join("kms.db-wal");
    let whole = fs::read(&log).expect("a log");
    // The index says what was committed; without it the end may be a torn write.
    fs::remove_file(folder.path().join("kms.db-shm")).expect("removed");
    fs::write(&log, &whole[..whole.len() - 10]).expect("written");
    let found = diagnose(folder.path(), &[]);
    found.says("note", "store", "ends in a write that was cut off");
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::write(&log, damaged).expect("written");
    let before = state(folder.path());
    diagnose(folder.path(), &[]).only("store", "is damaged: its frame 1");
    assert_eq!(state(folder.path()), before);
    fs::write(&log, whole).expect("written");
    diagnose(folder.path(), &[]).well();
}

#[test]
fn a_disk_without_room_and_one_that_cannot_be_written_are_named() {
    let disk = SmallDisk::of_kib(256 * 1_024);
    let settings: [(&str, &str); 0] = [];
    let found = diagnose(disk.folder(), &settings);
    found.well();
    found.says("note", "file_system", "tmpfs");
    found.says("note", "disk_space", "MiB are free");
    disk.fill_but(32 * 1_024);
    diagnose(disk.folder(), &settings).only("disk_space", "MiB are free");
    disk.empty();
    disk.set_read_only(true);
    // Root may write whatever the mode says, and not on such a disk.
    diagnose(disk.folder(), &settings).among("file_system", "cannot be written");
    disk.set_read_only(false);
    diagnose(disk.folder(), &settings).well();
}

#[test]
fn an_address_that_somebody_has_is_named_with_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let me = format!("process {} (", std::process::id());
    for setting in ["KMS__SERVER__LISTEN", "KMS__SERVER__OPS_LISTEN"] {
        let check = match setting {
            "KMS__SERVER__LISTEN" => "server.listen",
            _ => "server.ops_listen",
        };
        diagnose(folder.path(), &[(setting, &address)]).only(check, &me);
        let all = address.replace("127.0.0.1", "0.0.0.0");
        diagnose(folder.path(), &[(setting, &all)]).only(check, &me);
        let foreign = [(setting, "192.0.2.1:8002")];
        diagnose(folder.path(), &foreign).only(check, "192.0.2.1 is no address of this machine");
    }
    // Another service of ours is another program too.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(elsewhere.path(), &[]);
    let settings = ports(&kms);
    let found = diagnose(folder.path(), &pairs(&settings)[..1]);
    found.only("server.listen", "(kms)");
}

#[test]
fn a_service_that_listens_and_does_not_answer_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let settings = ports(&kms);
    kms.signal("STOP");
    let found = diagnose(folder.path(), &pairs(&settings));
    kms.signal("CONT");
    found.among("server.listen", "does not answer");
    found.among("server.ops_listen", "does not answer");
    // And one that listens elsewhere is no fault.
    let other = [("KMS__SERVER__LISTEN", "127.0.0.1:1")];
    let found = diagnose(folder.path(), &other);
    found.well();
    found.says("note", "server.listen", "nobody listens on 127.0.0.1:1");
}

/// Diagnoses where so many files may be open.
fn with_open_files(folder: &Path, limit: u32) -> Findings {
    let script = format!("ulimit -n {limit}; exec \"$0\" diagnose --json");
    let ended = Command::new("/bin/sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_kms")])
        .env_clear()
        .env("KMS__DATA_DIR", folder)
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        .current_dir(folder)
        .output()
        .expect("a shell runs");
    Findings::of(Ended {
        code: ended.status.code(),
        stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
        stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
    })
}

#[test]
fn too_few_open_files_are_told_of_the_service_or_of_one_that_starts_here() {
    let folder = tempfile::tempdir().expect("a folder");
    with_open_files(folder.path(), 500).only("open_files", "a service that is started from here");
    let found = with_open_files(folder.path(), 2_000);
    found.well();
    found.says(
        "note",
        "open_files",
        "2000 files open: connections past that wait",
    );
    // Of a service that runs its own limit counts.
    let kms = KmsProcess::start(folder.path(), &[]);
    let found = with_open_files(folder.path(), 500);
    found.well();
    kms.stop();
}

#[test]
fn a_faulty_configuration_is_all_that_is_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("KMS__SERVER__LISTN", "x"), ("KMS__LOG__LEVEL", "loud")];
    let found = diagnose(folder.path(), &settings);
    assert_eq!(found.ended.code, Some(64), "{:?}", found.ended);
    assert_eq!(found.document["healthy"], json!(false));
    let fails = found.of_verdict("fail");
    assert_eq!(fails.len(), 1, "{fails:#?}");
    assert_eq!(fails[0].0, "configuration");
    assert!(fails[0].1.contains("server.listn") && fails[0].1.contains("log.level"));
    assert_eq!(state(folder.path()).len(), 0);
}

#[test]
fn a_store_elsewhere_needs_its_folder_and_a_low_port_the_right_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = folder.path().join("elsewhere");
    let url = format!("sqlite:{}/kms.db", elsewhere.display());
    let settings = [("KMS__STORE__URL", url.as_str())];
    let ended = KmsProcess::run(folder.path(), &["serve"], &settings);
    assert_ne!(
        ended.code,
        Some(0),
        "a start makes no such folder: {ended:?}"
    );
    let data = tempfile::tempdir().expect("a folder");
    diagnose(data.path(), &settings).only("store_folder", "No such file or directory");
    fs::write(&elsewhere, "").expect("written");
    diagnose(data.path(), &settings).among("store_folder", "is no folder");
    fs::remove_file(&elsewhere).expect("removed");
    fs::create_dir(&elsewhere).expect("made");
    set_mode(&elsewhere, 0o777);
    diagnose(data.path(), &settings).only("store_folder", "everybody can replace");
    set_mode(&elsewhere, 0o700);
    diagnose(data.path(), &settings).well();

    // In a network of its own, where the kernel's usual first port holds and all are free.
    let with_rights = |rights: &[&str]| {
        let ended = Command::new("unshare")
            .args(["--net", "setpriv"])
            .args(rights)
            .args([env!("CARGO_BIN_EXE_kms"), "diagnose", "--json"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KMS__DATA_DIR", data.path())
            .env("KMS__SERVER__LISTEN", "0.0.0.0:443")
            .env("KMS__SERVER__OPS_LISTEN", "0.0.0.0:1024")
            .current_dir(data.path())
            .output()
            .expect("unshare runs");
        Findings::of(Ended {
            code: ended.status.code(),
            stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
            stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
        })
    };
    with_rights(&["--no-new-privs"]).well();
    let found = with_rights(&["--bounding-set=-net_bind_service"]);
    found.only("server.listen", "may not listen on ports as low as 443");
    found.says("ok", "server.ops_listen", "0.0.0.0:1024 is free");
}

#[test]
fn a_service_whose_store_is_in_memory_is_known_by_its_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("KMS__STORE__URL", "memory:")];
    let kms = KmsProcess::start(folder.path(), &settings);
    let ports = ports(&kms);
    let mut settings = settings.to_vec();
    settings.extend(pairs(&ports));
    let found = diagnose(folder.path(), &settings);
    found.well();
    found.says("note", "service", "as it answers");
    found.says("ok", "server.listen", "the service answers on");
    kms.stop();
    diagnose(folder.path(), &settings).says("ok", "service", "does not run");
}
