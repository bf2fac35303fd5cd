//! What the writer does for upkeep, each in a commit of its own.

use rusqlite::Connection;

use super::super::queue::UpkeepJob;
use super::super::upkeep;
use super::{Writer, begin, commit, unavailable};

impl Writer {
    pub(super) fn do_upkeep(&mut self, job: UpkeepJob) {
        // Whoever no longer waits needs no answer.
        match job {
            UpkeepJob::TakeLease(name, now, lease, answer) => {
                let taken = self.alone(|store| upkeep::take_lease(store, name, now, lease));
                let _ = answer.send(taken.map_err(unavailable));
            }
            UpkeepJob::ReleaseLease(name, holder, answer) => {
                let released = self.alone(|store| upkeep::release_lease(store, name, holder));
                let _ = answer.send(released.map_err(unavailable));
            }
            UpkeepJob::BeginKey(intent, answer) => {
                // A key that nobody waits for any longer is not going to be made.
                if !answer.is_closed() {
                    let begun = self.alone(|store| upkeep::begin_key(store, &intent));
                    let _ = answer.send(begun.map_err(unavailable));
                }
            }
            UpkeepJob::AbandonKey(key_id, answer) => {
                let given_up = self.alone(|store| upkeep::abandon_key(store, key_id));
                let _ = answer.send(given_up.map_err(unavailable));
            }
            UpkeepJob::EndIntent(key_id, answer) => {
                let ended = self.alone(|store| upkeep::end_intent(store, key_id));
                let _ = answer.send(ended.map_err(unavailable));
            }
        }
    }

    fn alone<T>(
        &mut self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let written = begin(&self.connection)
            .and_then(|()| write(&self.connection))
            .and_then(|done| commit(&self.connection).map(|()| done));
        if written.is_err() {
            self.roll_back();
        }
        written
    }
}
