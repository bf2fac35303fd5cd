//! A store in which things happen at the worst moment: any call can fail or never
//! be answered, done or not, and others can come between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::adapters::data_plane::memory::MemoryDataPlane;
use crate::domain::ids::{KeyId, KeyRef, ReceiptId, TrustAnchorId};
use crate::domain::key::{HsmBackendName, StoredKey};
use crate::domain::ledger::{Tile, TileId};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::TrustAnchor;
use crate::domain::usage::{UsageCount, UsageCounter};
use crate::ports::data_plane::{
    AnchorPage, AnchorQuery, Change, CommitError, DataPlane, KeyCounts, KeyPage, KeyQuery,
    LineQuery, Transaction, Unavailable,
};
use crate::ports::handle_store::{HandlePage, HandleReplacement, HandleStore};
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::{
    KeptReceipt, LedgerFault, LedgerHead, LedgerKey, LedgerStore, ReceiptPage, ReceiptQuery,
};
use crate::ports::upkeep_store::{DueKey, DueKind, KeyIntent, Lease, LeaseHolder, UpkeepStore};

/// What happens when the next transaction is to be kept.
pub(super) enum Next {
    /// The store fails.
    Fail,
    /// The store does it, and fails to say so.
    KeepAndFail,
    /// The store does it, and never says so.
    Stall,
    /// The store does it, and somebody removes the anchor at once.
    ThenAnchorGone,
    /// Somebody else's transaction comes first.
    After(Transaction),
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails.
    Fail,
    /// It and all that come after it fail.
    FailFromHere,
    /// It is done, and fails.
    DoAndFail,
    /// It is not done, and never answered.
    Stall,
    /// It is done, and never answered.
    DoAndStall,
}

impl Fault {
    pub(super) const ALL: [Self; 5] = [
        Self::Fail,
        Self::FailFromHere,
        Self::DoAndFail,
        Self::Stall,
        Self::DoAndStall,
    ];
}

/// The calls since somebody began to count, and what is to go wrong.
#[derive(Default)]
struct Calls {
    names: Vec<&'static str>,
    fault: Option<(usize, Fault)>,
}

pub(super) struct EventfulStore {
    pub(super) store: MemoryDataPlane,
    next: Mutex<Option<Next>>,
    calls: Mutex<Calls>,
    stalled: Notify,
}

impl EventfulStore {
    pub(super) fn new(store: MemoryDataPlane) -> Self {
        Self {
            store,
            next: Mutex::default(),
            calls: Mutex::default(),
            stalled: Notify::new(),
        }
    }

    pub(super) fn next(&self, next: Next) {
        *self.next.lock().unwrap() = Some(next);
    }

    /// Counts calls from now on, and lets the one at `place`, from 0, go wrong.
    pub(super) fn count_calls(&self, fault: Option<(usize, Fault)>) {
        *self.calls.lock().unwrap() = Calls {
            names: Vec::new(),
            fault,
        };
    }

    /// The calls that were counted, by their methods; nothing goes wrong any longer.
    pub(super) fn counted_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap()).names
    }

    /// Comes when a call is not answered.
    pub(super) async fn stalled(&self) {
        self.stalled.notified().await;
    }

    pub(super) async fn leaves(&self, scope: &Scope, ids: &[ReceiptId]) -> Vec<KeptReceipt> {
        let mut leaves = Vec::new();
        for id in ids {
            leaves.extend(self.store.find_receipt(scope, *id).await.expect("memory"));
        }
        leaves
    }

    fn fault_of(&self, name: &'static str) -> Option<Fault> {
        let mut calls = self.calls.lock().unwrap();
        let place = calls.names.len();
        calls.names.push(name);
        match calls.fault {
            Some((faulty, Fault::FailFromHere)) if faulty <= place => Some(Fault::Fail),
            Some((faulty, fault)) if faulty == place => Some(fault),
            _ => None,
        }
    }

    async fn call<T, E: From<Unavailable>>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let fault = self.fault_of(name);
        self.suffer(fault, work).await
    }

    async fn suffer<T, E: From<Unavailable>>(
        &self,
        fault: Option<Fault>,
        work: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        match fault {
            None => return work.await,
            Some(Fault::Fail | Fault::FailFromHere) => {}
            // The store's own answer, whatever it was, is what gets lost.
            Some(Fault::DoAndFail) => drop(work.await),
            Some(stall @ (Fault::Stall | Fault::DoAndStall)) => {
                if stall == Fault::DoAndStall {
                    drop(work.await);
                }
                self.stalled.notify_one();
                std::future::pending::<()>().await;
            }
        }
        Err(Unavailable("the disk is full, or took too long".into()).into())
    }
}

