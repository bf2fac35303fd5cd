//! The ledger of the data plane in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryDataPlane, MemoryFault};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{Tile, TileId, Tree, TreeHash};
use crate::domain::receipt::SignedReceipt;
use crate::domain::scope::Scope;
use crate::ports::data_plane::{CommitError, Unavailable};
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::{
    KeptReceipt, LedgerFault, LedgerHead, LedgerKey, LedgerStore, ReceiptPage, ReceiptPlace,
    ReceiptQuery,
};

#[derive(Default)]
pub(super) struct Ledger {
    signer: Option<Arc<dyn EvidenceLedger>>,
    receipts: Vec<SignedReceipt>,
    places: HashMap<ReceiptId, usize>,
    tree: Tree,
    tiles: BTreeMap<TileId, Arc<Tile>>,
    keys: Vec<LedgerKey>,
    head: Option<Arc<LedgerHead>>,
}

impl Ledger {
    fn begin(&mut self, signer: Arc<dyn EvidenceLedger>) {
        self.keys = vec![LedgerKey {
            public_key: signer.public_key(),
            from_size: 0,
            handover: None,
        }];
        self.signer = Some(signer);
        self.head = None;
    }

    pub(super) fn contains(&self, receipt_id: ReceiptId) -> bool {
        self.places.contains_key(&receipt_id)
    }

    /// These receipts under the key that signs now.
    pub(super) fn signed_now(
        &self,
        receipts: &[SignedReceipt],
    ) -> Result<Vec<SignedReceipt>, CommitError> {
        let signer = self.signer.as_ref();
        let signer = signer.ok_or(Unavailable::from(MemoryFault::LedgerNotBegun))?;
        receipts
            .iter()
            .map(|receipt| {
                if signer.is_current(receipt) {
                    return Ok(receipt.clone());
                }
                let again = signer.sign_again(receipt);
                again.map_err(|error| Unavailable(Box::new(error)).into())
            })
            .collect()
    }

    pub(super) fn append(&mut self, receipts: Vec<SignedReceipt>) {
        let mut complete = Vec::new();
        for receipt in receipts {
            self.tree
                .push(TreeHash::of_leaf(&receipt.leaf), &mut complete);
            self.places.insert(receipt.receipt_id, self.receipts.len());
            self.receipts.push(receipt);
        }
        let complete = complete.into_iter();
        self.tiles
            .extend(complete.map(|complete| (complete.id, Arc::new(complete.tile))));
        // Signed when somebody asks for it.
        self.head = None;
    }

    fn head(&mut self) -> Arc<LedgerHead> {
        if let Some(head) = &self.head {
            return Arc::clone(head);
        }
        let checkpoint = self.tree.checkpoint();
        let note = self.signer.as_ref().map_or_else(String::new, |signer| {
            signer.sign_checkpoint(&checkpoint).to_string()
        });
        let head = Arc::new(LedgerHead::new(self.tree.clone(), checkpoint, note));
        self.head = Some(Arc::clone(&head));
        head
    }

    fn kept(&self, place: usize) -> KeptReceipt {
        KeptReceipt {
            leaf_index: place as u64,
            leaf: self.receipts[place].leaf.clone(),
        }
    }
}

impl MemoryDataPlane {
    /// An empty store whose ledger has begun with this signer.
    pub fn with_ledger(signer: Arc<dyn EvidenceLedger>) -> Self {
        let store = Self::new();
        store.lock().ledger.begin(signer);
        store
    }
}

#[async_trait]
impl LedgerStore for MemoryDataPlane {
    async fn begin_ledger(&self, signer: Arc<dyn EvidenceLedger>) -> Result<(), LedgerFault> {
        self.open()?.ledger.begin(signer);
        Ok(())
    }

    async fn hand_over_ledger(&self) -> Result<(), Unavailable> {
        let mut state = self.open()?;
        let ledger = &mut state.ledger;
        let signer = ledger.signer.clone().ok_or(MemoryFault::LedgerNotBegun)?;
        let checkpoint = ledger.tree.checkpoint();
        if let Some(handover) = signer.begin_handover(&checkpoint) {
            let note = handover.note.to_string();
            ledger.keys.push(LedgerKey {
                public_key: handover.public_key,
                from_size: checkpoint.size,
                handover: Some(note.clone()),
            });
            let head = LedgerHead::new(ledger.tree.clone(), checkpoint, note);
            ledger.head = Some(Arc::new(head));
            signer.complete_handover();
        }
        Ok(())
    }

    fn ledger_head(&self) -> Arc<LedgerHead> {
        self.lock().ledger.head()
    }

    async fn read_tiles(
        &self,
        tiles: Vec<TileId>,
    ) -> Result<BTreeMap<TileId, Arc<Tile>>, Unavailable> {
        let state = self.open()?;
        let complete = &state.ledger.tiles;
        Ok(tiles
            .into_iter()
            .filter_map(|tile| Some((tile, Arc::clone(complete.get(&tile)?))))
            .collect())
    }

    async fn read_leaves(&self, first: u64, number: usize) -> Result<Vec<Vec<u8>>, Unavailable> {
        let state = self.open()?;
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let behind = state.ledger.receipts.iter().skip(first);
        Ok(behind
            .take(number)
            .map(|receipt| receipt.leaf.clone())
            .collect())
    }

    async fn find_receipt(
        &self,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<Option<KeptReceipt>, Unavailable> {
        let state = self.open()?;
        let ledger = &state.ledger;
        let place = ledger.places.get(&receipt_id).copied();
        Ok(place
            .filter(|place| ledger.receipts[*place].scope == *scope)
            .map(|place| ledger.kept(place)))
    }

    async fn list_receipts(&self, query: ReceiptQuery) -> Result<ReceiptPage, Unavailable> {
        let state = self.open()?;
        let ledger = &state.ledger;
        let is_wanted = |receipt: &SignedReceipt| {
            receipt.scope == query.scope
                && (query.key_id.is_none() || query.key_id == receipt.key_id)
                && query.operation.is_none_or(|name| name == receipt.operation)
                && query.from.is_none_or(|from| from <= receipt.ts)
                && query.until.is_none_or(|until| receipt.ts < until)
        };
        let place_of = |place: usize| ReceiptPlace {
            microseconds: ledger.receipts[place].ts.microseconds(),
            leaf_index: place as u64,
        };
        let mut places: Vec<usize> = (0..ledger.receipts.len())
            .filter(|place| is_wanted(&ledger.receipts[*place]))
            .filter(|place| query.after.is_none_or(|after| after < place_of(*place)))
            .collect();
        places.sort_by_key(|place| place_of(*place));
        let has_more = places.len() > query.limit;
        places.truncate(query.limit);
        Ok(ReceiptPage {
            next: places.last().copied().filter(|_| has_more).map(place_of),
            receipts: places.into_iter().map(|place| ledger.kept(place)).collect(),
        })
    }

    async fn newest_receipt(&self) -> Result<Option<KeptReceipt>, Unavailable> {
        let state = self.open()?;
        let last = state.ledger.receipts.len().checked_sub(1);
        Ok(last.map(|place| state.ledger.kept(place)))
    }

    async fn ledger_keys(&self) -> Result<Vec<LedgerKey>, Unavailable> {
        Ok(self.open()?.ledger.keys.clone())
    }
}
