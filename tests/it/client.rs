//! The commands that work with a running service, with the real binary against the real
//! service in development.

mod answers;
mod completions;
mod production;
mod settings;
mod terminal;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::desk::{Desk, argument};
use crate::support::{KmsProcess, UNKNOWN, UNTHROTTLED, base64, text, unbase64};

/// A service, and a desk in front of it.
fn service() -> (tempfile::TempDir, KmsProcess, Desk) {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let desk = Desk::new(format_args!("http://{}", kms.api()));
    (folder, kms, desk)
}

/// The id of a new key.
fn generate(desk: &Desk, key_type: &str, usage: &str, alias: &str) -> String {
    let made = desk.run(&[
        "key", "generate", "--type", key_type, "--usage", usage, "--alias", alias, "--json",
    ]);
    text(&made.json()["key_id"]).to_owned()
}

/// The value of a field that is printed for people.
fn field<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    line.unwrap_or_else(|| panic!("{name} in {printed}")).trim()
}

#[test]
fn a_key_is_led_through_its_life() {
    let (_folder, _kms, desk) = service();
    let made = desk.run(&[
        "key",
        "generate",
        "--type",
        "Ed25519",
        "--usage",
        "sign,verify",
        "--alias",
        "receipts",
        "--rotation-period",
        "30d",
        "--allowed-modules",
        "M21,EPC-2",
        "--max-usage-per-day",
        "7",
    ]);
    let key_id = field(made.ok(), "key_id").to_owned();
    assert!(
        made.stdout.contains("-----BEGIN PUBLIC KEY-----\n"),
        "{made:?}"
    );

    let shown = desk.run(&["key", "show", "alias/receipts"]);
    assert_eq!(field(shown.ok(), "key_id"), key_id);
    assert_eq!(field(&shown.stdout, "key_usage"), "sign, verify");
    assert_eq!(field(&shown.stdout, "rotation_period"), "P30D");
    assert_eq!(
        field(&shown.stdout, "access_policy.allowed_modules"),
        "M21, M22"
    );
    assert_eq!(field(&shown.stdout, "access_policy.max_usage_per_day"), "7");
    assert_eq!(
        field(&shown.stdout, "access_policy.requires_approval"),
        "no"
    );
    assert!(
        field(&shown.stdout, "valid_until").ends_with('Z'),
        "{shown:?}"
    );
    let starts: Vec<usize> = shown
        .stdout
        .lines()
        .take_while(|line| *line != "public_key")
        .map(|line| line.len() - line.trim_start_matches(|c| c != ' ').trim_start().len())
        .collect();
    assert!(
        starts.windows(2).all(|pair| pair[0] == pair[1]),
        "{shown:?}"
    );

    let rotated = desk.run(&["key", "rotate", "alias/receipts"]);
    assert_eq!(field(rotated.ok(), "old_key_id"), key_id);
    let successor = field(&rotated.stdout, "new_key_id").to_owned();
    let emergency = desk
        .run(&["key", "rotate", &successor, "--emergency", "--json"])
        .json();
    assert_eq!(emergency["grace_until"], Value::Null);

    let revoked = desk.run(&["key", "revoke", "alias/receipts", "--reason", "retired"]);
    assert_eq!(field(revoked.ok(), "key_state"), "destroyed");
    let gone = field(&revoked.stdout, "key_id").to_owned();
    let restored = desk.run(&["key", "restore", &gone]);
    assert_eq!(field(restored.ok(), "key_state"), "archived");
}

#[tokio::test]
async fn with_json_the_services_answer_is_printed_as_it_is() {
    let (_folder, kms, desk) = service();
    let key_id = generate(&desk, "AES-256", "encrypt,decrypt", "db");
    let answer = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
    let shown = desk.run(&["key", "show", &key_id, "--json"]);
    assert_eq!(shown.ok(), format!("{}\n", answer.text));
    let listed = desk.run(&["key", "list", "--json"]);
    let of_list = without_usage(&answer.body);
    assert_eq!(listed.json(), of_list);
}

/// A list does not say how often a key is used.
fn without_usage(key: &Value) -> Value {
    crate::support::without(key.clone(), "usage")
}

