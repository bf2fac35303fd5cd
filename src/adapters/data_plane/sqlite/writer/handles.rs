//! What the writer does for handles that are replaced, and for the pin that says
//! what they are sealed under.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::super::fault::StoreFault;
use super::super::handles::{self, ReplacedHandle};
use super::super::queue::HandleJob;
use super::{Writer, begin, commit, unavailable};
use crate::domain::ids::KeyRef;
use crate::ports::data_plane::Unavailable;
use crate::ports::handle_store::HandleReplacement;

/// How long whoever reads may hold up the emptying of the log. Requests wait
/// meanwhile, and it is tried again.
const READERS_WAIT: Duration = Duration::from_millis(20);

impl Writer {
    pub(super) fn do_with_handles(&mut self, job: HandleJob) {
        // Whoever no longer waits needs no answer.
        match job {
            HandleJob::Replace(replacements, answer) => {
                if !answer.is_closed() {
                    let _ = answer.send(self.replace(&replacements).map_err(Unavailable::from));
                }
            }
            HandleJob::WipeReplaced(answer) => {
                let _ = answer.send(self.wipe_replaced().map_err(unavailable));
            }
            HandleJob::MovePin(name, from, to, answer) => {
                let moved = self.move_pin(name, &from, &to);
                let _ = answer.send(moved.map_err(Unavailable::from));
            }
        }
    }

    fn replace(&mut self, replacements: &[HandleReplacement]) -> Result<u64, StoreFault> {
        let written =
            begin(&self.connection).and_then(|()| handles::replace(&self.connection, replacements));
        let replaced = match written {
            Ok(replaced) => replaced,
            Err(error) => {
                self.roll_back();
                return Err(error.into());
            }
        };
        let committed = commit(&self.connection);
        // A commit that fails may be there all the same: what is in memory is read anew.
        self.invalidate_replaced(&replaced);
        if let Err(error) = committed {
            self.roll_back();
            return Err(error.into());
        }
        Ok(replaced.len() as u64)
    }

    fn invalidate_replaced(&self, replaced: &[ReplacedHandle]) {
        for one in replaced {
            let alias = one.alias.clone().map(KeyRef::Alias);
            for name in alias.into_iter().chain([KeyRef::Id(one.key_id)]) {
                self.in_memory.keys.invalidate(&(one.scope.clone(), name));
            }
        }
    }

    /// The database has the new handles in the places of the old; the log may have
    /// pages from before.
    fn wipe_replaced(&mut self) -> rusqlite::Result<bool> {
        self.log_holds_secret = true;
        self.try_truncate_log(READERS_WAIT)?;
        Ok(!self.log_holds_secret)
    }

    fn move_pin(
        &mut self,
        name: &'static str,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<u8>, StoreFault> {
        let moved = begin(&self.connection)
            .and_then(|()| {
                self.connection.execute(
                    "UPDATE meta SET value = ?3 WHERE name = ?1 AND value = ?2",
                    params![name, from, to],
                )
            })
            .and_then(|_| commit(&self.connection))
            .and_then(|()| self.read_meta(name).optional());
        match moved {
            Ok(Some(pinned)) => Ok(pinned),
            Ok(None) => Err(StoreFault::NotPinned(name)),
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }
}
