//! What the writer does for the ledger beside appending: it begins it, lets a new
//! key take over, and finds out what became of a commit that failed.

use std::sync::Arc;

use super::super::fault::StoreFault;
use super::super::ledger::{begin as ledger_begin, rows};
use super::{Writer, begin, commit, unavailable};
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::{LedgerFault, LedgerHead, LedgerKey};

impl Writer {
    /// Verifies the ledger in a transaction of its own, which also lays out a new one.
    pub(super) fn begin_ledger(
        &mut self,
        signer: Arc<dyn EvidenceLedger>,
    ) -> Result<(), LedgerFault> {
        let failed = |error: rusqlite::Error| LedgerFault::Unavailable(unavailable(error));
        let begun = begin(&self.connection)
            .map_err(failed)
            .and_then(|()| ledger_begin::begin(&self.connection, &*signer))
            .and_then(|head| commit(&self.connection).map_err(failed).map(|()| head));
        match begun {
            Ok(head) => {
                self.in_memory.ledger_head.store(Arc::new(head));
                self.signer = Some(signer);
                Ok(())
            }
            Err(fault) => {
                self.roll_back();
                Err(fault)
            }
        }
    }

    /// Keeps the checkpoint by which the signer's next key takes over, and lets it.
    pub(super) fn hand_over(&mut self) -> Result<(), StoreFault> {
        let signer = self.signer.clone().ok_or(StoreFault::LedgerNotBegun)?;
        match self.keep_handover(&*signer) {
            Ok(Some(head)) => {
                self.in_memory.ledger_head.store(Arc::new(head));
                signer.complete_handover();
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(fault) => {
                self.roll_back();
                Err(fault)
            }
        }
    }

    fn keep_handover(
        &mut self,
        signer: &dyn EvidenceLedger,
    ) -> Result<Option<LedgerHead>, StoreFault> {
        begin(&self.connection)?;
        if self.in_doubt {
            self.settle_doubt(signer)?;
        }
        let tree = self.in_memory.ledger_head.load().tree.clone();
        let checkpoint = tree.checkpoint();
        let Some(handover) = signer.begin_handover(&checkpoint) else {
            self.roll_back();
            return Ok(None);
        };
        let note = handover.note.to_string();
        rows::insert_key(
            &self.connection,
            &LedgerKey {
                public_key: handover.public_key,
                from_size: checkpoint.size,
                handover: Some(note.clone()),
            },
        )?;
        rows::write_head(&self.connection, &note)?;
        rows::keep_checkpoint(&self.connection, checkpoint.size, &note)?;
        if let Err(error) = commit(&self.connection) {
            self.in_doubt = true;
            return Err(error.into());
        }
        Ok(Some(LedgerHead::new(tree, checkpoint, note)))
    }

    /// Reads anew what a failed commit may have changed: how many keys there are, what
    /// is not in its place yet, the ledger's head, and which key signs.
    pub(super) fn settle_doubt(&mut self, signer: &dyn EvidenceLedger) -> Result<(), StoreFault> {
        self.read_key_counts()?;
        self.known.forget();
        self.read_recent()?;
        let newest = rows::read_keys(&self.connection)?.pop();
        if newest.is_some_and(|key| key.public_key != signer.public_key()) {
            signer.complete_handover();
        }
        let head = ledger_begin::begin(&self.connection, signer).map_err(|fault| match fault {
            LedgerFault::Flawed(flaw) => StoreFault::LedgerFlawed(flaw),
            other => StoreFault::LedgerUnsettled(Arc::new(other)),
        })?;
        self.in_memory.ledger_head.store(Arc::new(head));
        self.in_doubt = false;
        Ok(())
    }
}
