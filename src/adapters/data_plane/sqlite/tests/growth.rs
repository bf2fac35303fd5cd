//! What a large ledger costs: no more than a small one, at the start and with each
//! receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::{Folder, one_receipt};
use crate::adapters::data_plane::conformance::{receipt_in, scope, signer};
use crate::adapters::data_plane::sqlite::deferred::set_listed_to;
use crate::adapters::data_plane::sqlite::ledger::rows;
use crate::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions};
use crate::domain::ledger::{Tree, TreeHash};
use crate::ports::data_plane::DataPlane as _;
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::LedgerStore as _;

const FEW: u64 = 1_000;

/// As many as a test can wait for, with as many at each level of the tree's edge:
/// a start reads those, at most 255 of each.
const MANY: u64 = FEW + 3 * 65_536;

/// Lays a ledger into a store that has none: real receipts where a start looks at
/// them, and something shorter before.
fn lay_in(folder: &Folder, number: u64) {
    drop(folder.open());
    let mut store = folder.foreign_connection();
    store
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -100000")
        .expect("set");
    let building = store.transaction().expect("nobody writes");
    let checks = ["receipts_are_dense", "receipts_are_not_replaced"].map(|name| {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
        let sql: String = building
            .query_row(sql, [name], |row| row.get(0))
            .expect("a trigger");
        building
            .execute_batch(&format!("DROP TRIGGER {name}"))
            .expect("dropped");
        sql
    });
    building
        .execute(
            "INSERT INTO scopes VALUES (1, ?1, 'prod', 'laptop')",
            [scope("t").tenant_id.as_str()],
        )
        .expect("inserted");
    let real_from = number - Tree::edge_width(number, 0) as u64;
    let (mut tree, mut complete) = (Tree::new(), Vec::new());
    for place in 0..number {
        let leaf = match place {
            place if place < real_from => b"a receipt that nobody looks at".to_vec(),
            _ => receipt_in(&scope("t")).leaf,
        };
        insert(&building, place, &leaf);
        tree.push(TreeHash::of_leaf(&leaf), &mut complete);
        for tile in complete.drain(..) {
            rows::insert_tile(&building, &tile).expect("inserted");
        }
    }
    building
        .execute_batch(
            "INSERT INTO receipts_by_time SELECT scope, ts, seq, operation FROM receipts;
             INSERT INTO receipts_by_key SELECT scope, key_id, ts, seq, operation FROM receipts;",
        )
        .expect("listed");
    set_listed_to(&building, number).expect("written");
    let note = signer().sign_checkpoint(&tree.checkpoint()).to_string();
    rows::write_head(&building, &note).expect("written");
    for check in checks {
        building.execute_batch(&check).expect("valid SQL");
    }
    building.commit().expect("committed");
}

fn insert(store: &Connection, place: u64, leaf: &[u8]) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&place.to_be_bytes());
    let ts = 1_772_366_400_000_000 + place as i64 * 1_000;
    store
        .prepare_cached("INSERT INTO receipts VALUES (?1, ?2, 1, ?3, 'encrypt', ?4, ?5)")
        .expect("valid SQL")
        .execute(params![
            place as i64,
            id,
            ts,
            format!("key-{}", place % 100),
            leaf
        ])
        .expect("inserted");
}

/// The shortest of a few times: what it takes when nobody is in the way.
struct Cost {
    start: Duration,
    append: Duration,
}

async fn cost(folder: &Folder, size: u64) -> Cost {
    let mut cost = Cost {
        start: Duration::MAX,
        append: Duration::MAX,
    };
    let mut size = size;
    for _ in 0..7 {
        let signer = Arc::new(signer());
        let started = Instant::now();
        let store = SqliteDataPlane::open(&folder.database(), SqliteOptions::default())
            .expect("a database of ours");
        let begun = store.begin_ledger(signer).await;
        cost.start = cost.start.min(started.elapsed());
        begun.expect("a ledger that verifies");
        assert_eq!(store.ledger_size(), size);
        for _ in 0..20 {
            let started = Instant::now();
            store
                .commit(one_receipt())
                .await
                .expect("nothing conflicts");
            cost.append = cost.append.min(started.elapsed());
        }
        size += 20;
    }
    cost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_an_append_take_the_same_time_however_many_receipts_there_are() {
    let (few, many) = (Folder::new(), Folder::new());
    lay_in(&few, FEW);
    lay_in(&many, MANY);
    let (small, large) = (cost(&few, FEW).await, cost(&many, MANY).await);
    let allowed = |small: Duration| small * 2 + Duration::from_millis(3);
    for (what, small, large) in [
        ("start", small.start, large.start),
        ("append", small.append, large.append),
    ] {
        assert!(large <= allowed(small), "{what}: {small:?} and {large:?}");
    }
}
