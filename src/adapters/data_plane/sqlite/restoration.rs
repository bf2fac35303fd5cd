//! Putting a snapshot in the place of a store that is not there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::open::{self, OpenError};
use super::scratch::{Scratch, beside};

/// A store that is to come into its place. While this lives, nobody can serve it.
pub struct Restoration {
    database: PathBuf,
    scratch: Scratch,
    _alone: File,
}

/// Why a snapshot is not put in the place of the store.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFault {
    /// There is a store.
    #[error(
        "{} is there, and nothing is written over it: move it away first, with what begins with \
         its name", .0.display()
    )]
    Exists(PathBuf),
    /// Something of a former store is there, which SQLite would take for the new
    /// one's.
    #[error(
        "{} belongs to a store that was here before, and would damage the new one: move it away",
        .0.display()
    )]
    Remains(PathBuf),
    /// A service runs on it, or is about to.
    #[error("{} is held by another process: stop the service first", .0.display())]
    Served(PathBuf),
    /// The folder cannot be used.
    #[error("the store's folder cannot be used")]
    Folder(#[source] OpenError),
    /// The snapshot is a store of which a part is in another file.
    #[error(
        "{} lies beside the backup and has a part of it: that is a copy of a store, and no \
         snapshot. Take one of it with `kms backup`", .0.display()
    )]
    InTwoFiles(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Restoration {
    /// Makes sure that there is no store at `database` and that nobody serves it.
    ///
    /// # Errors
    /// [`RestoreFault`].
    pub fn begin(database: &Path) -> Result<Self, RestoreFault> {
        let alone = open::lock(database).map_err(|fault| match fault {
            OpenError::Locked(path) => RestoreFault::Served(path),
            other => RestoreFault::Folder(other),
        })?;
        if is_there(database)? {
            return Err(RestoreFault::Exists(database.to_owned()));
        }
        for ending in ["-wal", "-shm", "-journal"] {
            let path = beside(database, ending);
            if is_there(&path)? {
                return Err(RestoreFault::Remains(path));
            }
        }
        let scratch = Scratch::beside(database).map_err(|source| RestoreFault::Write {
            path: database.to_owned(),
            source,
        })?;
        Ok(Self {
            database: database.to_owned(),
            scratch,
            _alone: alone,
        })
    }

    /// Copies the snapshot to where it can be looked at before it is the store.
    ///
    /// # Errors
    /// [`RestoreFault`].
    pub fn copy_from(&mut self, snapshot: &Path) -> Result<&Path, RestoreFault> {
        for ending in ["-wal", "-journal"] {
            let path = beside(snapshot, ending);
            if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
                return Err(RestoreFault::InTwoFiles(path));
            }
        }
        let unreadable = |source| RestoreFault::Read {
            path: snapshot.to_owned(),
            source,
        };
        let mut from = File::open(snapshot).map_err(unreadable)?;
        io::copy(&mut from, self.scratch.file())
            .and_then(|_| self.scratch.sync())
            .map_err(|source| RestoreFault::Write {
                path: self.scratch.path().to_owned(),
                source,
            })?;
        Ok(self.scratch.path())
    }

    /// Makes the copy the store.
    ///
    /// # Errors
    /// [`RestoreFault`].
    pub fn finish(self) -> Result<(), RestoreFault> {
        let database = self.database;
        self.scratch
            .put_in_place(&database)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => RestoreFault::Exists(database),
                _ => RestoreFault::Write {
                    path: database,
                    source,
                },
            })
    }
}

fn is_there(path: &Path) -> Result<bool, RestoreFault> {
    // What a link leads to may be gone, and the link is there.
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RestoreFault::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .filter(|name| name != "kms.db.lock")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_is_the_store_once_it_is_finished_and_nothing_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, database) = (folder.path().join("from"), folder.path().join("kms.db"));
        fs::write(&from, "content").expect("written");
        let mut restoration = Restoration::begin(&database).expect("nothing is there");
        let copy = restoration.copy_from(&from).expect("copied");
        assert_eq!(fs::read(copy).expect("a copy"), b"content");
        assert_eq!(names(folder.path()), [".kms.db.new", "from"]);
        drop(restoration);
        assert_eq!(names(folder.path()), ["from"]);

        let mut restoration = Restoration::begin(&database).expect("nothing is there");
        restoration.copy_from(&from).expect("copied");
        restoration.finish().expect("put");
        assert_eq!(names(folder.path()), ["from", "kms.db"]);
        assert_eq!(fs::read(&database).expect("a store"), b"content");
    }

    #[test]
    fn whatever_is_there_of_a_store_stays_and_is_named() {
        for name in ["kms.db", "kms.db-wal", "kms.db-shm", "kms.db-journal"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(name);
            fs::write(&path, "theirs").expect("written");
            let refused = Restoration::begin(&folder.path().join("kms.db")).err();
            let refused = refused.expect("something is there").to_string();
            assert!(
                refused.starts_with(&path.display().to_string()),
                "{refused}"
            );
            assert_eq!(fs::read(&path).expect("there"), b"theirs");
            assert_eq!(names(folder.path()), [name]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("kms.db");
        std::os::unix::fs::symlink("nowhere", &database).expect("linked");
        let refused = Restoration::begin(&database).err();
        assert!(matches!(refused, Some(RestoreFault::Exists(_))));
    }

    #[test]
    fn what_appears_meanwhile_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, database) = (folder.path().join("from"), folder.path().join("kms.db"));
        fs::write(&from, "content").expect("written");
        let mut restoration = Restoration::begin(&database).expect("nothing is there");
        restoration.copy_from(&from).expect("copied");
        fs::write(&database, "theirs").expect("written");
        let refused = restoration.finish();
        assert!(matches!(refused, Err(RestoreFault::Exists(_))));
        assert_eq!(fs::read(&database).expect("there"), b"theirs");
    }

    #[test]
    fn nobody_serves_what_is_being_restored_and_the_other_way_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("kms.db");
        let restoration = Restoration::begin(&database).expect("nothing is there");
        assert!(matches!(open::lock(&database), Err(OpenError::Locked(_))));
        drop(restoration);
        let _served = open::lock(&database).expect("free");
        let refused = Restoration::begin(&database).err();
        assert!(matches!(refused, Some(RestoreFault::Served(_))));
    }

    #[test]
    fn a_copy_of_a_store_in_use_is_no_snapshot() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, database) = (folder.path().join("from"), folder.path().join("kms.db"));
        fs::write(&from, "content").expect("written");
        let log = folder.path().join("from-wal");
        fs::write(&log, "newer content").expect("written");
        let mut restoration = Restoration::begin(&database).expect("nothing is there");
        let refused = restoration.copy_from(&from).err();
        assert!(matches!(refused, Some(RestoreFault::InTwoFiles(path)) if path == log));
        fs::write(&log, "").expect("written");
        restoration.copy_from(&from).expect("nothing is in it");
    }
}
