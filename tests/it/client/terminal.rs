//! What is different where the output is a terminal.

use std::time::Duration;

use serde_json::json;

use crate::support::base64;
use crate::support::desk::Desk;
use crate::support::fake_service::{FakeService, Reply};

#[test]
fn a_plaintext_that_could_steer_a_terminal_is_not_shown_on_one() {
    for (plaintext, is_shown) in [
        (&b"two\nlines\t\xc3\xa9\n"[..], true),
        (b"\x1b[2J", false),
        (b"\xc2\x9b", false),
        (b"\xff", false),
        (b"a\r", false),
    ] {
        let answer = json!({ "plaintext": base64(plaintext) }).to_string();
        let service = FakeService::always(200, "", answer);
        let desk = Desk::new(service.address());
        let sealed = json!({
            "key_id": crate::support::UNKNOWN, "algorithm": "AES-256-GCM", "iv": "", "ciphertext": "",
        });
        desk.put("sealed", sealed.to_string());
        let shown = desk.run_on_terminal("decrypt --in sealed");
        assert_eq!(shown.code, Some(if is_shown { 0 } else { 1 }), "{shown:?}");
        assert_eq!(
            shown.stdout.contains("it could steer"),
            !is_shown,
            "{shown:?}"
        );
        // Into a pipe it goes as it is.
        let piped = desk.run(&["decrypt", "--in", "sealed"]);
        assert_eq!(piped.bytes, plaintext);
    }
}

#[test]
fn the_progress_of_a_long_list_is_told_to_a_terminal_and_to_nobody_else() {
    let slow = || {
        FakeService::new(|_, before| {
            std::thread::sleep(Duration::from_millis(600));
            let cursor = (before < 3).then(|| before.to_string());
            let keys = [json!({ "key_id": "k" })];
            Reply::Answer(
                200,
                "",
                json!({ "keys": keys, "next_cursor": cursor }).to_string(),
            )
        })
    };
    let service = slow();
    let desk = Desk::new(service.address());
    let told = desk.run_on_terminal("key list --json > keys");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("\r2 keys"), "{told:?}");
    assert!(
        !told.stdout.contains("\r1 keys"),
        "before a second has gone: {told:?}"
    );
    assert!(told.stdout.ends_with("\r\u{1b}[K"), "{told:?}");
    let keys = std::fs::read_to_string(desk.path("keys")).expect("read");
    assert_eq!(keys.lines().count(), 4);

    let service = slow();
    let piped = Desk::new(service.address()).run(&["key", "list", "--json"]);
    assert_eq!(piped.ok().lines().count(), 4);
}

#[test]
fn a_backup_is_not_shown_on_a_terminal() {
    let desk = Desk::bare();
    let folder = desk.put("data/kms.db", "");
    let folder = folder.parent().expect("a folder").display().to_string();
    let told = desk
        .with("KMS__DATA_DIR", folder)
        .run_on_terminal("backup --out -");
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stdout.contains("is a terminal"), "{told:?}");
}
