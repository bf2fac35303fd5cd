//! Who serves the store, as far as can be seen.

use super::listeners;
use super::processes::{self, Process};
use super::report::Report;
use crate::adapters::data_plane::sqlite::look::{User, lock_file, user};
use crate::config::{Config, StoreUrl};

/// Who serves the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// This process, which holds the lock.
    Runs(Process),
    /// This process, as it answers like the service: its store has no lock.
    Answers(Process),
    /// A process that has the store open, and is in another namespace of processes.
    Unseen,
    /// Nobody, as far as can be seen.
    None,
}

impl Service {
    /// Who does now. It may be another one at once; and this process must not have the
    /// store open.
    pub(super) fn of(config: &Config) -> Self {
        let StoreUrl::Sqlite(database) = &config.store.url else {
            return listeners::answering(config).map_or(Self::None, Self::Answers);
        };
        match processes::holder(&lock_file(database)) {
            Some(process) => Self::Runs(process),
            None if user(database) == User::Unseen => Self::Unseen,
            None => Self::None,
        }
    }

    /// Reports it.
    pub(super) fn tell(&self, report: &mut Report) {
        match self {
            Self::Runs(_) | Self::Unseen | Self::None => report.good("service", self.in_words()),
            Self::Answers(_) => report.note("service", self.in_words()),
        }
    }

    /// The same in words.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Runs(process) => format!("runs as process {}", process.id),
            Self::Answers(process) => format!(
                "runs as process {}, as it answers; a store in memory has no lock to tell it by",
                process.id
            ),
            Self::Unseen => "runs, as it seems, in another container: a process that cannot be \
                             seen from here has the store open"
                .to_owned(),
            Self::None => "does not run, as far as can be seen from here".to_owned(),
        }
    }
}
