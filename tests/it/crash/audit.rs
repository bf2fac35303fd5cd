//! What is looked at after every crash: the ledger against what was acknowledged,
//! the keys against the ledger, and both against what clients saw before.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::Sha256;
use tlog_tiles::{Checkpoint, check_record, check_tree, record_hash};

use super::book::{About, Book, State};
use super::client::{Client, receipt_text};
use super::copy::{Entry, LedgerCopy};
use crate::ledger::{checkpoint_of, hashes};
use crate::support::{Answer, KmsProcess, Random, SCOPE_QUERY, text, unbase64};

/// Receipts that are read one by one after a crash, the newest first.
const READ_ONE_BY_ONE: usize = 100;

/// Old things of a kind that are tried again after a crash.
const TRIED_AGAIN: usize = 8;

pub(super) struct Audit<'a> {
    pub(super) kms: &'a KmsProcess,
    pub(super) folder: &'a Path,
    pub(super) book: &'a Mutex<Book>,
    pub(super) random: &'a mut Random,
}

impl Audit<'_> {
    /// Holds the service to everything that is known.
    pub(super) async fn hold(&mut self, copy: &mut LedgerCopy) {
        let keys = self.get("/kms/v1/ledger/keys").await["keys"].clone();
        let [key] = keys.as_array().expect("a list").as_slice() else {
            panic!("one key signs all: {keys}");
        };
        let verifier_key = text(&key["verifier_key"]).to_owned();
        let note = self.kms.get("/kms/v1/ledger/checkpoint").await;
        let head = checkpoint_of(&note.text, &verifier_key);

        self.no_fork(&head, &verifier_key).await;
        let new = copy.read_on(self.kms, head.size()).await;
        if head.size() > 0 {
            assert_eq!(copy.root(), head.hash().0, "the tree is over other leaves");
        }
        self.nothing_without_a_request_and_none_twice(&new, copy);
        self.keys_are_as_their_receipts_say(copy).await;
        self.anchors_are_as_their_receipts_say(copy).await;
        self.uses_are_counted(copy);
        self.receipts_are_proved(copy, &verifier_key).await;
        self.what_was_made_before_works().await;
    }

    async fn get(&self, path: &str) -> Value {
        self.kms.get(path).await.ok().clone()
    }

    /// Every checkpoint that anybody saw is of a tree that this one grew out of.
    async fn no_fork(&self, head: &Checkpoint, verifier_key: &str) {
        let seen = std::mem::take(&mut self.book.lock().expect("no panic").checkpoints);
        let mut by_size = BTreeMap::new();
        for note in &seen {
            let lines: Vec<&str> = note.lines().take(3).collect();
            let size: u64 = lines[1].parse().expect("a size");
            assert!(size <= head.size(), "the ledger forgot {note}");
            let (_, root) = by_size.entry(size).or_insert((note, lines[2].to_owned()));
            assert_eq!(*root, lines[2], "two trees of {size}");
        }
        // The newest are those that a crash could have cut off.
        for (size, (note, _)) in by_size.into_iter().rev().take(TRIED_AGAIN) {
            let old = checkpoint_of(note, verifier_key);
            if size == head.size() {
                assert_eq!(*old.hash(), *head.hash());
            } else if size > 0 {
                let path = format!("/kms/v1/ledger/consistency?from={size}&to={}", head.size());
                let proof = hashes(&self.get(&path).await["consistency_proof"]);
                check_tree(&proof, head.size(), *head.hash(), size, *old.hash())
                    .expect("one tree that grew");
            }
        }
    }

    /// Every answered request has its one receipt, and what is left over fits the
    /// requests that nobody heard of again.
    fn nothing_without_a_request_and_none_twice(&self, new: &[Entry], copy: &LedgerCopy) {
        let asked = std::mem::take(&mut self.book.lock().expect("no panic").asked);
        let mut by_request: HashMap<&str, &Entry> = new
            .iter()
            .map(|entry| (entry.request_id.as_str(), entry))
            .collect();
        let mut unheard: HashMap<About, usize> = HashMap::new();
        let mut last_places = HashMap::new();
        for one in asked {
            let Some(answered) = one.answered else {
                *unheard.entry(one.about).or_default() += 1;
                continue;
            };
            let entry = by_request.remove(answered.request_id.as_str());
            let entry = entry.unwrap_or_else(|| {
                panic!("{:?} {} left no receipt", one.about, answered.request_id)
            });
            assert_eq!(entry.about.operation, one.about.operation);
            assert_eq!(entry.about.subject, answered.subject, "{:?}", one.about);
            assert_eq!(
                (entry.success, &entry.code),
                (answered.success, &answered.code)
            );
            if let Some(receipt_id) = answered.receipt_id {
                assert_eq!(entry.receipt_id, receipt_id);
            }
            // Who waits for an answer before asking again finds both in that order.
            let place = copy.places[&entry.receipt_id];
            let before = last_places.insert(one.client, place);
            assert!(before < Some(place), "{before:?} is not before {place}");
        }
        for entry in by_request.into_values() {
            let mut about = entry.about.clone();
            if matches!(about.operation, "generate" | "trust_anchor_add") {
                about.subject = None;
            }
            match unheard.get_mut(&about) {
                Some(left) if *left > 0 => *left -= 1,
                _ => panic!("nobody asked for {about:?}: {}", entry.request_id),
            }
        }
    }

    /// The keys of the usual scope, by id.
    async fn listed(&self, list: &str, name: &str, id: &str) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/kms/v1/{list}?limit=1000&{SCOPE_QUERY}{cursor}");
            let page = self.get(&path).await;
            for one in page[name].as_array().expect("a list") {
                let twice = all.insert(text(&one[id]).to_owned(), one.clone());
                assert!(twice.is_none(), "listed twice: {one}");
            }
            match page["next_cursor"].as_str() {
                None => return all,
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// There is a key for each receipt of a making and no other, in the state that
    /// the receipts lead to, and it is no state that was not acknowledged or asked for.
    async fn keys_are_as_their_receipts_say(&mut self, copy: &LedgerCopy) {
        let listed = self.listed("keys", "keys", "key_id").await;
        let mut successors = 0;
        for (key_id, key) in &listed {
            let state = State::named(&key["key_state"]);
            let replayed = copy.keys.get(key_id);
            let by_receipts = replayed.map_or(State::Active, |replayed| replayed.state);
            assert_eq!(state, by_receipts, "{key}");
            match key["predecessor_key_id"].as_str() {
                Some(old) => {
                    successors += 1;
                    assert!(copy.rotated.contains(old), "no rotation made {key}");
                    assert_eq!(listed[old]["successor_key_id"], **key_id);
                }
                None => assert!(replayed.is_some_and(|made| made.was_generated), "{key}"),
            }
        }
        assert_eq!(
            successors,
            copy.rotated.len(),
            "a rotation without a successor"
        );
        let unlisted = copy
            .keys
            .keys()
            .find(|key_id| !listed.contains_key(*key_id));
        assert_eq!(unlisted, None, "a receipt without a key");

        self.keys_are_as_acknowledged(&listed);
        self.aliases_name_their_keys(&listed).await;
    }

    fn keys_are_as_acknowledged(&self, listed: &BTreeMap<String, Value>) {
        let mut book = self.book.lock().expect("no panic");
        for (key_id, key) in listed {
            // What nobody heard the answer of is known from now on.
            book.learn_key(key_id, text(&key["key_type"]), &key["public_key"]);
            let state = State::named(&key["key_state"]);
            let known = book.key(key_id);
            assert_eq!(key["public_key"], known.public_key);
            assert!(
                known.may_be(state, known.state),
                "{:?} was acknowledged: {key}",
                known.state
            );
            known.state = state;
        }
        assert_eq!(book.keys.len(), listed.len(), "an acknowledged key is gone");
    }

    async fn aliases_name_their_keys(&mut self, listed: &BTreeMap<String, Value>) {
        let named = |key: &&Value| key["key_alias"].is_string() && key["key_state"] == "active";
        let named: Vec<&Value> = listed.values().filter(named).collect();
        for _ in 0..TRIED_AGAIN {
            if let Some(key) = self.random.pick(&named) {
                let path = format!("/kms/v1/keys/alias/{}", text(&key["key_alias"]));
                let found = self.kms.get_scoped(&path).await;
                assert_eq!(found.ok()["key_id"], key["key_id"]);
            }
        }
    }

    async fn anchors_are_as_their_receipts_say(&self, copy: &LedgerCopy) {
        let listed = self.listed("trust-anchors", "trust_anchors", "trust_anchor_id");
        let listed = listed.await;
        assert!(listed.keys().eq(copy.anchors.iter()));
        let mut book = self.book.lock().expect("no panic");
        for id in listed.keys() {
            let known = book.anchors.entry(id.clone()).or_default();
            assert!(!known.is_removed, "{id} came back");
        }
        for (id, known) in &mut book.anchors {
            let is_there = listed.contains_key(id);
            assert!(is_there || known.removal_asked, "{id} is gone");
            known.is_removed = !is_there;
        }
    }

    /// The store counts exactly the uses that have receipts: neither is written
    /// down without the other.
    fn uses_are_counted(&self, copy: &LedgerCopy) {
        let store = Connection::open_with_flags(
            self.folder.join("kms.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .expect("a store");
        let mut counted = store
            .prepare(
                "SELECT key_id, date(day * 86400, 'unixepoch'), used, encryptions FROM (\
                     SELECT * FROM key_usage WHERE key_id NOT IN (SELECT key_id FROM key_use_log) \
                     UNION ALL SELECT key_id, day, used, encryptions, last_used_at FROM key_use_log \
                     WHERE number IN (SELECT max(number) FROM key_use_log GROUP BY key_id))",
            )
            .expect("a table of counts");
        let rows = counted.query_map([], |row| {
            let number = |place| row.get::<_, i64>(place).map(i64::unsigned_abs);
            let key_id: Vec<u8> = row.get(0)?;
            Ok((key_id, row.get::<_, String>(1)?, number(2)?, number(3)?))
        });
        let mut keys = 0;
        for row in rows.expect("rows") {
            let (key_id, day, used, encryptions) = row.expect("a row");
            let key_id = uuid::Uuid::from_slice(&key_id).expect("an id").to_string();
            let replayed = &copy.keys[&key_id];
            assert_eq!(encryptions, replayed.encryptions, "{key_id}");
            // A use is counted a moment before its receipt is dated, and midnight may
            // lie between the two.
            if copy.days.len() == 1 {
                assert_eq!(used, replayed.uses, "{key_id} on {day}");
            }
            keys += 1;
        }
        let used = copy.keys.values().filter(|key| key.uses > 0);
        assert_eq!(keys, used.count(), "keys whose uses are not counted");
    }

    /// Acknowledged receipts are served as they always were, each with a proof.
    async fn receipts_are_proved(&mut self, copy: &LedgerCopy, verifier_key: &str) {
        let known: Vec<(String, Option<String>)> = {
            let mut book = self.book.lock().expect("no panic");
            let first = std::mem::replace(&mut book.unread_receipts, 0);
            let total = book.receipts.len();
            book.unread_receipts = total;
            let (old, new) = book.receipts.split_at(first);
            let again = (0..TRIED_AGAIN).filter_map(|_| self.random.pick(old));
            let new = new.iter().rev().take(READ_ONE_BY_ONE);
            new.chain(again)
                .map(|known| (known.receipt_id.clone(), known.text.clone()))
                .collect()
        };
        let mut checked: Option<(String, Checkpoint)> = None;
        for (receipt_id, seen) in known {
            let path = format!("/kms/v1/receipts/{receipt_id}");
            let found = self.kms.get_scoped(&path).await;
            let body = found.ok();
            let leaf = receipt_text(&found.text);
            if let Some(seen) = seen {
                assert_eq!(leaf, seen, "the receipt has changed");
            }
            let place = body["leaf_index"].as_u64().expect("a place");
            assert_eq!(copy.places[&receipt_id] as u64, place);
            assert_eq!(copy.leaves[copy.places[&receipt_id]], leaf);
            // Nothing is written meanwhile, so mostly it is the one of before.
            let note = text(&body["checkpoint"]);
            let (_, checkpoint) = match checked.take() {
                Some(same) if same.0 == note => checked.insert(same),
                _ => checked.insert((note.to_owned(), checkpoint_of(note, verifier_key))),
            };
            check_record(
                &hashes(&body["inclusion_proof"]),
                checkpoint.size(),
                *checkpoint.hash(),
                place,
                record_hash(leaf.as_bytes()),
            )
            .expect("a proof that holds");
        }
        // What was not read one by one is in the copy, whose root was signed.
        let book = self.book.lock().expect("no panic");
        for known in &book.receipts {
            let place = copy.places.get(&known.receipt_id);
            let place = *place.unwrap_or_else(|| panic!("{} is gone", known.receipt_id));
            assert!(
                known
                    .text
                    .as_ref()
                    .is_none_or(|seen| *seen == copy.leaves[place])
            );
        }
    }

    /// Keys sign and encrypt, what they signed is valid elsewhere, and what they
    /// encrypted opens.
    async fn what_was_made_before_works(&mut self) {
        let mut client = Client {
            number: usize::MAX,
            kms: self.kms,
            book: self.book,
            random: self.random.fork(),
        };
        let (recent, old) = {
            let book = self.book.lock().expect("no panic");
            let first = book.key_ids.len().saturating_sub(2 * TRIED_AGAIN);
            let (old, recent) = book.key_ids.split_at(first);
            (recent.to_vec(), old.to_vec())
        };
        let again = (0..TRIED_AGAIN).filter_map(|_| self.random.pick(&old).cloned());
        for key_id in recent.into_iter().chain(again) {
            let is_secret = client.book().key(&key_id).key_type == "AES-256";
            let worked = match is_secret {
                true => client.encrypt(&key_id).await,
                false => client.sign(&key_id).await,
            };
            worked.expect("a service that runs");
        }
        let (signed, sealed) = {
            let book = self.book.lock().expect("no panic");
            let newest = book.signed.iter().rev().take(TRIED_AGAIN);
            let again = (0..TRIED_AGAIN).filter_map(|_| self.random.pick(&book.signed));
            let signed = newest.chain(again).map(|known| {
                let public_key = book.keys[&known.key_id].public_key.clone();
                (public_key, known.data.clone(), known.signature.clone())
            });
            let signed: Vec<_> = signed.collect();
            let newest = book.sealed.iter().rev().take(TRIED_AGAIN);
            let again = (0..TRIED_AGAIN).filter_map(|_| self.random.pick(&book.sealed));
            let sealed = newest.chain(again).map(|known| {
                (
                    known.key_id.clone(),
                    known.answer.clone(),
                    known.plaintext.clone(),
                )
            });
            (signed, sealed.collect::<Vec<_>>())
        };
        for (public_key, data, signature) in signed {
            assert_valid(text(&public_key), &data, &unbase64(&signature));
        }
        for (key_id, answer, plaintext) in sealed {
            let opened = client.open(&key_id, &answer, &plaintext, true).await;
            opened.expect("a service that runs");
        }
        let health = Answer::of(self.kms.request(Method::GET, "/health")).await;
        assert_eq!(health.status, 200);
    }
}

/// Checks a signature with implementations that are not the service's.
fn assert_valid(public_key: &str, data: &[u8], signature: &[u8]) {
    match VerifyingKey::from_public_key_pem(public_key) {
        Ok(key) => {
            let signature = signature.try_into().expect("64 bytes");
            key.verify_strict(data, &signature)
                .expect("a valid signature");
        }
        Err(_) => {
            let key = rsa::PublicKey::from_public_key_pem(public_key).expect("a public key");
            assert!(key.pss_verify::<Sha256>(data, signature).is_ok());
        }
    }
}