#[tokio::test]
async fn a_list_goes_to_the_end_and_its_filters_are_the_services() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let desk = Desk::new(format_args!("http://{}", kms.api()));
    // More than a page of the service holds.
    let made = 1_003;
    for batch in 0..17 {
        let keys = (0..59).map(|_| kms.generate("AES-256", json!({})));
        crate::support::all(keys.map(|key| async { drop(key.await) })).await;
        assert!(batch < 17);
    }
    let archived = generate(&desk, "Ed25519", "sign,verify", "old");
    desk.run(&["key", "rotate", &archived, "--emergency"]).ok();

    let ids = |arguments: &[&str]| -> Vec<String> {
        let listed = desk.run(&[&["key", "list"], arguments].concat());
        let lines = listed.ok().lines();
        assert!(listed.stdout.starts_with("KEY_ID  "), "{listed:?}");
        lines.skip(1).map(|line| line[..36].to_owned()).collect()
    };
    let mut all = ids(&[]);
    assert_eq!(all.len(), made + 2);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), made + 2, "one twice");
    assert_eq!(ids(&["--limit", "1001"]).len(), 1_001);
    assert_eq!(ids(&["--limit", "2"]).len(), 2);
    assert_eq!(ids(&["--type", "Ed25519"]).len(), 2);
    assert_eq!(
        ids(&["--state", "archived"]),
        std::slice::from_ref(&archived)
    );
    assert_eq!(ids(&["--alias", "old"]).len(), 2);
    assert_eq!(ids(&["--alias", "none"]).len(), 0);
    let json = desk.run(&["key", "list", "--json"]);
    assert_eq!(json.ok().lines().count(), made + 2);
    for line in json.stdout.lines() {
        let key: Value = serde_json::from_str(line).expect("JSON");
        assert!(key["key_id"].is_string());
    }
}

#[test]
fn a_signature_is_printed_and_verifies_and_nothing_else_does() {
    let (_folder, _kms, desk) = service();
    generate(&desk, "RSA-2048", "sign,verify", "r");
    let data = desk.put("data", b"hello\n");
    for algorithm in ["RSA-PSS-SHA256", "RS256"] {
        let with = ["--algorithm", algorithm];
        let sign = [&["sign", "alias/r"], &with[..]].concat();
        let signed = desk.run_with(&sign, b"hello\n");
        let signature = signed.ok().trim_end().to_owned();
        assert_eq!(unbase64(&json!(signature)).len(), 256);
        let file = desk.put("signature", &signed.bytes);

        let verify = [&["verify", "alias/r"], &with[..]].concat();
        let by_file = [&verify[..], &["--signature-file", argument(&file)]].concat();
        assert_eq!(desk.run_with(&by_file, b"hello\n").ok(), "verified\n");
        let by_text = ["--signature", &signature, "--in", argument(&data), "--json"];
        let verified = desk.run(&[&verify[..], &by_text].concat()).json();
        assert_eq!(verified["status"], "verified");

        let other = desk.run_with(&by_file, b"hello");
        assert_eq!(other.code, Some(3), "{other:?}");
        assert_eq!(other.stdout, "failed: the signature does not verify\n");
        let other = desk.run_with(&[&by_file[..], &["--json"]].concat(), b"hello");
        assert_eq!(other.code, Some(3), "{other:?}");
        assert!(other.stdout.contains("\"valid\":false"), "{other:?}");
    }
    for signature in ["", "no base64", "QQ"] {
        let verify = ["verify", "alias/r", "--signature", signature];
        desk.run(&verify).failed(2, "standard base64");
    }
}

