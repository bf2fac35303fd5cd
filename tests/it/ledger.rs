//! The ledger as an outsider checks it: with other people's implementations of
//! RFC 9162, tlog-tiles, tlog-checkpoint and signed-note, and the public key.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash, check_record, check_tree, record_hash};

use crate::support::{
    Answer, Pki, SCOPE_QUERY, TestKms, UNTHROTTLED, all_at_once, base64, in_scope, text, unbase64,
};

/// The checkpoint in a note, if the ledger's key signed it.
#[track_caller]
pub(crate) fn checkpoint_of(note: &str, verifier_key: &str) -> Checkpoint {
    let key = StandardVerifier::new(verifier_key).expect("a verifier key");
    let note = Note::from_bytes(note.as_bytes()).expect("a note");
    let keys = VerifierList::new(vec![Box::new(key)]);
    let (good, _) = note.verify(&keys).expect("a good signature");
    assert_eq!(good.len(), 1);
    Checkpoint::from_bytes(note.text()).unwrap_or_else(|_| panic!("not a checkpoint"))
}

/// The hashes of a proof.
pub(crate) fn hashes(proof: &Value) -> Vec<Hash> {
    let proof = proof.as_array().expect("a list");
    proof
        .iter()
        .map(|hash| Hash(unbase64(hash).try_into().expect("32 bytes")))
        .collect()
}

impl TestKms {
    /// The key that checks the ledger now.
    pub(crate) async fn verifier_key(&self) -> String {
        let keys = self.get("/kms/v1/ledger/keys").await;
        let keys = keys.ok()["keys"].as_array().expect("a list").clone();
        text(&keys.last().expect("a key")["verifier_key"]).to_owned()
    }

    /// The newest checkpoint, checked.
    pub(crate) async fn checkpoint(&self) -> Checkpoint {
        let note = self.get("/kms/v1/ledger/checkpoint").await;
        assert_eq!(note.status, 200);
        checkpoint_of(&note.text, &self.verifier_key().await)
    }

    /// The bytes of a tile, by its coordinates.
    async fn tile(&self, module: &str, tile: &str) -> (u16, Vec<u8>) {
        let path = format!("/kms/v1/ledger/tile/{tile}");
        let request = self.request(Method::GET, &path);
        let answer = Answer::of(request.header("X-Module-Id", module)).await;
        (answer.status.as_u16(), answer.bytes)
    }

    /// The proof of a receipt, checked with the key; answers leaf and place.
    pub(crate) async fn proved(&self, receipt_id: &Value, key: &str) -> (String, u64) {
        let found = self.receipt(receipt_id).await;
        let path = format!("/kms/v1/receipts/{}", text(receipt_id));
        let answer = self.get_scoped(&path).await;
        let body = answer.ok();
        let checkpoint = checkpoint_of(text(&body["checkpoint"]), key);
        assert_eq!(body["tree_size"], checkpoint.size());
        check_record(
            &hashes(&body["inclusion_proof"]),
            checkpoint.size(),
            *checkpoint.hash(),
            found.leaf_index,
            record_hash(found.text.as_bytes()),
        )
        .expect("a proof that holds");
        (found.text, found.leaf_index)
    }

