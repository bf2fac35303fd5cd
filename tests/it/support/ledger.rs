//! What the service leaves in its data folder.

use std::path::Path;

use ed25519_dalek::SigningKey;
use rusqlite::Connection;

/// The key that signs receipts.
pub(crate) fn ledger_key(folder: &Path) -> SigningKey {
    let seed = std::fs::read(folder.join("ledger.key")).expect("a key of the ledger");
    SigningKey::from_bytes(&seed.try_into().expect("32 bytes"))
}

/// The store of a service that has stopped.
pub(crate) fn open_store(folder: &Path) -> Connection {
    Connection::open(folder.join("kms.db")).expect("a store")
}

/// Every receipt of a service that has stopped, in the order of the ledger.
pub(crate) fn leaves(folder: &Path) -> Vec<String> {
    let store = open_store(folder);
    let mut statement = store
        .prepare("SELECT leaf FROM receipts ORDER BY seq")
        .expect("a table of receipts");
    let rows = statement
        .query_map([], |row| row.get::<_, Vec<u8>>(0))
        .expect("rows");
    rows.map(|leaf| String::from_utf8(leaf.expect("a row")).expect("text"))
        .collect()
}
