use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

use super::*;
use crate::adapters::ledger::testing::{MemoryLedger, verifier};
use crate::adapters::ledger::{AuditFailure, AuditReport, audit};
use crate::domain::ledger::{LedgerFlaw, VerifierKey};
use crate::domain::secret::SecretBytes;

#[test]
fn a_bundle_is_read_back_and_nothing_but_a_bundle() {
    let bundle = [&[0, 3][..], b"abc", &[0, 0], &[0, 1], b"d"].concat();
    let leaves = decode::bundle(&bundle).expect("a bundle");
    assert_eq!(leaves, [b"abc".to_vec(), vec![], b"d".to_vec()]);
    assert_eq!(decode::bundle(b""), Some(vec![]));
    for length in 1..bundle.len() {
        let whole = [5, 7];
        let is_whole = whole.contains(&length);
        assert_eq!(decode::bundle(&bundle[..length]).is_some(), is_whole);
    }
}

#[test]
fn the_keys_are_read_in_order_and_under_the_ledgers_name() {
    let body = |key: &str| {
        format!(
            r#"{{"keys":[{{"verifier_key":"{}","from_size":0,"handover":null}},
                {{"verifier_key":"{key}","from_size":7,"handover":"a note"}}]}}"#,
            verifier(1)
        )
    };
    let keys = decode::keys(body(&verifier(2).to_string()).as_bytes()).expect("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].handover, None);
    assert_eq!(keys[1].public_key, *verifier(2).public_key());
    assert_eq!(keys[1].from_size, 7);
    assert_eq!(keys[1].handover.as_deref(), Some("a note"));
    let other = crate::domain::ledger::VerifierKey::new("other", [9; 32]).to_string();
    for key in [other.as_str(), "", "kms+00000000+AQ=="] {
        let fault = decode::keys(body(key).as_bytes()).expect_err("no key");
        assert!(fault.to_string().contains("key 1"), "{fault}");
    }
    for body in ["", "{}", "[]", r#"{"keys":[{}]}"#] {
        assert!(decode::keys(body.as_bytes()).is_err(), "{body}");
    }
}

/// What a service answers to the path below the ledger's: a status, headers and a
/// body. Gets the whole head of the request too.
type Answer = (u16, &'static str, Vec<u8>);

/// A service that answers so, and goes on until the test ends.
fn service(answer: impl Fn(&str, &str) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).expect("a line") == 0 {
                    break;
                }
            }
            let path = head.split(' ').nth(1).expect("a path");
            let path = path.strip_prefix("/kms/v1/ledger/").expect("the ledger's");
            let (status, headers, body) = answer(path, &head);
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n"
            );
            let bytes = [head.as_bytes(), &body].concat();
            // Whoever has read enough hangs up.
            let _ = stream.get_mut().write_all(&bytes);
        }
    });
    format!("http://{address}")
}

/// How a service answers that has this ledger.
fn honest(mut ledger: MemoryLedger) -> impl FnMut(&str) -> Answer {
    move |path| {
        let found = match path.strip_prefix("tile/").map(str::parse::<TilePath>) {
            None if path == "checkpoint" => ledger.head.clone().map(String::into_bytes),
            None if path == "keys" => Some(listed(&ledger.keys)),
            None => panic!("{path}"),
            Some(path) => {
                let path = path.expect("a tile");
                match path.kind {
                    TileKind::Hashes { level } => {
                        let tile = TileId {
                            level,
                            index: path.index,
                        };
                        let hashes = ledger.tile(tile).expect("there");
                        hashes.map(TreeHash::join)
                    }
                    TileKind::Entries => bundled(&mut ledger, &path),
                }
            }
        };
        found.map_or((404, "", Vec::new()), |body| (200, "", body))
    }
}

fn bundled(ledger: &mut MemoryLedger, path: &TilePath) -> Option<Vec<u8>> {
    match ledger.stretch(path.index * 256, path.width).expect("there") {
        Stretch::Away { .. } => None,
        Stretch::Leaves(leaves) => Some(
            leaves
                .iter()
                .flat_map(|leaf| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat())
                .collect(),
        ),
    }
}