#[async_trait]
impl DataPlane for EventfulStore {
    async fn find_key(
        &self,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Option<Arc<StoredKey>>, Unavailable> {
        self.call("find_key", self.store.find_key(scope, key)).await
    }

    async fn list_keys(&self, query: KeyQuery) -> Result<KeyPage, Unavailable> {
        self.call("list_keys", self.store.list_keys(query)).await
    }

    async fn list_line(&self, query: LineQuery) -> Result<KeyPage, Unavailable> {
        self.call("list_line", self.store.list_line(query)).await
    }

    async fn usage_counter(&self, key_id: KeyId) -> Result<Arc<UsageCounter>, Unavailable> {
        self.call("usage_counter", self.store.usage_counter(key_id))
            .await
    }

    async fn usage_count(&self, key_id: KeyId) -> Result<UsageCount, Unavailable> {
        self.call("usage_count", self.store.usage_count(key_id))
            .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        let next = self.next.lock().unwrap().take();
        let counted = self.fault_of("commit");
        let fault = match next {
            None => counted,
            Some(Next::Fail) => Some(Fault::Fail),
            Some(Next::KeepAndFail) => Some(Fault::DoAndFail),
            Some(Next::Stall) => Some(Fault::DoAndStall),
            Some(Next::ThenAnchorGone) => {
                let removals = transaction
                    .changes
                    .iter()
                    .filter_map(|change| match change {
                        Change::InsertTrustAnchor(anchor) => Some(Change::RemoveTrustAnchor {
                            scope: anchor.scope.clone(),
                            trust_anchor_id: anchor.trust_anchor_id,
                        }),
                        _ => None,
                    });
                let removal = Transaction {
                    changes: removals.collect(),
                    ..Transaction::default()
                };
                self.store.commit(transaction).await?;
                return self.store.commit(removal).await;
            }
            Some(Next::After(first)) => {
                self.store.commit(first).await?;
                None
            }
        };
        self.suffer(fault, self.store.commit(transaction)).await
    }

    async fn pin(&self, name: &'static str, value: &[u8]) -> Result<Vec<u8>, Unavailable> {
        self.call("pin", self.store.pin(name, value)).await
    }

    async fn probe_write(&self) -> Result<(), Unavailable> {
        self.call("probe_write", self.store.probe_write()).await
    }

    async fn find_trust_anchor(
        &self,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<Option<TrustAnchor>, Unavailable> {
        let found = self.store.find_trust_anchor(scope, trust_anchor_id);
        self.call("find_trust_anchor", found).await
    }

    async fn list_trust_anchors(&self, query: AnchorQuery) -> Result<AnchorPage, Unavailable> {
        self.call("list_trust_anchors", self.store.list_trust_anchors(query))
            .await
    }

    async fn all_trust_anchors(&self) -> Result<Vec<TrustAnchor>, Unavailable> {
        self.call("all_trust_anchors", self.store.all_trust_anchors())
            .await
    }

    async fn is_grant_spent(&self, token_id: &str) -> Result<bool, Unavailable> {
        self.call("is_grant_spent", self.store.is_grant_spent(token_id))
            .await
    }

    async fn count_trust_anchors(&self) -> Result<u64, Unavailable> {
        self.call("count_trust_anchors", self.store.count_trust_anchors())
            .await
    }

    fn key_counts(&self) -> KeyCounts {
        self.store.key_counts()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl UpkeepStore for EventfulStore {
    async fn keys_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueKey>, Unavailable> {
        let due = self.store.keys_due(kind, at, limit);
        self.call("keys_due", due).await
    }

    async fn count_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        most: usize,
    ) -> Result<u64, Unavailable> {
        let number = self.store.count_due(kind, at, most);
        self.call("count_due", number).await
    }

    async fn keys_held(
        &self,
        backend: HsmBackendName,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Scope)>, Unavailable> {
        let held = self.store.keys_held(backend, after, limit);
        self.call("keys_held", held).await
    }

    async fn take_lease(
        &self,
        name: &'static str,
        now: Timestamp,
        lease: Lease,
    ) -> Result<bool, Unavailable> {
        let taken = self.store.take_lease(name, now, lease);
        self.call("take_lease", taken).await
    }

    async fn release_lease(
        &self,
        name: &'static str,
        holder: LeaseHolder,
    ) -> Result<(), Unavailable> {
        let released = self.store.release_lease(name, holder);
        self.call("release_lease", released).await
    }

    async fn begin_key(&self, intent: KeyIntent) -> Result<(), Unavailable> {
        self.call("begin_key", self.store.begin_key(intent)).await
    }

    async fn open_intents(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeyIntent>, Unavailable> {
        let open = self.store.open_intents(before, limit);
        self.call("open_intents", open).await
    }

    async fn abandon_key(&self, key_id: KeyId) -> Result<bool, Unavailable> {
        self.call("abandon_key", self.store.abandon_key(key_id))
            .await
    }

    async fn end_intent(&self, key_id: KeyId) -> Result<(), Unavailable> {
        self.call("end_intent", self.store.end_intent(key_id)).await
    }
}

#[async_trait]
impl HandleStore for EventfulStore {
    async fn list_handles(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<HandlePage, Unavailable> {
        self.call("list_handles", self.store.list_handles(after, limit))
            .await
    }

    async fn replace_handles(
        &self,
        replacements: Vec<HandleReplacement>,
    ) -> Result<u64, Unavailable> {
        let replaced = self.store.replace_handles(replacements);
        self.call("replace_handles", replaced).await
    }

    async fn wipe_replaced(&self) -> Result<bool, Unavailable> {
        self.call("wipe_replaced", self.store.wipe_replaced()).await
    }

    async fn move_pin(
        &self,
        name: &'static str,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<u8>, Unavailable> {
        self.call("move_pin", self.store.move_pin(name, from, to))
            .await
    }
}

#[async_trait]
impl LedgerStore for EventfulStore {
    async fn begin_ledger(&self, signer: Arc<dyn EvidenceLedger>) -> Result<(), LedgerFault> {
        self.call("begin_ledger", self.store.begin_ledger(signer))
            .await
    }

    async fn hand_over_ledger(&self) -> Result<(), Unavailable> {
        self.call("hand_over_ledger", self.store.hand_over_ledger())
            .await
    }

    fn ledger_head(&self) -> Arc<LedgerHead> {
        self.store.ledger_head()
    }

    async fn read_tiles(
        &self,
        tiles: Vec<TileId>,
    ) -> Result<BTreeMap<TileId, Arc<Tile>>, Unavailable> {
        self.call("read_tiles", self.store.read_tiles(tiles)).await
    }

    async fn read_leaves(&self, first: u64, number: usize) -> Result<Vec<Vec<u8>>, Unavailable> {
        self.call("read_leaves", self.store.read_leaves(first, number))
            .await
    }

    async fn find_receipt(
        &self,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<Option<KeptReceipt>, Unavailable> {
        let found = self.store.find_receipt(scope, receipt_id);
        self.call("find_receipt", found).await
    }

    async fn list_receipts(&self, query: ReceiptQuery) -> Result<ReceiptPage, Unavailable> {
        self.call("list_receipts", self.store.list_receipts(query))
            .await
    }

    async fn newest_receipt(&self) -> Result<Option<KeptReceipt>, Unavailable> {
        self.call("newest_receipt", self.store.newest_receipt())
            .await
    }

    async fn ledger_keys(&self) -> Result<Vec<LedgerKey>, Unavailable> {
        self.call("ledger_keys", self.store.ledger_keys()).await
    }
}
