//! Emptying the write-ahead log of secrets that were erased.

use std::time::{Duration, Instant};

use super::Writer;

/// How often the emptying of the log is tried while something holds it up: each time
/// moves what is in it to the database, which takes the disk's time.
const LOG_AGAIN: Duration = Duration::from_secs(1);

impl Writer {
    /// Moves the write-ahead log into the database and empties it, if an erased
    /// secret may be in it. Where a reader or the disk holds it up, later commits
    /// try again from time to time, without waiting.
    pub(super) fn truncate_log(&mut self, wait: Duration) {
        self.log_due = Instant::now() + LOG_AGAIN;
        if let Err(error) = self.try_truncate_log(wait) {
            tracing::warn!(%error, "the store's log cannot be emptied");
        }
    }

    pub(super) fn try_truncate_log(&mut self, wait: Duration) -> rusqlite::Result<()> {
        if !self.log_holds_secret {
            return Ok(());
        }
        let is_busy = self.connection.busy_timeout(wait).and_then(|()| {
            self.connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                    row.get::<_, bool>(0)
                })
        });
        if let Err(error) = self.connection.busy_timeout(self.busy_timeout) {
            tracing::error!(%error, "the store's busy timeout cannot be set");
        }
        if is_busy? {
            tracing::warn!("another connection holds up the emptying of the store's log");
        } else {
            self.log_holds_secret = false;
        }
        Ok(())
    }
}