fn listed(keys: &[LedgerKey]) -> Vec<u8> {
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            serde_json::json!({
                "verifier_key": VerifierKey::new("kms", key.public_key).to_string(),
                "from_size": key.from_size,
                "handover": key.handover,
            })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "keys": keys })).expect("serializes")
}

/// A service that has this ledger, but for what `twist` does to its answers.
fn with_ledger(
    ledger: MemoryLedger,
    twist: impl Fn(&str, &str, Answer) -> Answer + Send + 'static,
) -> String {
    let honest = Mutex::new(honest(ledger));
    service(move |path, head| {
        let answer = honest.lock().expect("no panic")(path);
        twist(path, head, answer)
    })
}

fn audited(address: &str) -> Result<AuditReport, AuditFailure> {
    let mut ledger = RemoteLedger::connect(address, &RemoteOptions::default())?;
    audit(&mut ledger, &[verifier(1)], None, &mut |_| ())
}

/// What is said of a service that cannot be read.
#[track_caller]
fn unreadable(address: &str) -> String {
    match audited(address) {
        Err(AuditFailure::Unreadable(fault)) => {
            assert!(fault.what.contains(address), "{}", fault.what);
            fault.what
        }
        other => panic!("{other:?}"),
    }
}

fn handed_over() -> MemoryLedger {
    let mut ledger = MemoryLedger::begun(1);
    ledger.grow(1, 300);
    ledger.hand_over(1, 2);
    ledger.grow(2, 300);
    ledger
}

#[test]
fn the_ledger_of_a_service_verifies() {
    let ledger = handed_over();
    let report = audited(&with_ledger(ledger.clone(), |_, _, answer| answer)).expect("sound");
    assert_eq!(report.checkpoint, ledger.tree.checkpoint());
    assert_eq!((report.keys.len(), report.by_tree_alone), (2, 0));
    let address = with_ledger(ledger, |_, _, answer| answer);
    assert!(audited(&format!("{address}/")).is_ok(), "with a slash");
}

#[test]
fn what_a_service_changed_is_found() {
    let other = handed_over().leaves[&5].clone();
    let mut ledger = handed_over();
    ledger.leaves.insert(290, other);
    let found = audited(&with_ledger(ledger, |_, _, answer| answer));
    let flaw = LedgerFlaw::ReceiptChanged { leaf_index: 290 };
    assert!(
        matches!(found, Err(AuditFailure::Flawed { flaw: found, first_bad: 290, .. }) if found == flaw)
    );
}

#[test]
fn receipts_that_a_service_has_no_longer_are_held_to_the_tree() {
    let mut ledger = handed_over();
    ledger.away = Some(0..256);
    let report = audited(&with_ledger(ledger, |_, _, answer| answer)).expect("sound");
    assert_eq!(report.by_tree_alone, 256);
    assert_eq!(report.away.len(), 1);
}

#[test]
fn what_came_after_the_checkpoint_is_another_audits() {
    let mut ledger = handed_over();
    let head = ledger.head.clone();
    ledger.grow(2, 300);
    ledger.hand_over(2, 3);
    ledger.head = head;
    let report = audited(&with_ledger(ledger, |_, _, answer| answer)).expect("sound");
    assert_eq!((report.checkpoint.size, report.keys.len()), (600, 2));
}

#[test]
fn a_service_that_asks_for_patience_is_asked_again() {
    let refusals = AtomicU32::new(0);
    let address = with_ledger(handed_over(), move |_, _, answer| {
        match refusals.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => (429, "retry-after: 0\r\n", Vec::new()),
            1 => (503, "retry-after: 0\r\n", Vec::new()),
            _ => answer,
        }
    });
    assert!(audited(&address).is_ok());
}

