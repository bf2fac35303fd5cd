//! Old receipts are moved to files of their own, beside the service at work, and
//! nothing is lost on the way, whenever the one who moves them ends.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Ended, KmsProcess, MixedLoad, SCOPE_QUERY, TestKms, UNKNOWN, UNTHROTTLED, all_at_once, base64,
    in_scope, text,
};

/// Everything but the newest is older than this.
const ALL: &str = "2100-01-01";

fn archive(folder: &Path, more: &[&str]) -> Ended {
    KmsProcess::run(folder, &[&["ledger", "archive"], more].concat(), &[])
}

#[track_caller]
fn archived(folder: &Path) -> Ended {
    let ended = archive(folder, &["--before", ALL]);
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    ended
}

/// The store beside the service that writes it.
fn look_into(database: &Path) -> Connection {
    Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a store")
}

fn number<T: TryFrom<i64>>(connection: &Connection, sql: &str) -> T {
    let number = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let number = number.unwrap_or_else(|error| panic!("{sql}: {error}"));
    T::try_from(number).unwrap_or_else(|_| panic!("{sql}: {number}"))
}

fn places(database: &Connection) -> Vec<u64> {
    let mut query = database
        .prepare("SELECT seq FROM receipts ORDER BY seq")
        .expect("a table of receipts");
    let rows = query.query_map([], |row| row.get::<_, i64>(0));
    rows.expect("rows")
        .map(|place| u64::try_from(place.expect("a number")).expect("from 0"))
        .collect()
}

/// An archive that a store lists, and what is in its file.
struct Listed {
    first: u64,
    end: u64,
    places: Vec<u64>,
}

/// What is in the store, and what is in each archive that it lists.
fn where_they_are(folder: &Path) -> (Vec<u64>, Vec<Listed>) {
    let store = look_into(&folder.join("kms.db"));
    store.execute_batch("BEGIN").expect("one state");
    let kept = places(&store);
    let mut query = store
        .prepare("SELECT first_seq, end_seq, file FROM archives ORDER BY first_seq")
        .expect("a table of archives");
    let archives = query.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, String>(2)?,
        ))
    });
    let archives = archives.expect("rows").map(|archive| {
        let (first, end, file) = archive.expect("a row");
        let file = look_into(&folder.join("archive").join(file));
        Listed {
            first: first as u64,
            end: end as u64,
            places: places(&file),
        }
    });
    (kept, archives.collect())
}

/// Checks that every receipt is somewhere; how many there are.
#[track_caller]
fn nothing_is_lost(folder: &Path) -> u64 {
    let (kept, archives) = where_they_are(folder);
    let mut all: BTreeSet<u64> = kept.into_iter().collect();
    all.extend(archives.into_iter().flat_map(|archive| archive.places));
    let size = all.len() as u64;
    assert!(all.into_iter().eq(0..size), "a gap");
    size
}

/// Checks that every receipt is in one place; how many are in archives.
#[track_caller]
fn each_is_in_one_place(folder: &Path) -> u64 {
    let (kept, archives) = where_they_are(folder);
    let mut next = 0;
    for archive in archives {
        assert_eq!(archive.first, next);
        assert!(archive.places.into_iter().eq(archive.first..archive.end));
        next = archive.end;
    }
    assert!(kept.iter().copied().eq(next..next + kept.len() as u64));
    next
}

/// A number below `below` that nobody foresees.
fn random(below: u64) -> u64 {
    u64::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(below)).expect("small")
}

/// Leaves so many receipts in the usual scope; their ids.
async fn leave_receipts(kms: &KmsProcess, number: usize) -> Vec<String> {
    let often = json!({ "access_policy": { "max_usage_per_day": 1_000_000 } });
    let made = kms.generate("Ed25519", often).await;
    let body = in_scope(json!({ "key_id": made["key_id"], "data": base64("data") }));
    let mut ids = vec![text(&made["receipt_id"]).to_owned()];
    while ids.len() < number {
        let at_once = (number - ids.len()).min(50);
        let request = || kms.request(Method::POST, "/kms/v1/sign").json(&body);
        let requests = std::iter::repeat_with(request).take(at_once).collect();
        for answer in all_at_once(requests).await {
            ids.push(text(&answer.ok()["receipt_id"]).to_owned());
        }
    }
    ids
}

