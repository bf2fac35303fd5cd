//! The checkpoints that a restored ledger is held to.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::adapters::ledger::{AuditFailure, checkpoint_file};
use crate::app::CHECKPOINT_FILE;
use crate::cli::fault::Fault;
use crate::domain::ledger::{Checkpoint, LedgerFlaw, SignedNote};

/// The one that was given, and the one in the data folder.
pub(super) struct KnownCheckpoints {
    given: Option<KnownCheckpoint>,
    in_data_folder: Option<KnownCheckpoint>,
}

/// A checkpoint in a file. Nothing says yet that it was signed.
pub(super) struct KnownCheckpoint {
    /// The file.
    pub(super) path: PathBuf,
    /// The note.
    pub(super) note: String,
    size: u64,
}

impl KnownCheckpoints {
    /// Reads both, as far as there are any.
    pub(super) fn read(data_dir: &Path, since: Option<&Path>) -> Result<Self, Fault> {
        let given = match since {
            None => None,
            Some(path) => Some(
                KnownCheckpoint::read(path)
                    .and_then(|read| read.ok_or_else(|| "there is no such file".to_owned()))
                    .map_err(|what| {
                        Fault::arguments(format_args!("--since: {}: {what}", path.display()))
                    })?,
            ),
        };
        let path = data_dir.join(CHECKPOINT_FILE);
        let in_data_folder = KnownCheckpoint::read(&path).map_err(|what| {
            Fault::failed(format_args!(
                "{}: {what}; put the right one in its place, or move it away",
                path.display()
            ))
        })?;
        Ok(Self {
            given,
            in_data_folder,
        })
    }

    /// Those of a ledger with more receipts than this, the newest first.
    pub(super) fn newer_than(&self, receipts: u64) -> Vec<&KnownCheckpoint> {
        let mut newer: Vec<_> = self.all().filter(|one| one.size > receipts).collect();
        newer.sort_by_key(|one| std::cmp::Reverse(one.size));
        newer
    }

    /// The others.
    pub(super) fn not_newer_than(&self, receipts: u64) -> Vec<&KnownCheckpoint> {
        let mut others: Vec<_> = self.all().filter(|one| one.size <= receipts).collect();
        others.dedup_by(|one, other| one.note == other.note);
        others
    }

    /// The file in the data folder, if it is there.
    pub(super) fn in_data_folder(&self) -> Option<&Path> {
        self.in_data_folder.as_ref().map(|one| one.path.as_path())
    }

    fn all(&self) -> impl Iterator<Item = &KnownCheckpoint> {
        self.given.iter().chain(&self.in_data_folder)
    }
}

impl KnownCheckpoint {
    fn read(path: &Path) -> Result<Option<Self>, String> {
        let read = checkpoint_file::read(path).map_err(|error| error.to_string())?;
        let Some(note) = read else {
            return Ok(None);
        };
        let signed: Option<SignedNote> = note.parse().ok();
        let checkpoint = signed.and_then(|note| Checkpoint::from_text(&note.text).ok());
        let size = checkpoint.ok_or("it holds no checkpoint of a ledger")?.size;
        Ok(Some(Self {
            path: path.to_owned(),
            note,
            size,
        }))
    }

    /// Why a backup that is older is not taken.
    pub(super) fn refusal(&self, from: &Path, receipts: u64) -> Fault {
        Fault::failed(format_args!(
            "{} is older than {}: it has {receipts} receipts, and the ledger had {} when that \
             checkpoint was signed. Restore a newer backup; or give --allow-older, which loses the \
             {} receipts between, and lets whoever kept a newer checkpoint find the ledger \
             inconsistent",
            from.display(),
            self.path.display(),
            self.size,
            self.size - receipts
        ))
    }

    /// What it means that it was taken all the same.
    pub(super) fn warning(&self, receipts: u64) -> String {
        format!(
            "THE RESTORED LEDGER IS OLDER than {}: the {} receipts from {receipts} to {} are lost, \
             and whatever they attest is no longer proved. It goes on as another ledger: tell \
             whoever checks it, since everybody who kept a newer checkpoint will find it \
             inconsistent",
            self.path.display(),
            self.size - receipts,
            self.size - 1
        )
    }

    /// Why a backup that does not contain it is not taken.
    pub(super) fn refused(&self, from: &Path, failure: &AuditFailure) -> Fault {
        match failure {
            AuditFailure::Flawed {
                flaw: LedgerFlaw::Forked { size },
                ..
            } => Fault::failed(format_args!(
                "{} has another ledger than the one that {} was signed of: their first {size} \
                 receipts differ. Restore the right backup; or, if this is the one to go on with, \
                 move that file away",
                from.display(),
                self.path.display()
            )),
            AuditFailure::Flawed {
                flaw: LedgerFlaw::GivenForeign { .. },
                ..
            } => Fault::failed(format_args!(
                "{} holds no checkpoint that a key of the ledger in {} has signed: one of them is \
                 of another service, or the backup is from before a change of the ledger's key. \
                 Restore the right backup, or move that file away",
                self.path.display(),
                from.display()
            )),
            other => super::refused(from, other),
        }
    }
}

/// Moves a checkpoint that the ledger does not contain to a name of its own beside
/// it, and answers that name. Nothing is written over.
pub(super) fn move_aside(file: &Path) -> Result<PathBuf, Fault> {
    let moved = || -> io::Result<PathBuf> {
        for number in 0u32.. {
            let ending = match number {
                0 => "checkpoint.superseded".to_owned(),
                number => format!("checkpoint.superseded.{number}"),
            };
            let aside = file.with_extension(ending);
            match fs::hard_link(file, &aside) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            fs::remove_file(file)?;
            if let Some(folder) = file.parent() {
                File::open(folder)?.sync_all()?;
            }
            return Ok(aside);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    };
    moved().map_err(|error| {
        Fault::failed(format_args!(
            "the store was restored, and {} cannot be moved aside: {error}. Move it away, since the \
             service does not start on a ledger that does not contain it",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_is_moved_aside_takes_no_others_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(CHECKPOINT_FILE);
        for (content, name) in [
            ("one", "ledger.checkpoint.superseded"),
            ("two", "ledger.checkpoint.superseded.1"),
            ("three", "ledger.checkpoint.superseded.2"),
        ] {
            fs::write(&file, content).expect("written");
            let aside = move_aside(&file).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!(aside, folder.path().join(name));
            assert!(!file.exists());
        }
        for (content, name) in [
            ("one", "ledger.checkpoint.superseded"),
            ("two", "ledger.checkpoint.superseded.1"),
        ] {
            let kept = fs::read_to_string(folder.path().join(name));
            assert_eq!(kept.expect("kept"), content);
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(CHECKPOINT_FILE);
        assert!(KnownCheckpoints::read(folder.path(), None).is_ok());
        let given = KnownCheckpoints::read(folder.path(), Some(&file)).err();
        assert!(given.expect("no file").to_string().contains("--since"));
        fs::write(&file, "no checkpoint").expect("written");
        let refused = KnownCheckpoints::read(folder.path(), None).err();
        let refused = refused.expect("no checkpoint").to_string();
        assert!(refused.contains("ledger.checkpoint"), "{refused}");
    }
}