#[test]
fn a_service_that_refuses_is_quoted_and_its_address_named() {
    let body = br#"{"error":{"code":"UNAUTHORIZED","message":"not \u001b[1m you's"}}"#;
    let address = with_ledger(handed_over(), |path, _, answer| {
        match path.starts_with("tile/entries/") {
            true => (403, "", body.to_vec()),
            false => answer,
        }
    });
    let said = unreadable(&address);
    assert!(said.contains("entries/000 answers 403"), "{said}");
    assert!(
        said.contains("UNAUTHORIZED, not \\u{1b}[1m you's"),
        "{said}"
    );
}

#[test]
fn what_is_no_ledger_is_told_by_its_address() {
    for (wrong, body, said) in [
        ("checkpoint", (404, "", vec![]), "is not there"),
        ("checkpoint", (200, "", vec![0xff]), "is no text"),
        (
            "checkpoint",
            (200, "", vec![b'x'; 100_000]),
            "more than 65536",
        ),
        (
            "keys",
            (200, "", b"{}".to_vec()),
            "no list of the ledger's keys",
        ),
        ("keys", (302, "location: /\r\n", vec![]), "302"),
        ("tile/0/000", (200, "", vec![0; 8191]), "no tile of 256"),
        ("tile/0/000", (200, "", vec![0; 8193]), "more than 8192"),
        ("tile/0/000", (200, "", vec![0; 4096]), "no tile of 256"),
        (
            "tile/entries/000",
            (200, "", vec![0, 0]),
            "no bundle of 256",
        ),
        (
            "tile/entries/002.p/88",
            (200, "", vec![0]),
            "no bundle of 88",
        ),
    ] {
        let address = with_ledger(handed_over(), move |path, _, answer| match path == wrong {
            true => body.clone(),
            false => answer,
        });
        let told = unreadable(&address);
        assert!(told.contains(said), "{told}");
        assert!(told.contains(wrong), "{told}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    assert!(unreadable(&address).contains("cannot get"));
    for address in ["", "kms.db", "file:///x", "ftp://x"] {
        let fault = RemoteLedger::connect(address, &RemoteOptions::default()).err();
        let said = fault.expect("refused").what;
        assert!(said.contains("no address of a service"), "{said}");
    }
}

#[test]
fn a_checkpoint_that_says_nothing_is_a_forged_one() {
    let address = with_ledger(handed_over(), |path, _, answer| match path {
        "checkpoint" => (200, "", b"good day".to_vec()),
        _ => answer,
    });
    assert!(matches!(
        audited(&address),
        Err(AuditFailure::Flawed {
            flaw: LedgerFlaw::CheckpointForged { size: 0 },
            ..
        })
    ));
}

#[test]
fn a_service_is_told_who_asks() {
    let (told, heard) = channel();
    let address = with_ledger(handed_over(), move |_, head, answer| {
        let name = head.lines().find(|line| line.starts_with("x-module-id"));
        told.send(name.map(str::to_owned))
            .expect("the test listens");
        answer
    });
    let mut options = RemoteOptions::default();
    RemoteLedger::connect(&address, &options).expect("there");
    assert_eq!(heard.recv().expect("asked"), None);
    options.module = Some("M90".to_owned());
    RemoteLedger::connect(&address, &options).expect("there");
    let name = heard.recv().expect("asked");
    assert_eq!(name.as_deref(), Some("x-module-id: M90"));
    options.module = Some("M\n90".to_owned());
    assert!(RemoteLedger::connect(&address, &options).is_err());
}

#[test]
fn what_is_no_certificate_is_refused() {
    for options in [
        RemoteOptions {
            identity: Some(SecretBytes::new(b"no PEM".to_vec())),
            ..RemoteOptions::default()
        },
        RemoteOptions {
            authorities: Some(b"-----BEGIN CERTIFICATE-----\n!\n".to_vec()),
            ..RemoteOptions::default()
        },
        RemoteOptions {
            authorities: Some(b"no PEM".to_vec()),
            ..RemoteOptions::default()
        },
    ] {
        assert!(RemoteLedger::connect("https://127.0.0.1:1", &options).is_err());
        let fault = RemoteLedger::connect("https://127.0.0.1:1", &options).err();
        assert!(!fault.expect("refused").what.contains("cannot get"));
    }
}
