//! `kms ledger export`: receipts that prove by themselves to be in the ledger.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tlog_tiles::{check_record, record_hash};

use super::{copied, leaves_between, public_key};
use crate::ledger::{checkpoint_of, hashes};
use crate::ledger_start::{tamper, used_folder};
use crate::support::{Ended, KmsProcess, open_store};

#[derive(Deserialize)]
struct Line<'a> {
    leaf_index: u64,
    #[serde(borrow)]
    receipt: &'a RawValue,
    tree_size: u64,
    inclusion_proof: Value,
    checkpoint: String,
}

fn export(folder: &Path, arguments: &[&str]) -> Ended {
    KmsProcess::run(folder, &[&["ledger", "export"], arguments].concat(), &[])
}

/// Checks every line with another implementation; answers the receipts' places.
#[track_caller]
fn proved(lines: &str, folder: &Path, key: &str) -> Vec<u64> {
    let store = open_store(folder);
    let mut places = Vec::new();
    for line in lines.lines() {
        let line: Line<'_> = serde_json::from_str(line).expect("JSON");
        let checkpoint = checkpoint_of(&line.checkpoint, key);
        assert_eq!(line.tree_size, checkpoint.size());
        let leaf = line.receipt.get().as_bytes();
        let kept = leaves_between(&store, line.leaf_index, line.leaf_index + 1);
        assert_eq!(kept, [leaf]);
        check_record(
            &hashes(&line.inclusion_proof),
            checkpoint.size(),
            *checkpoint.hash(),
            line.leaf_index,
            record_hash(leaf),
        )
        .expect("a proof that holds");
        places.push(line.leaf_index);
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_receipts_prove_to_be_in_the_ledger() {
    let folder = used_folder(600).await;
    let key = public_key(folder.path());
    let all = export(folder.path(), &[]);
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    assert!(
        proved(&all.stdout, folder.path(), &key)
            .into_iter()
            .eq(0..600)
    );
    let some = export(folder.path(), &["--from", "250", "--to", "515"]);
    assert!(
        proved(&some.stdout, folder.path(), &key)
            .into_iter()
            .eq(250..515)
    );
    let none = export(folder.path(), &["--from", "600"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));

    let file = folder.path().join("out.jsonl");
    let copy = copied(folder.path());
    let (copy, out) = (copy.path().to_str(), file.to_str());
    let arguments = [
        "--data-dir",
        copy.expect("UTF-8"),
        "--out",
        out.expect("UTF-8"),
    ];
    let ended = export(Path::new("/"), &arguments);
    assert_eq!((ended.code, ended.output()), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(&file).expect("written"), all.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exported_is_told() {
    let folder = used_folder(3).await;
    let beyond = export(folder.path(), &["--to", "4"]);
    assert_eq!(beyond.code, Some(1));
    assert!(
        beyond.stderr.contains("receipt 3 is missing"),
        "{}",
        beyond.stderr
    );
    assert_eq!(
        beyond.stdout.lines().count(),
        3,
        "those before it are there"
    );
    let backwards = export(folder.path(), &["--from", "2", "--to", "1"]);
    assert_eq!(backwards.code, Some(2));
    let nowhere = export(folder.path(), &["--out", "/nowhere/at/all"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(
        nowhere.stderr.contains("cannot write"),
        "{}",
        nowhere.stderr
    );
    tamper(
        folder.path(),
        "INSERT INTO archives VALUES (0, 2, 'gone.db'); DELETE FROM receipts WHERE seq < 2",
    );
    let archived = export(folder.path(), &["--from", "2"]);
    assert_eq!(archived.code, Some(1), "the tree's edge is away");
    assert!(
        archived.stderr.contains("gone.db, which is not there"),
        "{}",
        archived.stderr
    );
}