    /// Leaves so many receipts, and answers their ids.
    pub(crate) async fn leave_receipts(&self, number: usize) -> Vec<Value> {
        let made = self.generate(
            "Ed25519",
            json!({ "access_policy": { "max_usage_per_day": 100_000 } }),
        );
        let made = made.await;
        let body = in_scope(json!({ "key_id": made["key_id"], "data": base64("data") }));
        let mut ids = vec![made["receipt_id"].clone()];
        while ids.len() < number {
            let at_once = (number - ids.len()).min(50);
            let requests = (0..at_once)
                .map(|_| self.post_request("/kms/v1/sign", &body))
                .collect();
            for answer in all_at_once(requests).await {
                ids.push(answer.ok()["receipt_id"].clone());
            }
        }
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receipt_is_proved_to_be_in_the_tree_at_every_size() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let key = kms.verifier_key().await;
    let empty = kms.checkpoint().await;
    assert_eq!(empty.size(), 0);
    let mut places = BTreeMap::new();
    for receipt_id in kms.leave_receipts(20).await {
        let (leaf, place) = kms.proved(&receipt_id, &key).await;
        places.insert(place, leaf);
    }
    let ids = kms.leave_receipts(600).await;
    for receipt_id in ids.iter().step_by(7) {
        let (leaf, place) = kms.proved(receipt_id, &key).await;
        places.insert(place, leaf);
    }
    assert_eq!(places.len(), 20 + ids.len().div_ceil(7));
    assert_eq!(kms.checkpoint().await.size(), 620);

    // The proofs of before a restart and after it are of one tree.
    let before = kms.checkpoint().await;
    let kms = TestKms::start_in(kms.stop().await, &UNTHROTTLED).await;
    assert_eq!(kms.verifier_key().await, key);
    let after = kms.checkpoint().await;
    assert_eq!(
        (before.size(), *before.hash()),
        (after.size(), *after.hash())
    );
    let (_, place) = kms.proved(&ids[100], &key).await;
    assert!(places.contains_key(&place) || place < 620);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tree_is_proved_to_have_grown_out_of_another() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let key = kms.verifier_key().await;
    let mut seen = vec![kms.checkpoint().await];
    for number in [1, 2, 5, 248, 1, 300] {
        kms.leave_receipts(number).await;
        seen.push(kms.checkpoint().await);
    }
    let sizes: Vec<u64> = seen.iter().map(Checkpoint::size).collect();
    assert_eq!(sizes, [0, 1, 3, 8, 256, 257, 557]);
    for (place, new) in seen.iter().enumerate() {
        for old in &seen[..=place] {
            let path = format!(
                "/kms/v1/ledger/consistency?from={}&to={}",
                old.size(),
                new.size()
            );
            let answer = kms.get(&path).await;
            let body = answer.ok();
            assert_eq!(
                (&body["from"], &body["to"]),
                (&json!(old.size()), &json!(new.size()))
            );
            let proof = hashes(&body["consistency_proof"]);
            let signed = checkpoint_of(text(&body["checkpoint"]), &key);
            assert_eq!((signed.size(), *signed.hash()), (new.size(), *new.hash()));
            if old.size() == 0 {
                assert!(proof.is_empty());
            } else {
                check_tree(&proof, new.size(), *new.hash(), old.size(), *old.hash())
                    .expect("a proof that holds");
            }
        }
    }
    let newest = kms.get("/kms/v1/ledger/consistency?from=8").await;
    assert_eq!(newest.ok()["to"], 557);
    for (query, fields) in [
        ("from=558", &["from"][..]),
        ("from=9&to=8", &["from"]),
        ("from=1&to=558", &["to"]),
        ("to=8", &["from"]),
        ("from=-1", &["from"]),
        ("from=1&too=8", &["too"]),
        ("from=x&to=y", &["from", "to"]),
    ] {
        let refused = kms
            .get(&format!("/kms/v1/ledger/consistency?{query}"))
            .await;
        refused.refused_fields(fields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_can_be_rebuilt_from_its_tiles_and_entries() {
    let auditors = [
        UNTHROTTLED[0],
        UNTHROTTLED[1],
        ("KMS__AUTH__AUDITORS", "M27,M90"),
    ];
    let kms = TestKms::start_with(&auditors).await;
    kms.leave_receipts(600).await;
    let checkpoint = kms.checkpoint().await;
    let mut leaf_hashes = Vec::new();
    for (tile, width) in [("000", 256), ("001", 256), ("002.p/88", 88)] {
        let (status, entries) = kms.tile("M90", &format!("entries/{tile}")).await;
        assert_eq!(status, 200);
        let (status, hashes) = kms.tile("M21", &format!("0/{tile}")).await;
        assert_eq!((status, hashes.len()), (200, width * 32));
        let mut rest = entries.as_slice();
        for hash in hashes.chunks(32) {
            let (length, behind) = rest.split_first_chunk().expect("a length");
            let (leaf, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            assert_eq!(record_hash(leaf).0, hash);
            serde_json::from_slice::<Value>(leaf).expect("JSON");
            leaf_hashes.push(record_hash(leaf));
            rest = behind;
        }
        assert!(rest.is_empty());
    }
    assert_eq!(leaf_hashes.len(), 600);
    let (status, upper) = kms.tile("M21", "1/000.p/2").await;
    assert_eq!((status, upper.len()), (200, 64));

    // Another implementation grows the tree and comes to the same root.
    let mut tree = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for tile in ["000", "001", "002.p/88"] {
        let (_, entries) = kms.tile("M27", &format!("entries/{tile}")).await;
        let mut rest = entries.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let (leaf, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            tree.push(leaf.to_vec());
            rest = behind;
        }
    }
    assert_eq!(tree.root().as_bytes()[..], checkpoint.hash().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_that_are_not_there_are_not_found_and_malformed_ones_are_named() {
    let auditors = [
        UNTHROTTLED[0],
        UNTHROTTLED[1],
        ("KMS__AUTH__AUDITORS", "M27"),
    ];
    let kms = TestKms::start_with(&auditors).await;
    kms.leave_receipts(300).await;
    for there in [
        "0/000",
        "0/000.p/7",
        "0/001.p/44",
        "0/001.p/1",
        "1/000.p/1",
        "entries/001.p/44",
    ] {
        assert_eq!(kms.tile("M27", there).await.0, 200, "{there}");
    }
    for missing in [
        "0/001",
        "0/001.p/45",
        "0/002.p/1",
        "1/000",
        "1/000.p/2",
        "2/000.p/1",
        "63/000.p/1",
        "0/x018/x446/x744/x073/x709/x551/615",
        "entries/001",
        "entries/001.p/45",
        "entries/x018/x446/x744/x073/x709/x551/615",
    ] {
        let answer = kms
            .as_module("M27", &format!("/kms/v1/ledger/tile/{missing}"))
            .await;
        answer.refused(404, "INVALID_REQUEST");
    }
    for malformed in [
        "0/0",
        "64/000",
        "0/000.p/0",
        "0/000.p/256",
        "data/000",
        "x",
        "0/000/",
    ] {
        let answer = kms
            .as_module("M27", &format!("/kms/v1/ledger/tile/{malformed}"))
            .await;
        answer.refused_fields(&["tile"]);
    }
}

impl TestKms {
    async fn as_module(&self, module: &str, path: &str) -> Answer {
        let request = self.request(Method::GET, path);
        Answer::of(request.header("X-Module-Id", module)).await
    }
}

#[tokio::test]
async fn entries_are_for_auditors_and_hashes_for_any_caller() {
    let kms = TestKms::start().await;
    kms.generate("Ed25519", json!({})).await;
    assert_eq!(kms.tile("M27", "0/000.p/1").await.0, 200);
    let path = "/kms/v1/ledger/tile/entries/000.p/1";
    let nobody = kms.as_module("M27", path).await;
    nobody.refused(403, "UNAUTHORIZED");

    let kms = TestKms::start_with(&[("KMS__AUTH__AUDITORS", "M90")]).await;
    kms.generate("Ed25519", json!({})).await;
    kms.as_module("M27", path)
        .await
        .refused(403, "UNAUTHORIZED");
    assert_eq!(kms.tile("M90", "entries/000.p/1").await.0, 200);
    // Nobody learns from the refusal how far the ledger has come.
    let far = "/kms/v1/ledger/tile/entries/999";
    kms.as_module("M27", far).await.refused(403, "UNAUTHORIZED");
}

#[tokio::test]
async fn what_never_changes_says_so_and_what_changes_is_not_kept() {
    let kms = TestKms::start_with(&[("KMS__AUTH__AUDITORS", "M27")]).await;
    kms.generate("Ed25519", json!({})).await;
    for (path, expected) in [
        (
            "/kms/v1/ledger/tile/0/000.p/1",
            "public, max-age=31536000, immutable",
        ),
        (
            "/kms/v1/ledger/tile/entries/000.p/1",
            "private, max-age=31536000, immutable",
        ),
        ("/kms/v1/ledger/tile/0/000", "no-store"),
        ("/kms/v1/ledger/checkpoint", "no-store"),
        ("/kms/v1/ledger/keys", "no-store"),
        ("/kms/v1/ledger/consistency?from=1", "no-store"),
    ] {
        let answer = kms.as_module("M27", path).await;
        assert_eq!(answer.headers["cache-control"], expected, "{path}");
    }
    let note = kms.get("/kms/v1/ledger/checkpoint").await;
    assert_eq!(note.headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn over_mutual_tls_an_auditor_is_who_the_platform_says_it_is() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[("KMS__AUTH__AUDITORS", "M27")]).await;
    let path = "/kms/v1/ledger/tile/entries/000.p/1";
    let m21 = pki.connector(&pki.client("tenant123", "M21"));
    let m27 = pki.connector(&pki.client("tenant123", "M27"));
    let ask = async |client| Answer::of(kms.request_over(client, Method::GET, path)).await;
    ask(&m21).await.refused(403, "UNAUTHORIZED");
    ask(&m27).await.refused(404, "INVALID_REQUEST");
    kms.generate("Ed25519", json!({})).await;
    assert_eq!(ask(&m27).await.status, 200);
    let checkpoint = Answer::of(kms.request_over(&m21, Method::GET, "/kms/v1/ledger/checkpoint"));
    assert_eq!(checkpoint.await.status, 200);
}

#[tokio::test]
async fn receipts_are_listed_by_time_key_and_operation_in_pages() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let first = kms.generate_id("Ed25519").await;
    let second = kms.generate_id("Ed25519").await;
    for _ in 0..3 {
        kms.sign(&first, b"data").await.ok();
        kms.sign(&second, b"data").await.ok();
    }
    kms.verify(&first, b"data", &json!(base64([0; 64])))
        .await
        .ok();
    kms.revoke(&second).await.ok();
    kms.sign(&second, b"data").await.refused(409, "KEY_REVOKED");
    let other = json!({ "tenant_id": "other", "environment": "prod", "plane": "laptop",
        "key_id": first, "data": "" });
    kms.post("/kms/v1/sign", &other)
        .await
        .refused(404, "KEY_NOT_FOUND");

    let list = async |filter: &str| {
        let answer = kms.get_scoped(&format!("/kms/v1/receipts?{filter}")).await;
        answer.ok().clone()
    };
    let places = |page: &Value| -> Vec<u64> {
        let receipts = page["receipts"].as_array().expect("a list");
        receipts
            .iter()
            .map(|one| one["leaf_index"].as_u64().expect("a number"))
            .collect()
    };
    let all = list("limit=1000").await;
    assert_eq!(places(&all), (0..11).collect::<Vec<_>>());
    assert_eq!(all["next_cursor"], Value::Null);
    let of_first = list(&format!("key_id={first}")).await;
    assert_eq!(places(&of_first), [0, 2, 4, 6, 8]);
    let signed = list("operation=signature_created").await;
    assert_eq!(places(&signed), [2, 3, 4, 5, 6, 7, 10]);
    let both = list(&format!("operation=signature_created&key_id={second}")).await;
    assert_eq!(places(&both), [3, 5, 7, 10]);
    assert_eq!(places(&list("operation=key_rotated").await), [0u64; 0]);
    let ts =
        |page: &Value, place: usize| text(&page["receipts"][place]["receipt"]["ts"]).to_owned();
    let (from, until) = (ts(&all, 3), ts(&all, 7));
    assert_eq!(
        places(&list(&format!("from={from}&until={until}")).await),
        [3, 4, 5, 6]
    );
    let none = list("from=2100-01-01T00:00:00Z").await;
    assert_eq!(places(&none), [0u64; 0]);

    for filter in [
        "",
        "&operation=signature_created",
        &format!("&key_id={first}"),
    ] {
        let whole = places(&list(&format!("limit=1000{filter}")).await);
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = list(&format!("limit=2{filter}{cursor}")).await;
            assert!(places(&page).len() <= 2);
            paged.extend(places(&page));
            match page["next_cursor"].as_str() {
                None => break,
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
        assert_eq!(paged, whole, "{filter}");
    }

    let other = kms
        .get("/kms/v1/receipts?tenant_id=other&environment=prod&plane=laptop")
        .await;
    assert_eq!(places(other.ok()), [11]);
    let nobody = kms
        .get("/kms/v1/receipts?tenant_id=nobody&environment=prod&plane=laptop")
        .await;
    assert_eq!(*nobody.ok(), json!({ "receipts": [], "next_cursor": null }));
    for (query, field) in [
        ("key_id=x", "key_id"),
        ("operation=sign", "operation"),
        ("from=yesterday", "from"),
        ("until=2026-01-01T00:00:00+01:00", "until"),
        ("limit=0", "limit"),
        ("cursor=7", "cursor"),
        ("state=active", "state"),
    ] {
        let refused = kms
            .get(&format!("/kms/v1/receipts?{query}&{SCOPE_QUERY}"))
            .await;
        refused.refused_fields(&[field]);
    }
}
