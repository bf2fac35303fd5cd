//! A bit of everything at once, and a memory of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{APPROVAL, Answer, DEADLINE, KmsProcess, SCOPE_QUERY, base64, in_scope, open_store};

/// How late an answer may be: the store's deadline of five seconds, and a machine
/// that is busy with other tests.
pub(crate) const LATEST: Duration = Duration::from_secs(9);

/// Keys to ask for, and what was answered.
pub(crate) struct MixedLoad {
    signer: String,
    cipher: String,
    signature: Value,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Operations by the receipts that attest them.
    receipts: BTreeMap<String, &'static str>,
    /// Public keys by id.
    keys: BTreeMap<String, Value>,
    /// Refusals by what was asked for.
    refused: BTreeMap<&'static str, usize>,
    answers: usize,
    slowest: Duration,
}

/// What one request asks for.
struct Ask<'a> {
    what: &'static str,
    /// The operation in its receipt, where it leaves one.
    operation: Option<&'static str>,
    request: RequestBuilder,
    load: &'a MixedLoad,
}

impl MixedLoad {
    /// Makes the keys; the service is well.
    pub(crate) async fn new(kms: &KmsProcess) -> Self {
        let often = json!({ "access_policy": { "max_usage_per_day": 1_000_000 } });
        let id = |made: &Value| made["key_id"].as_str().expect("an id").to_owned();
        let signer = id(&kms.generate("Ed25519", often.clone()).await);
        let cipher = id(&kms.generate("AES-256", often).await);
        let body = in_scope(json!({ "key_id": signer, "data": base64("data") }));
        let signed = kms.post("/kms/v1/sign", &body).await;
        // While nothing else happens, so that the service has both keys in memory: one
        // that it has to look for is waited for twice on a disk that hangs.
        let body = in_scope(json!({ "key_id": cipher, "plaintext": base64("data") }));
        kms.post("/kms/v1/encrypt", &body).await.ok();
        Self {
            signature: signed.ok()["signature"].clone(),
            signer,
            cipher,
            known: Mutex::default(),
        }
    }

    /// One request of each kind, all at the same time. Whatever comes back is a
    /// success or says that the store is away, and comes in time.
    pub(crate) async fn wave(&self, kms: &KmsProcess) {
        let post = |path: &str, fields| kms.request(Method::POST, path).json(&in_scope(fields));
        let get = |path: &str| kms.request(Method::GET, &format!("{path}?{SCOPE_QUERY}"));
        let ask = |what, operation, request| Ask {
            what,
            operation,
            request,
            load: self,
        };
        let (signer, data) = (&self.signer, base64("data"));
        let known = self
            .known
            .lock()
            .expect("no panic")
            .receipts
            .keys()
            .next()
            .cloned();
        let look_up = known.map(|id| ask("receipt", None, get(&format!("/kms/v1/receipts/{id}"))));
        let look_up = async {
            if let Some(look_up) = look_up {
                look_up.answer().await;
            }
        };
        tokio::join!(
            ask(
                "sign",
                Some("signature_created"),
                post("/kms/v1/sign", json!({ "key_id": signer, "data": data })),
            )
            .answer(),
            ask(
                "verify",
                Some("signature_verified"),
                post(
                    "/kms/v1/verify",
                    json!({ "key_id": signer, "data": data, "signature": self.signature }),
                ),
            )
            .answer(),
            ask(
                "encrypt",
                Some("encrypt"),
                post(
                    "/kms/v1/encrypt",
                    json!({ "key_id": self.cipher, "plaintext": data }),
                ),
            )
            .answer(),
            ask(
                "generate",
                Some("key_generated"),
                post(
                    "/kms/v1/keys",
                    json!({
                        "key_type": "Ed25519",
                        "key_usage": ["sign", "verify"],
                        "approval_token": APPROVAL,
                    }),
                ),
            )
            .answer(),
            ask("list", None, get("/kms/v1/keys")).answer(),
            look_up,
        );
    }

