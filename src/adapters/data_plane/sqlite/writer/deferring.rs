//! What the writer does for what is written to its place later.

use super::super::InMemory;
use super::super::deferred::read_recent;
use super::{Writer, begin, commit};

/// What one transaction moves at a start: as much as behind so many receipts.
const AT_A_START: u64 = 8_192;

impl Writer {
    /// Reads what is not in its place yet.
    pub(super) fn read_recent(&mut self) -> rusqlite::Result<()> {
        let recent = read_recent(&self.connection)?;
        self.deferred.forget();
        self.in_memory.recent_uses.reset(recent.uses);
        self.in_memory.memtable.reset(recent.receipts, recent.end);
        Ok(())
    }

    /// Moves what is left of the last process, if it is enough: one that starts often
    /// would never come to the end of it.
    pub(super) fn move_what_is_left(&mut self) -> rusqlite::Result<()> {
        self.have_moved();
        while self.deferred.is_moving() {
            begin(&self.connection)?;
            self.deferred.step(&self.connection, AT_A_START)?;
            commit(&self.connection)?;
            self.have_moved();
        }
        Ok(())
    }

    /// Takes note that what was moved is durable, and begins a generation where it is time.
    pub(super) fn have_moved(&mut self) {
        let InMemory {
            memtable,
            recent_uses,
            ..
        } = &*self.in_memory;
        self.deferred
            .committed(&self.connection, memtable, recent_uses);
    }
}