/// The places of all receipts of the usual scope, page by page.
async fn listed(kms: &KmsProcess) -> Vec<u64> {
    let mut places = Vec::new();
    let mut times: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/kms/v1/receipts?{SCOPE_QUERY}&limit=100{cursor}");
        let page = kms.get(&path).await;
        for entry in page.ok()["receipts"].as_array().expect("a list") {
            places.push(entry["leaf_index"].as_u64().expect("a number"));
            times.push(text(&entry["receipt"]["ts"]).to_owned());
        }
        match page.body["next_cursor"].as_str() {
            None => break,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
    assert!(times.is_sorted(), "by time");
    places
}

/// Runs the archiver and kills it at a moment of this kind, if it comes to it.
fn kill_at(kind: usize, folder: &Path) -> bool {
    let archives = folder.join("archive");
    let store = look_into(&folder.join("kms.db"));
    let registered = "SELECT count(*) FROM archives";
    let before: u64 = number(&store, registered);
    let lowest = "SELECT min(seq) FROM receipts";
    let at_first: u64 = number(&store, lowest);
    let size: u64 = number(&store, "SELECT max(seq) FROM receipts");
    let removed = at_first + random(size - at_first + 1);
    let length = random(500_000);
    let finished = || {
        let names = fs::read_dir(&archives).ok()?;
        let names = names.filter_map(Result::ok).map(|entry| entry.file_name());
        Some(
            names
                .filter(|name| name.to_string_lossy().ends_with(".db"))
                .count() as u64,
        )
    };
    KmsProcess::run_and_kill(
        folder,
        &["ledger", "archive", "--before", ALL],
        || match kind {
            0 => archives.join(".unfinished.new").exists(),
            1 => {
                fs::metadata(archives.join(".unfinished.new")).is_ok_and(|file| file.len() > length)
            }
            2 => finished().is_some_and(|finished| finished > before),
            3 => number::<u64>(&store, registered) > before,
            _ => number::<u64>(&store, lowest) > removed,
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_is_killed_at_any_moment_loses_nothing_and_disturbs_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let load = MixedLoad::new(&kms).await;
    let ids = leave_receipts(&kms, 1_300).await;
    let killing = {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let mut killed = 0;
            for kind in [0, 1, 2, 3, 4, 2, 3, 4] {
                killed += usize::from(kill_at(kind, &folder));
                nothing_is_lost(&folder);
            }
            archived(&folder);
            killed
        })
    };
    load.until(&kms, "the end of the archiver", || async {
        killing.is_finished()
    })
    .await;
    let killed = killing.await.expect("no panic");
    assert!(killed >= 3, "killed {killed} times only");
    for what in ["sign", "verify", "encrypt", "generate", "receipt", "list"] {
        assert_eq!(load.refused(what), 0, "{what}");
    }
    assert!(
        load.slowest() < Duration::from_secs(2),
        "{:?}",
        load.slowest()
    );

    archived(folder.path());
    let moved = each_is_in_one_place(folder.path());
    assert!(moved >= 1_280, "{moved}");
    let size = nothing_is_lost(folder.path());
    load.check_with(&kms).await;
    for id in ids.iter().step_by(50).chain(ids.last()) {
        let found = kms.get_scoped(&format!("/kms/v1/receipts/{id}")).await;
        assert_eq!(found.ok()["receipt"]["receipt_id"], **id);
    }
    let places = listed(&kms).await;
    assert_eq!(places.len() as u64, size);
    assert_eq!(
        places.into_iter().collect::<BTreeSet<_>>().len() as u64,
        size
    );
    for _ in 0..2 {
        let verified = KmsProcess::run(folder.path(), &["ledger", "verify"], &[]);
        assert_eq!(verified.code, Some(0), "{}", verified.output());
        let words = format!("verified: {size} receipts");
        assert!(verified.stdout.contains(&words), "{}", verified.stdout);
        if let Ok(metadata) = fs::metadata(folder.path().join("archive").join(".unfinished.new")) {
            panic!("{} bytes are left of a killed archiver", metadata.len());
        }
    }
    kms.stop();
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    load.check_with(&kms).await;
    kms.stop();
}

/// The folder of a service that left so many receipts and stopped, and their ids.
async fn used_folder(receipts: usize) -> (TempDir, Vec<Value>) {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let ids = kms.leave_receipts(receipts).await;
    (kms.stop().await, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_a_file_for_its_owner_and_what_was_done_is_said() {
    let (folder, _) = used_folder(600).await;
    let path = folder.path().join("archive").join("receipts-0-512.db");
    let ended = archived(folder.path());
    for words in [
        &format!("{}: 512 receipts, from 0 to before 512", path.display()),
        "512 receipts fewer",
    ] {
        assert!(ended.stdout.contains(words), "{words} in {}", ended.stdout);
    }
    let mode = |path: &Path| {
        let mode = fs::metadata(path).expect("there").permissions().mode();
        mode & 0o777
    };
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    assert_eq!(each_is_in_one_place(folder.path()), 512);

    let again = archived(folder.path());
    assert!(again.stdout.contains("nothing to move"), "{}", again.stdout);
    let (other, _) = used_folder(300).await;
    let by_name = [
        "--before",
        ALL,
        "--data-dir",
        other.path().to_str().expect("text"),
    ];
    let ended = archive(folder.path(), &by_name);
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    assert_eq!(each_is_in_one_place(other.path()), 256);

    let (third, _) = used_folder(300).await;
    let nothing = archive(third.path(), &["--before", "2020-01-01T00:00:00Z"]);
    assert_eq!(nothing.code, Some(0), "{}", nothing.output());
    assert_eq!(each_is_in_one_place(third.path()), 0);
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, settings, code, words) in [
        (&[][..], ("", ""), 2, "--before"),
        (&["--before", "yesterday"], ("", ""), 2, "RFC 3339"),
        (
            &["--before", ALL],
            ("KMS__SERVER__LISTEN", "x"),
            64,
            "server.listen",
        ),
        (
            &["--before", ALL],
            ("KMS__STORE__URL", "memory:"),
            1,
            "store.url",
        ),
        (&["--before", ALL], ("", ""), 1, "kms.db"),
    ] {
        let settings: Vec<_> = [settings]
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .collect();
        let arguments = [&["ledger", "archive"], arguments].concat();
        let ended = KmsProcess::run(folder.path(), &arguments, &settings);
        assert_eq!(ended.code, Some(code), "{}", ended.output());
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// The files of the archives.
fn archive_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("archive")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "db");
    paths.filter(is_archive).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_an_archive_that_is_away_are_unknown_until_it_is_back() {
    let (folder, ids) = used_folder(600).await;
    archived(folder.path());
    let file = archive_files(folder.path()).pop().expect("an archive");
    let away = folder.path().join("away.db");
    fs::rename(&file, &away).expect("moved");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let ask = async |id: &str| kms.get_scoped(&format!("/kms/v1/receipts/{id}")).await;
    let unknown = ask(UNKNOWN).await;
    let missing = ask(text(&ids[3])).await;
    assert_eq!(missing.status, 404);
    assert_eq!(
        (
            missing.status,
            &missing.body["error"]["code"],
            &missing.body["error"]["message"]
        ),
        (
            unknown.status,
            &unknown.body["error"]["code"],
            &unknown.body["error"]["message"]
        )
    );
    assert_eq!(listed(&kms).await.len(), 88);
    ask(text(&ids[599])).await.ok();
    let health = kms.get_operations("/kms/v1/health").await;
    assert_eq!(health.status, 200, "{}", health.text);
    let output = kms.stop();
    let said = output
        .matches("an archive of receipts cannot be read")
        .count();
    assert_eq!(said, 1, "{output}");
    fs::rename(&away, &file).expect("moved");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let found = kms
        .get_scoped(&format!("/kms/v1/receipts/{}", text(&ids[3])))
        .await;
    assert_eq!(found.ok()["receipt"]["receipt_id"], ids[3]);
    assert_eq!(listed(&kms).await.len(), 600);
    kms.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_backed_up_beside_the_backup() {
    let (folder, ids) = used_folder(600).await;
    archived(folder.path());
    let out = folder.path().join("backup.db");
    let arguments = ["backup", "--out", out.to_str().expect("text")];
    let taken = KmsProcess::run(folder.path(), &arguments, &[]);
    assert_eq!(taken.code, Some(0), "{}", taken.output());
    let file = archive_files(folder.path()).pop().expect("an archive");
    let line = format!("  {}\n", file.display());
    assert!(taken.stdout.contains(&line), "{}", taken.stdout);
    assert!(
        taken.stdout.contains("ledger: 600 receipts"),
        "{}",
        taken.stdout
    );

    let target = tempfile::tempdir().expect("a folder");
    for name in ["kek", "ledger.key"] {
        fs::copy(folder.path().join(name), target.path().join(name)).expect("copied");
    }
    let arguments = ["restore", "--from", out.to_str().expect("text")];
    let restored = KmsProcess::run(target.path(), &arguments, &[]);
    assert_eq!(restored.code, Some(0), "{}", restored.output());
    let place = target.path().join("archive").join("receipts-0-512.db");
    let words = format!("{} is not there", place.display());
    assert!(restored.stderr.contains(&words), "{}", restored.stderr);
    fs::create_dir(target.path().join("archive")).expect("made");
    fs::copy(&file, &place).expect("copied");
    let kms = KmsProcess::start(target.path(), &UNTHROTTLED);
    for id in [&ids[0], &ids[511], &ids[599]] {
        let found = kms
            .get_scoped(&format!("/kms/v1/receipts/{}", text(id)))
            .await;
        assert_eq!(found.ok()["receipt"]["receipt_id"], *id);
    }
    kms.stop();

    // An archive that is there is gone through with the rest.
    Connection::open(&place)
        .expect("an archive")
        .execute_batch("UPDATE receipts SET leaf = x'00' WHERE seq = 100")
        .expect("written");
    fs::remove_file(target.path().join("kms.db")).expect("removed");
    for ending in ["kms.db-wal", "kms.db-shm"] {
        let _ = fs::remove_file(target.path().join(ending));
    }
    let refused = KmsProcess::run(target.path(), &arguments, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.output());
    assert!(
        refused.stderr.contains("receipt 100 "),
        "{}",
        refused.stderr
    );
}
