//! `kms ledger verify`: whatever was done to a ledger is found, where it was done.

mod export;
mod keys;
mod service;

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::ledger_start::{tamper, used_folder};
use crate::support::{Ended, KmsProcess, TestKms, UNTHROTTLED, open_store};

/// Runs `kms ledger verify` on a folder.
fn verify(folder: &Path, arguments: &[&str]) -> Ended {
    let all = [&["ledger", "verify", "--quiet"], arguments].concat();
    KmsProcess::run(folder, &all, &[])
}

#[track_caller]
fn verified(folder: &Path, arguments: &[&str]) -> String {
    let ended = verify(folder, arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    ended.stdout
}

/// Checks that a ledger does not verify from this place on, in these words.
#[track_caller]
fn not_verified(folder: &Path, arguments: &[&str], first_bad: u64, words: &str) {
    let ended = verify(folder, arguments);
    let output = ended.output();
    assert_eq!(ended.code, Some(1), "{output}");
    let place = format!("first bad index: {first_bad}\n");
    assert!(ended.stdout.contains(&place), "{place} in {output}");
    assert!(
        ended.stdout.starts_with("not verified: ") && ended.stdout.contains(words),
        "{words} in {output}"
    );
}

/// The verifier key of the ledger in a folder.
fn public_key(folder: &Path) -> String {
    let ended = KmsProcess::run(folder, &["ledger", "public-key"], &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    ended.stdout.trim_end().to_owned()
}

/// A copy of the ledger for an auditor: the database alone.
fn copied(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    fs::copy(folder.join("kms.db"), copy.path().join("kms.db")).expect("copied");
    copy
}

/// The newest checkpoint in a folder, in a file of its own.
fn kept_checkpoint(folder: &Path, file: &Path) -> String {
    let note: String = open_store(folder)
        .query_row("SELECT note FROM ledger_head", [], |row| row.get(0))
        .expect("a checkpoint");
    fs::write(file, note).expect("written");
    file.to_str().expect("a path in UTF-8").to_owned()
}

/// Every file in a folder with its content.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).expect("readable")))
        .collect();
    files.sort();
    files
}

/// Lays receipts `from..` one place further down or up.
fn shifted(from: u64, by: i64) -> String {
    // By way of negative places, since each place is taken once.
    format!(
        "UPDATE receipts SET seq = -seq - 1 WHERE seq >= {from};
         UPDATE receipts SET seq = -seq - 1 + {by} WHERE seq < 0;"
    )
}

/// Changes the outcome in a leaf, which stays canonical.
fn changed(place: u64) -> String {
    format!(
        "UPDATE receipts SET leaf = CAST(replace(CAST(leaf AS TEXT), '\"success\":true', \
         '\"success\":false') AS BLOB) WHERE seq = {place};"
    )
}

/// Makes the tile over this place fit the receipts below it.
fn refit_tile(folder: &Path, index: u64) {
    use kms::domain::ledger::TreeHash;
    let store = open_store(folder);
    let hashes: Vec<u8> = leaves_between(&store, index * 256, index * 256 + 256)
        .iter()
        .flat_map(|leaf| *TreeHash::of_leaf(leaf).as_bytes())
        .collect();
    store
        .execute(
            "UPDATE tiles SET hashes = ?1 WHERE level = 0 AND tile_index = ?2",
            (hashes, index as i64),
        )
        .expect("changed");
}

fn leaves_between(store: &Connection, first: u64, end: u64) -> Vec<Vec<u8>> {
    let mut statement = store
        .prepare("SELECT leaf FROM receipts WHERE seq >= ?1 AND seq < ?2 ORDER BY seq")
        .expect("valid SQL");
    let rows = statement
        .query_map((first as i64, end as i64), |row| row.get(0))
        .expect("rows");
    rows.map(|leaf| leaf.expect("a row")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_verifies_whether_its_service_runs_stopped_or_was_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    for number in 1..=3 {
        kms.generate_id("Ed25519").await;
        let output = verified(folder.path(), &[]);
        assert!(
            output.starts_with(&format!("verified: {number} receipts\nsize: {number}\n")),
            "{output}"
        );
    }
    let key = public_key(folder.path());
    let with_key = verified(folder.path(), &["--public-key", &key]);
    assert!(with_key.contains(&format!("\nkey: {key}\n")), "{with_key}");
    kms.kill();
    let killed = contents(folder.path());
    assert_eq!(verified(folder.path(), &["--public-key", &key]), with_key);
    assert!(contents(folder.path()) == killed);
    KmsProcess::start(folder.path(), &[]).stop();
    let stopped = contents(folder.path());
    verified(folder.path(), &["--public-key", &key]);
    assert!(contents(folder.path()) == stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_receipts_and_tiles_is_found_where_it_was_done() {
    let folder = used_folder(300).await;
    let foreign = used_folder(3).await;
    let foreign = leaves_between(&open_store(foreign.path()), 1, 2).remove(0);
    let foreign: String = foreign.iter().map(|byte| format!("{byte:02x}")).collect();
    let copy_row = |from: u64, to: u64| {
        format!(
            "UPDATE receipts SET leaf = (SELECT leaf FROM receipts WHERE seq = {from}) \
             WHERE seq = {to};"
        )
    };
    let delete = |place: u64| format!("DELETE FROM receipts WHERE seq = {place};");
    let insert = |place: u64, leaf: &str| {
        format!(
            "INSERT INTO receipts SELECT {place}, randomblob(16), scope, ts, operation, key_id, \
             {leaf} FROM receipts WHERE seq = 0;"
        )
    };
    let cases = [
        (changed(7), 7, "receipt 7 does not bear a good signature"),
        (changed(299), 299, "receipt 299 does not bear a good"),
        (
            "UPDATE receipts SET leaf = CAST(leaf || x'0A' AS BLOB) WHERE seq = 8".to_owned(),
            8,
            "receipt 8 is not a receipt in its canonical form",
        ),
        (copy_row(20, 21), 21, "receipt 21 is not the one"),
        (
            "UPDATE receipts SET leaf = (SELECT leaf FROM receipts AS other WHERE other.seq = \
             CASE receipts.seq WHEN 30 THEN 40 ELSE 30 END) WHERE seq IN (30, 40)"
                .to_owned(),
            30,
            "receipt 30 is not the one",
        ),
        (
            "DELETE FROM receipts WHERE seq >= 297".to_owned(),
            297,
            "receipt 297 is missing",
        ),
        (delete(50), 50, "receipt 50 is missing"),
        (
            format!("{}{}", delete(60), shifted(61, -1)),
            60,
            "receipt 60 is not the one",
        ),
        (
            format!("{}{}", shifted(70, 1), insert(70, &format!("x'{foreign}'"))),
            70,
            "receipt 70 is signed by a key that was not in force there",
        ),
        (
            format!("{}{}", shifted(70, 1), insert(70, "leaf")),
            70,
            "receipt 70 is not the one",
        ),
        (
            insert(300, "leaf"),
            300,
            "the newest checkpoint is of 300 receipts, and there are 301",
        ),
        (
            "UPDATE tiles SET hashes = CAST(zeroblob(3200) || substr(hashes, 3201) AS BLOB)"
                .to_owned(),
            0,
            "receipt 0 is not the one",
        ),
        (
            "DELETE FROM tiles".to_owned(),
            0,
            "tile 0 of level 0 is missing",
        ),
        (
            "INSERT INTO tiles SELECT 1, 0, hashes FROM tiles".to_owned(),
            0,
            "tile 0 of level 1 does not fit",
        ),
    ];
    for (statements, first_bad, words) in cases {
        let copy = copied(folder.path());
        tamper(copy.path(), &statements);
        not_verified(copy.path(), &[], first_bad, words);
    }
    verified(copied(folder.path()).path(), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tile_that_was_made_to_fit_hides_nothing() {
    let folder = used_folder(300).await;
    let copy = copied(folder.path());
    tamper(copy.path(), &changed(7));
    refit_tile(copy.path(), 0);
    not_verified(copy.path(), &[], 7, "receipt 7 does not bear");
    // A genuine receipt in the place of another: the checkpoint has the last word.
    let copy = copied(folder.path());
    tamper(
        copy.path(),
        "UPDATE receipts SET leaf = (SELECT leaf FROM receipts WHERE seq = 20) WHERE seq = 21",
    );
    refit_tile(copy.path(), 0);
    let ended = verify(copy.path(), &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.output());
    assert!(ended.stdout.contains("receipts are not those that"));
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_were_dropped_or_altered_are_found() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    kms.leave_receipts(10).await;
    // Each start keeps one with its first receipt.
    let kms = TestKms::start_in(kms.stop().await, &UNTHROTTLED).await;
    kms.leave_receipts(10).await;
    let folder = kms.stop().await;
    let numbers: u64 = open_store(folder.path())
        .query_row("SELECT max(number) FROM checkpoints", [], |row| {
            row.get::<_, i64>(0).map(i64::unsigned_abs)
        })
        .expect("checkpoints");
    assert!(numbers >= 3, "{numbers}");
    let output = verified(folder.path(), &[]);
    let line = format!("\ncheckpoints: the newest and {numbers} on the way\n");
    assert!(output.contains(&line), "{output}");
    for (statement, words) in [
        (
            "DELETE FROM checkpoints WHERE number = 2",
            "kept checkpoint number 2 is missing",
        ),
        (
            "UPDATE checkpoints SET note = replace(note, 'kms' || char(10) || '1', \
             'kms' || char(10) || '2') WHERE number = 2",
            "is not signed by the ledger's key",
        ),
        (
            "UPDATE checkpoints SET size = size + 1 WHERE number = 2",
            "kept checkpoint number 2 is not in its place",
        ),
        ("DELETE FROM ledger_head", "there is no checkpoint"),
        (
            "UPDATE ledger_head SET note = (SELECT note FROM checkpoints WHERE number = 2)",
            "the newest checkpoint is of 1 receipts, and there are 20",
        ),
    ] {
        let copy = copied(folder.path());
        tamper(copy.path(), statement);
        let ended = verify(copy.path(), &[]);
        assert_eq!(ended.code, Some(1), "{}", ended.output());
        assert!(ended.stdout.contains(words), "{words}: {}", ended.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_put_back_is_found_by_a_checkpoint_that_was_kept() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    kms.leave_receipts(270).await;
    let folder = kms.stop().await;
    let older = copied(folder.path());
    let file = older.path().join("since");
    let old_note = kept_checkpoint(older.path(), &file);
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    kms.leave_receipts(30).await;
    let folder = kms.stop().await;
    let newest = kept_checkpoint(folder.path(), &folder.path().join("since"));
    let key = public_key(folder.path());
    let trusted = ["--public-key", &key];

    // The newer one grew out of the older, and not the other way around.
    let output = verified(folder.path(), &["--since", &old_note]);
    assert!(output.contains("grown out of the given checkpoint: 270\n"));
    let since = [&trusted[..], &["--since", &newest]].concat();
    verified(folder.path(), &since);
    let words = "the ledger has 270 receipts, and had 300";
    verified(older.path(), &trusted);
    not_verified(older.path(), &since, 270, words);

    // Cut back to what an older checkpoint of its own says.
    let cut = copied(folder.path());
    let old_note = fs::read_to_string(&old_note).expect("a note");
    tamper(
        cut.path(),
        &format!(
            "DELETE FROM receipts WHERE seq >= 270; UPDATE ledger_head SET note = '{old_note}';
             DELETE FROM checkpoints WHERE size > 270;"
        ),
    );
    verified(cut.path(), &trusted);
    not_verified(cut.path(), &since, 270, words);
    // A folder of somebody else's.
    let other = used_folder(300).await;
    verified(other.path(), &[]);
    let since = ["--since", &newest];
    not_verified(other.path(), &since, 0, "not signed by the keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_in_an_archive_are_read_there_or_held_to_the_tree() {
    let folder = used_folder(300).await;
    let copy = copied(folder.path());
    let archive = copy.path().join("archive");
    fs::create_dir(&archive).expect("a folder");
    let file = archive.join("receipts-0.db");
    tamper(
        copy.path(),
        &format!(
            "ATTACH '{}' AS archive;
             CREATE TABLE archive.receipts AS SELECT * FROM receipts WHERE seq < 256;
             INSERT INTO archives VALUES (0, 256, 'receipts-0.db');
             DELETE FROM main.receipts WHERE seq < 256;",
            file.display()
        ),
    );
    let output = verified(copy.path(), &[]);
    assert!(output.starts_with("verified: 300 receipts\nsize: 300\n"));
    let store = Connection::open(&file).expect("an archive");
    store.execute_batch(&changed(11)).expect("changed");
    drop(store);
    not_verified(copy.path(), &[], 11, "receipt 11 does not bear");
    fs::remove_file(&file).expect("removed");
    let output = verified(copy.path(), &[]);
    assert!(
        output.starts_with(
            "verified: 44 receipts\nverified by the tree alone: 256 receipts that are not there \
             to be read: receipts-0.db\n"
        ),
        "{output}"
    );
}

#[test]
fn what_cannot_be_read_or_is_asked_wrongly_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = verify(folder.path(), &[]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.stderr.contains("kms.db: No such file"),
        "{}",
        missing.stderr
    );
    let elsewhere = verify(folder.path(), &["--data-dir", "/nowhere"]);
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.stderr.contains("/nowhere/kms.db"));
    let since = verify(folder.path(), &["--since", "nothing"]);
    assert_eq!(since.code, Some(1));
    assert!(since.stderr.contains("nothing: No such file"));
    for arguments in [
        &["--public-key", "kms"][..],
        &[
            "--public-key",
            "other+f2ae8ab1+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
        ],
        &["--url", "http://127.0.0.1:1", "--data-dir", "."],
        &["--cert", "x"],
        &["--url", "http://127.0.0.1:1", "--cert", "x"],
        &["--cacert", "x"],
        &["--nothing"],
    ] {
        let ended = verify(folder.path(), arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.output());
    }
    let faulty = [("KMS__SERVER__LISTEN", "nowhere")];
    for command in ["verify", "export", "public-key"] {
        let ended = KmsProcess::run(folder.path(), &["ledger", command], &faulty);
        assert_eq!(ended.code, Some(64), "{}", ended.output());
    }
    let memory = [("KMS__STORE__URL", "memory:")];
    let ended = KmsProcess::run(folder.path(), &["ledger", "verify"], &memory);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("store.url is not a file"));
    assert!(contents(folder.path()).is_empty(), "nothing is left behind");
}
