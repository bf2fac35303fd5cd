//! Receipts and the ledger.

use axum::http::Method;

use super::EVIDENCE;
use crate::domain::error::{AuthorizationFault, Dependency, KmsError, RequestFault};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::TilePath;
use crate::domain::wire::WireField as _;
use crate::http::dto::{
    ConsistencyAnswer, ConsistencyQuery, LedgerKeysAnswer, ListReceiptsQuery, ReceiptAnswer,
    ReceiptListAnswer, ScopeQuery,
};
use crate::http::openapi::failures::away;
use crate::http::openapi::operation::Operation;
use crate::http::openapi::texts::{SignedNote, TileBytes};

pub(super) fn operations() -> Vec<Operation> {
    let ledger = || vec![("ledger", away(Dependency::Ledger))];
    vec![
        Operation::new::<ReceiptAnswer>(EVIDENCE, Method::GET, "/kms/v1/receipts/{receipt_id}", "getReceipt", "Shows a receipt")
            .about("With its place, the proof that it is in the tree, and the checkpoint that the proof leads to.")
            .in_path::<ReceiptId>("receipt_id", "The receipt, by the `receipt_id` of any answer.")
            .query::<ScopeQuery>()
            .scoped()
            .fails(vec![("no_such_receipt", RequestFault::UnknownReceipt.into())])
            .fails(ledger()),
        Operation::new::<ReceiptListAnswer>(EVIDENCE, Method::GET, "/kms/v1/receipts", "listReceipts", "Lists the receipts of a scope")
            .about("By time, in pages. A page of a rare operation may end early, and even be empty, with a cursor to go on from.")
            .query::<ListReceiptsQuery>()
            .scoped()
            .fails(ledger()),
        Operation::new::<SignedNote>(EVIDENCE, Method::GET, "/kms/v1/ledger/checkpoint", "getCheckpoint", "The newest checkpoint of the ledger")
            .about("All that is under it is on the disk.")
            .of_media_type("text/plain; charset=utf-8"),
        Operation::new::<ConsistencyAnswer>(EVIDENCE, Method::GET, "/kms/v1/ledger/consistency", "proveConsistency", "Proves that the ledger only grew")
            .query::<ConsistencyQuery>()
            .fails(vec![("too_large", KmsError::field("to", "a size of at most 4711"))])
            .fails(ledger()),
        Operation::new::<LedgerKeysAnswer>(EVIDENCE, Method::GET, "/kms/v1/ledger/keys", "listLedgerKeys", "The keys that sign the ledger, and have signed it")
            .fails(ledger()),
        Operation::new::<TileBytes>(EVIDENCE, Method::GET, "/kms/v1/ledger/tile/{tile}", "getTile", "A tile of the ledger")
            .about("Hashes for any caller; the entries, which are the receipts of every tenant, for auditors.")
            .in_path::<TilePath>("tile", "Which tile: `<L>/<N>` or `entries/<N>`. Its slashes may stand as they are.")
            .of_media_type("application/octet-stream")
            .immutable()
            .fails(vec![
                ("malformed", KmsError::field("tile", TilePath::EXPECTED)),
                ("not_there", RequestFault::UnknownTile.into()),
                ("no_auditor", AuthorizationFault::NotAnAuditor.into()),
            ])
            .fails(ledger()),
    ]
}
