//! What `kms rekey` and a running service do not take, and say so.

use std::fs;
use std::path::Path;

use super::book::Book;
use super::{check, lay, pins, rekey};
use crate::backup::{names, path, refused, succeeded};
use crate::support::{KmsProcess, UNTHROTTLED, base64, eventually, open_store, text};

/// What is in a folder, but for what SQLite lays beside a store that is read.
fn files_in(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| !name.starts_with("kms.db-"));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_laid_down_where_something_speaks_against_it() {
    let empty = tempfile::tempdir().expect("a folder");
    refused(&rekey(empty.path(), &[]), 1, &["kms.db"]);
    assert_eq!(names(empty.path()), Vec::<String>::new());

    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    Book::fill(&kms, &[("Ed25519", 2)]).await;
    kms.stop();
    let stays = files_in(folder.path());

    // The same key again, in another form; no key at all; a file for everybody to change.
    let same = file("same");
    lay(
        &same,
        base64(fs::read(file("kek")).expect("a key")).as_bytes(),
    );
    let ended = rekey(folder.path(), &["--key-file", path(&same)]);
    refused(&ended, 1, &["in force already", path(&same)]);
    lay(&same, b"short");
    let ended = rekey(folder.path(), &["--key-file", path(&same)]);
    refused(&ended, 1, &["neither 32 bytes", path(&same)]);
    let ended = rekey(folder.path(), &["--key-file", path(&file("none"))]);
    refused(&ended, 1, &["no such file"]);
    fs::remove_file(&same).expect("removed");
    assert_eq!(files_in(folder.path()), stays);

    // Another store's folder, and a key that is missing.
    let kek = fs::read(file("kek")).expect("a key");
    lay(&file("kek"), &[9; 32]);
    let ended = rekey(folder.path(), &[]);
    refused(
        &ended,
        1,
        &["is not the key-encryption key", path(&file("kek"))],
    );
    fs::remove_file(file("kek")).expect("removed");
    refused(&rekey(folder.path(), &[]), 1, &["is missing"]);
    lay(&file("kek"), &kek);
    assert_eq!(files_in(folder.path()), stays);

    // One that waits already stays as it is.
    let made = succeeded(rekey(folder.path(), &[]));
    assert!(made.stdout.contains("no service runs"), "{}", made.stdout);
    let next = fs::read(file("kek.next")).expect("a key");
    assert_eq!(next.len(), 32);
    let ended = rekey(folder.path(), &[]);
    refused(&ended, 1, &["kek.next waits to take over already"]);
    assert_eq!(fs::read(file("kek.next")).expect("a key"), next);
    let said = succeeded(rekey(folder.path(), &["--status"]));
    assert!(
        said.stdout.contains("waits to take over"),
        "{}",
        said.stdout
    );
    lay(&file("kek.next"), &kek);
    refused(&rekey(folder.path(), &[]), 1, &["is in force already"]);
    fs::remove_file(file("kek.next")).expect("removed");

    let given = file("given");
    lay(&given, format!("{}\n", base64([5; 32])).as_bytes());
    let waiting = rekey(folder.path(), &["--key-file", path(&given), "--wait"]);
    refused(&waiting, 1, &["waiting for the service", "no service runs"]);
    assert_eq!(fs::read(file("kek.next")).expect("a key"), [5; 32]);

    let memory = [("KMS__STORE__URL", "memory:")];
    let ended = KmsProcess::run(folder.path(), &["rekey"], &memory);
    refused(&ended, 1, &["store.url"]);
    let faulty = [("KMS__SERVER__LISTEN", "nowhere")];
    let ended = KmsProcess::run(folder.path(), &["rekey"], &faulty);
    refused(&ended, 64, &["server.listen"]);
    let both = rekey(folder.path(), &["--status", "--key-file", path(&given)]);
    refused(&both, 2, &["--key-file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_refuses_a_next_key_that_is_none_and_takes_a_good_one_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let mut kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(&kms, &[("Ed25519", 5), ("AES-256", 5)]).await;
    let [old, _] = pins(&open_store(folder.path()));
    let kek = fs::read(file("kek")).expect("a key");
    for (content, words) in [
        (&b"foreign"[..], "cannot be used"),
        (&kek[..], "in force already: take it away"),
    ] {
        lay(&file("kek.next"), content);
        let said = eventually("a warning", || async {
            let kek = check(&kms, "kek").await;
            let said = text(&kek["detail"]).to_owned();
            (kek["status"] == "warn" && said.contains(words)).then_some(said)
        })
        .await;
        assert!(said.contains("kek.next"), "{said}");
        kms.wait_for_line(&["not reloaded", words]);
        assert_eq!(pins(&open_store(folder.path())), [old.clone(), old.clone()]);
        book.check(&kms).await;
    }
    fs::remove_file(file("kek.next")).expect("removed");
    eventually("all is well", || async {
        (check(&kms, "kek").await["status"] == "pass").then_some(())
    })
    .await;
    lay(&file("kek.next"), &[7; 32]);
    eventually("the change", || async {
        let [in_force, _] = pins(&open_store(folder.path()));
        (in_force != old).then_some(())
    })
    .await;
    book.check(&kms).await;
    kms.stop();
}