#[test]
fn what_was_encrypted_is_decrypted_from_its_document_alone() {
    let (_folder, _kms, desk) = service();
    let key_id = generate(&desk, "AES-256", "encrypt,decrypt", "db");
    let secret: Vec<u8> = (0..=255).collect();
    let aad = desk.put("aad", b"row 7");
    for algorithm in ["AES-256-GCM", "CHACHA20-POLY1305"] {
        let document = desk.path(algorithm);
        let encrypt = [
            "encrypt",
            "alias/db",
            "--aad-file",
            argument(&aad),
            "--algorithm",
            algorithm,
            "--out",
            argument(&document),
        ];
        assert_eq!(desk.run_with(&encrypt, &secret).ok(), "");
        let written = std::fs::read_to_string(&document).expect("read");
        let sealed: Value = serde_json::from_str(&written).expect("JSON");
        let names = crate::support::field_names(&sealed);
        assert_eq!(names, ["algorithm", "ciphertext", "iv", "key_id"]);
        assert_eq!(sealed["key_id"], key_id.as_str());
    }
    // Whatever the alias stands for by then.
    desk.run(&["key", "rotate", "alias/db"]).ok();
    for algorithm in ["AES-256-GCM", "CHACHA20-POLY1305"] {
        let input = desk.path(algorithm);
        let decrypt = [
            "decrypt",
            "--in",
            argument(&input),
            "--aad-file",
            argument(&aad),
        ];
        let opened = desk.run(&decrypt);
        opened_is(&opened, &secret);

        let out = desk.path(&format!("{algorithm}.plain"));
        let to_file = [&decrypt[..], &["--out", argument(&out)]].concat();
        assert_eq!(desk.run(&to_file).ok(), "");
        assert_eq!(std::fs::read(&out).expect("read"), secret);
        let mode = std::fs::metadata(&out).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        desk.run(&to_file).failed(1, "nothing is written over");

        let without_aad = ["decrypt", "--in", argument(&input)];
        desk.run(&without_aad).failed(4, "could not be decrypted");
    }
}

fn opened_is(opened: &crate::support::desk::Done, secret: &[u8]) {
    assert_eq!(opened.code, Some(0), "{opened:?}");
    assert_eq!(opened.bytes, secret);
}