    /// Sends waves, two at a time, until this comes true. Not as fast as it can:
    /// what is waited for takes seconds, and others want the machine too.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &self,
        kms: &KmsProcess,
        what: &str,
        mut is_so: impl FnMut() -> F,
    ) {
        let start = Instant::now();
        loop {
            tokio::join!(self.wave(kms), self.wave(kms));
            if is_so().await {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{what} did not come to be");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends waves until so many more requests have left a receipt.
    pub(crate) async fn until_acknowledged(&self, kms: &KmsProcess, more: usize) {
        let enough = self.acknowledged() + more;
        self.until(kms, "enough answers", || async {
            self.acknowledged() >= enough
        })
        .await;
    }

    /// Sends waves until readiness has this status; the answer.
    pub(crate) async fn until_readiness_is(&self, kms: &KmsProcess, status: u16) -> Answer {
        let last = Mutex::new(None);
        self.until(kms, "another readiness", || async {
            let health = kms.get_operations("/kms/v1/health").await;
            let is_so = health.status == status;
            *last.lock().expect("no panic") = Some(health);
            is_so
        })
        .await;
        last.into_inner().expect("no panic").expect("asked")
    }

    /// How many requests have left a receipt.
    pub(crate) fn acknowledged(&self) -> usize {
        self.known.lock().expect("no panic").receipts.len()
    }

    /// How many requests of this kind were refused.
    pub(crate) fn refused(&self, what: &str) -> usize {
        let known = self.known.lock().expect("no panic");
        known.refused.get(what).copied().unwrap_or(0)
    }

    /// Comes to its end after so many more answers, which others wait for.
    pub(crate) async fn after_answers(&self, more: usize) {
        let answers = || self.known.lock().expect("no panic").answers;
        let enough = answers() + more;
        while answers() < enough {
            tokio::task::yield_now().await;
        }
    }

    /// How long the slowest answer took.
    pub(crate) fn slowest(&self) -> Duration {
        self.known.lock().expect("no panic").slowest
    }

    /// Looks up everything that was acknowledged: it is there, each in a place of
    /// its own.
    pub(crate) async fn check_with(&self, kms: &KmsProcess) {
        let known = std::mem::take(&mut *self.known.lock().expect("no panic"));
        let mut places = BTreeSet::new();
        for (receipt_id, operation) in &known.receipts {
            let found = kms
                .get_scoped(&format!("/kms/v1/receipts/{receipt_id}"))
                .await;
            let receipt = &found.ok()["receipt"];
            assert_eq!(receipt["receipt_id"], *receipt_id);
            assert_eq!(receipt["operation"], *operation);
            assert_eq!(receipt["kms_context"]["success"], true);
            let place = found.body["leaf_index"].as_u64().expect("a number");
            assert!(places.insert(place), "two receipts at {place}");
        }
        for (key_id, public_key) in &known.keys {
            let key = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
            assert_eq!(key.ok()["public_key"], *public_key);
        }
        *self.known.lock().expect("no panic") = known;
    }

    /// The same in the store of a service that has stopped, whose receipts are
    /// numbered without a gap.
    pub(crate) fn check_in(&self, folder: &Path) {
        let store = open_store(folder);
        let mut query = store
            .prepare("SELECT seq, leaf FROM receipts ORDER BY seq")
            .expect("a table of receipts");
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("rows");
        let mut ids = BTreeSet::new();
        for (place, row) in (0i64..).zip(rows) {
            let (seq, leaf): (i64, Vec<u8>) = row.expect("a row");
            assert_eq!(seq, place, "a gap");
            let leaf: Value = serde_json::from_slice(&leaf).expect("a receipt");
            ids.insert(leaf["receipt_id"].as_str().expect("an id").to_owned());
        }
        let known = self.known.lock().expect("no panic");
        for receipt_id in known.receipts.keys() {
            assert!(ids.contains(receipt_id), "{receipt_id} is lost");
        }
    }
}

impl Ask<'_> {
    async fn answer(self) {
        let started = Instant::now();
        let answer = Answer::of(self.request).await;
        let took = started.elapsed();
        let what = self.what;
        assert!(took < LATEST, "{what} took {took:?}: {}", answer.text);
        let mut known = self.load.known.lock().expect("no panic");
        known.answers += 1;
        known.slowest = known.slowest.max(took);
        if !matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
            // Nothing beside the error: what was made meanwhile is not given out.
            let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
            let is_named = ["ledger", "store"]
                .iter()
                .any(|name| *details == json!({ "dependency": name }));
            assert!(is_named, "{what}: {}", answer.text);
            *known.refused.entry(what).or_default() += 1;
            return;
        }
        if let Some(operation) = self.operation {
            let receipt_id = answer.body["receipt_id"].as_str().expect("an id");
            known.receipts.insert(receipt_id.to_owned(), operation);
        }
        if what == "generate" {
            let key_id = answer.body["key_id"].as_str().expect("an id");
            let public_key = answer.body["public_key"].clone();
            known.keys.insert(key_id.to_owned(), public_key);
        }
    }
}
