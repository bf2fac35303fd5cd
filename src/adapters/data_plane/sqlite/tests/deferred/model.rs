//! A store, and beside it what it should answer.

use super::*;

/// Makes what is committed while it is there fail: as it is written, as it is made
/// durable, or as something is moved to its place with it.
pub(super) const SABOTAGE: [&str; 3] = [
    "CREATE TRIGGER sabotage BEFORE INSERT ON receipts BEGIN SELECT raise(ROLLBACK, 'no'); END",
    "CREATE TABLE nobody (id INTEGER PRIMARY KEY);
     CREATE TABLE dangling (id REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED);
     CREATE TRIGGER sabotage AFTER INSERT ON receipts BEGIN INSERT INTO dangling VALUES (1); END",
    "CREATE TRIGGER sabotage BEFORE INSERT ON receipts_by_key
     BEGIN SELECT raise(ABORT, 'no'); END",
];

pub(super) const REPAIR: &str =
    "DROP TRIGGER sabotage; DROP TABLE IF EXISTS dangling; DROP TABLE IF EXISTS nobody";

/// A store, and what it should answer.
pub(super) struct Model {
    pub(super) folder: Folder,
    store: Option<SqliteDataPlane>,
    pub(super) keys: Vec<StoredKey>,
    /// By key, how often it was used.
    pub(super) uses: Vec<u64>,
    /// In the order of their places.
    pub(super) receipts: Vec<SignedReceipt>,
}

const TENANTS: [&str; 3] = ["a", "b", "c"];

impl Model {
    pub(super) async fn new() -> Self {
        let mut model = Self {
            folder: Folder::new(),
            store: None,
            keys: Vec::new(),
            uses: Vec::new(),
            receipts: Vec::new(),
        };
        model.reopen();
        for _ in 0..4 {
            let key = stored_key();
            insert(model.store(), key.clone()).await;
            model.keys.push(key);
            model.uses.push(0);
        }
        // Those that the insertions left.
        model.receipts = model.kept().await;
        model
    }

    pub(super) fn store(&self) -> &SqliteDataPlane {
        self.store.as_ref().expect("it is open")
    }

    pub(super) fn reopen(&mut self) {
        self.reopen_with(20);
    }

    pub(super) fn reopen_with(&mut self, generation: u64) {
        // One process at a time.
        self.store = None;
        self.store = Some(self.folder.open_with(SqliteOptions {
            generation,
            ..SqliteOptions::default()
        }));
    }

    pub(super) async fn kept(&self) -> Vec<SignedReceipt> {
        let leaves = self.store().read_leaves(0, 1_000).await.expect("available");
        let read = |leaf: Vec<u8>| {
            let json: serde_json::Value = serde_json::from_slice(&leaf).expect("JSON");
            let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
            SignedReceipt {
                receipt_id: text(&json["receipt_id"]).parse().expect("an id"),
                scope: scope(&text(&json["tenant_id"])),
                ts: text(&json["ts"]).parse().expect("a time"),
                operation: text(&json["operation"]).parse().expect("an operation"),
                key_id: json["kms_context"]["key_id"].as_str().map(str::to_owned),
                signer_key_id: "signer".into(),
                leaf,
            }
        };
        leaves.into_iter().map(read).collect()
    }

    /// A few receipts, of any time about now.
    pub(super) fn some(&self) -> Vec<SignedReceipt> {
        let place = self.receipts.len() as u64;
        let one = |_| {
            let mut made = receipt();
            made.context.key_id = match random(5) {
                0 => None,
                1 => Some("no such key".to_owned()),
                // Written as nobody writes an id.
                2 => Some("018F6A1E-7f3a-7c3d-9a51-3b1f0c6a2d4e".to_owned()),
                _ => Some(format!("018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4{}", random(3))),
            };
            if random(3) == 0 {
                made.operation = ReceiptOperation::Decrypt;
            }
            signed(Receipt {
                ts: time(place + random(50)),
                scope: scope(TENANTS[random(3) as usize]),
                ..made
            })
        };
        (0..1 + random(4)).map(one).collect()
    }

    pub(super) async fn append(&mut self) {
        let receipts = self.some();
        let transaction = Transaction {
            receipts: receipts.clone(),
            ..Transaction::default()
        };
        self.store().commit(transaction).await.expect("kept");
        self.receipts.extend(receipts);
    }

    pub(super) async fn use_one(&mut self) {
        let which = random(self.keys.len() as u64) as usize;
        let record = &self.keys[which].record;
        let counter = self.store().usage_counter(record.key_id).await;
        let reserved = counter.expect("available").reserve(now(), u64::MAX, true);
        let transaction = use_of(record, reserved.expect("no limit"));
        self.receipts.extend(transaction.receipts.iter().cloned());
        self.store().commit(transaction).await.expect("kept");
        self.uses[which] += 1;
    }

    pub(super) async fn fail(&mut self, how: &str) {
        let foreign = self.folder.foreign_connection();
        foreign.execute_batch(how).expect("valid SQL");
        let record = &self.keys[0].record;
        let counter = self.store().usage_counter(record.key_id).await;
        let reserved = counter.expect("available").reserve(now(), u64::MAX, true);
        let used = use_of(record, reserved.expect("no limit"));
        let receipts = used.receipts.clone();
        match self.store().commit(used).await {
            // Nothing was to be moved.
            Ok(()) => {
                assert_eq!(how, SABOTAGE[2]);
                self.receipts.extend(receipts);
                self.uses[0] += 1;
            }
            refused => assert!(is_unavailable(&refused), "{refused:?}"),
        }
        foreign.execute_batch(REPAIR).expect("valid SQL");
    }

    /// What a query should find, by place.
    pub(super) fn found(&self, query: &ReceiptQuery) -> Vec<u64> {
        let is_wanted = |receipt: &SignedReceipt| {
            receipt.scope == query.scope
                && (query.key_id.is_none() || receipt.key_id == query.key_id)
                && query
                    .operation
                    .is_none_or(|wanted| receipt.operation == wanted)
                && query.from.is_none_or(|from| receipt.ts >= from)
                && query.until.is_none_or(|until| receipt.ts < until)
        };
        let mut found: Vec<(Timestamp, u64)> = (0..)
            .zip(&self.receipts)
            .filter(|(_, receipt)| is_wanted(receipt))
            .map(|(place, receipt)| (receipt.ts, place))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, place)| place).collect()
    }

    pub(super) async fn is_answered(&self) {
        let size = self.receipts.len() as u64;
        for tenant in TENANTS {
            for key_id in [
                None,
                Some("no such key"),
                Some("018F6A1E-7f3a-7c3d-9a51-3b1f0c6a2d4e"),
                Some("018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e"),
                Some("018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d41"),
            ] {
                let query = ReceiptQuery {
                    scope: scope(tenant),
                    key_id: key_id.map(str::to_owned),
                    operation: (random(3) == 0).then(|| ReceiptOperation::Decrypt.name()),
                    from: (random(2) == 0).then(|| time(random(size))),
                    until: (random(2) == 0).then(|| time(random(size + 50))),
                    after: None,
                    limit: [7, 1_000][random(2) as usize],
                };
                assert_eq!(
                    places(self.store(), query.clone()).await,
                    self.found(&query)
                );
            }
        }
        for (key, uses) in self.keys.iter().zip(&self.uses) {
            let count = self.store().usage_count(key.record.key_id).await;
            let count = count.expect("available");
            assert_eq!((count.used, count.encryptions), (*uses, *uses));
        }
        let foreign = self.folder.foreign_connection();
        assert_eq!(first_unlisted(&foreign).expect("readable"), None);
    }
}