#[test]
fn documents_go_through_pipes_and_the_services_own_answer_is_one() {
    let (_folder, _kms, desk) = service();
    generate(&desk, "AES-256", "encrypt,decrypt", "db");
    for flags in [&[][..], &["--json"]] {
        let encrypt = [&["encrypt", "alias/db"], flags].concat();
        let sealed = desk.run_with(&encrypt, b"secret");
        sealed.ok();
        opened_is(&desk.run_with(&["decrypt"], &sealed.bytes), b"secret");
        let answer = desk.run_with(&["decrypt", "--json"], &sealed.bytes).json();
        assert_eq!(answer["plaintext"], base64(b"secret"));
    }
    for (document, said) in [
        ("", "not what kms encrypt writes"),
        ("{}", "missing field"),
        (r#"{"aad":"QQ=="}"#, "unknown field"),
    ] {
        let decrypt = desk.run_with(&["decrypt"], document.as_bytes());
        decrypt.failed(1, said);
    }
}

#[test]
fn a_refusal_names_the_code_the_fields_and_the_request() {
    let (_folder, _kms, desk) = service();
    let made = desk.run(&[
        "key",
        "generate",
        "--type",
        "AES-256",
        "--usage",
        "sign",
        "--max-usage-per-day",
        "0",
    ]);
    made.failed(4, "INVALID_REQUEST: ");
    let field = "\n  field access_policy.max_usage_per_day (invalid): a whole number from 1";
    made.failed(4, field);
    made.failed(4, "\n  request id: ");
    desk.run(&["key", "show", UNKNOWN])
        .failed(4, "KEY_NOT_FOUND");

    let key_id = generate(&desk, "Ed25519", "sign", "a");
    let rotated = desk.run(&["key", "rotate", &key_id, "--json"]).json();
    let signed = desk.run(&["sign", &key_id]);
    signed.failed(4, "KEY_INACTIVE");
    signed.failed(4, &format!("successor: {}", text(&rotated["new_key_id"])));
}

#[test]
fn a_body_that_is_too_large_names_the_limit() {
    let (_folder, _kms, desk) = service();
    generate(&desk, "Ed25519", "sign", "a");
    let data = vec![0; 1 << 20];
    let signed = desk.run_with(&["sign", "alias/a"], &data);
    signed.failed(4, "limit: 1048576 bytes a request");
    // What no service takes is not sent at all, so it is all the same whether one is there.
    let nobody = Desk::new("http://127.0.0.1:9");
    let huge = std::fs::File::create(nobody.path("huge")).expect("made");
    huge.set_len(48 * 1024 * 1024 + 1).expect("set");
    nobody
        .run(&["sign", "alias/a", "--in", "huge"])
        .failed(1, "more than 50331648 bytes");
    huge.set_len(48 * 1024 * 1024).expect("set");
    nobody
        .run(&["sign", "alias/a", "--in", "huge"])
        .failed(1, "no service takes more than 67108864");
}

#[test]
fn a_use_that_needs_an_approval_takes_it() {
    let (_folder, _kms, desk) = service();
    let key = [
        "key",
        "generate",
        "--type",
        "Ed25519",
        "--usage",
        "sign",
        "--alias",
        "a",
        "--requires-approval",
    ];
    desk.run(&key).ok();
    desk.run_with(&["sign", "alias/a"], b"data").ok();
    let alone = desk.without("KMS_CLIENT_APPROVAL");
    alone
        .run_with(&["sign", "alias/a"], b"data")
        .failed(4, "UNAUTHORIZED");
    let file = alone.put("approval", "approval-token-123\n");
    let with_file = ["sign", "alias/a", "--approval-file", argument(&file)];
    alone.run_with(&with_file, b"data").ok();
    let from_input = [
        "sign",
        "alias/a",
        "--in",
        argument(&file),
        "--approval-file",
        "-",
    ];
    alone.run_with(&from_input, b"approval-token-123\n").ok();
    alone
        .run_with(
            &["sign", "alias/a", "--approval-file", "-"],
            b"approval-token-123",
        )
        .failed(2, "standard input is the data already");
}

/// `-` is standard input and output, as everywhere.
#[test]
fn a_dash_is_no_file() {
    let (_folder, _kms, desk) = service();
    generate(&desk, "AES-256", "encrypt,decrypt", "db");
    generate(&desk, "Ed25519", "sign,verify", "receipts");
    let sealed = desk.run_with(
        &["encrypt", "alias/db", "--in", "-", "--out", "-"],
        b"a plan",
    );
    let sealed = sealed.ok().to_owned();
    let opened = desk.run_with(&["decrypt", "--in", "-", "--out", "-"], sealed.as_bytes());
    assert_eq!(opened.ok(), "a plan");
    let data = desk.put("data", "data");
    let data = argument(&data);
    let signed = desk.run(&["sign", "alias/receipts", "--in", data]);
    let verify = ["verify", "alias/receipts", "--signature-file", "-"];
    desk.run_with(
        &[&verify[..], &["--in", data]].concat(),
        signed.ok().as_bytes(),
    )
    .ok();
    desk.run_with(&verify, signed.ok().as_bytes())
        .failed(2, "standard input is the data already");
    assert!(!desk.path("-").exists());
}

/// A use is counted, and an approval spent, for nothing where the result has no place.
#[test]
fn where_a_result_cannot_go_nothing_is_asked() {
    let (_folder, _kms, desk) = service();
    generate(&desk, "AES-256", "encrypt,decrypt", "db");
    let data = desk.put("data", "data");
    let encrypt = ["encrypt", "alias/db", "--in", argument(&data), "--out"];
    for out in ["nowhere/x", "data/x"] {
        let done = desk.run(&[&encrypt[..], &[out]].concat());
        done.failed(1, "the folder cannot be written to");
    }
    desk.run(&[&encrypt[..], &["data"]].concat())
        .failed(1, "is there already");
    let shown = desk.run(&["key", "show", "alias/db", "--json"]);
    assert_eq!(shown.json()["usage"]["used"], 0);
}

#[test]
fn who_reads_no_further_is_content() {
    let (_folder, _kms, desk) = service();
    let script = format!(
        "{} key list --json | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_kms")
    );
    for _ in 0..10 {
        let ended = desk.shell(&script);
        assert_eq!(ended.stdout, "0\n", "{ended:?}");
    }
}

/// Plain HTTP where TLS is spoken and the other way round: neither is a matter of
/// trust, nor of coming again later.
#[test]
fn the_wrong_scheme_is_told() {
    let pki = crate::support::Pki::new();
    let files = pki.settings();
    let settings: Vec<(&str, &str)> = files.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let with_tls = KmsProcess::start(folder.path(), &settings);
    let (_folder, plain, _) = service();
    for url in [
        format!("http://{}", with_tls.api()),
        format!("https://{}", plain.api()),
    ] {
        let done = Desk::new(&url).run(&["key", "list"]);
        done.failed(1, "what is spoken there is not what url says");
    }
}
