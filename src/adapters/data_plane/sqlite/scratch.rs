//! A large file that is written under a scratch name and stands in its place whole
//! or not at all. Knows nothing of what is in it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::open::folder_of;

/// What SQLite puts beside a database.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// The file while it is written, for its owner only. Goes when this is dropped
/// before it was put in its place. One process at a time writes for a place, and
/// takes over what another one left there when it was killed.
pub(super) struct Scratch {
    /// Held for the lock on it, and to make it durable.
    file: File,
    path: PathBuf,
}

impl Scratch {
    /// An empty file beside this place.
    pub(super) fn beside(place: &Path) -> io::Result<Self> {
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut scratch_name = OsString::from(".");
        scratch_name.push(name);
        scratch_name.push(".new");
        let path = folder_of(place).join(scratch_name);
        loop {
            let file = open_and_lock(&path)?;
            let (open, named) = (file.metadata()?, fs::metadata(&path)?);
            // Between opening and locking, its writer may have put it in its place.
            if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
                return Err(busy());
            }
            if open.nlink() == 1 {
                file.set_len(0)?;
                file.set_permissions(Permissions::from_mode(0o600))?;
                return Ok(Self { file, path });
            }
            // It was put in its place by one that was killed before it took this
            // name away.
            fs::remove_file(&path)?;
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To write to it otherwise than by its path.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the content durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Puts the file in its place, durably, unless there is one.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], with the file that is there as it was.
    pub(super) fn put_in_place(self, place: &Path) -> io::Result<()> {
        self.sync()?;
        // A link, since a rename would replace a file that somebody else made meanwhile.
        match fs::hard_link(&self.path, place) {
            Ok(()) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Not every file system has links.
            Err(_) if !place.try_exists()? => fs::rename(&self.path, place)?,
            Err(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        File::open(folder_of(place))?.sync_all()
    }
}

fn open_and_lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is in its place by now is under this name no longer; what cannot be
        // removed is for its owner only, and the next one takes it over.
        let _ = fs::remove_file(&self.path);
        for ending in BESIDE {
            let _ = fs::remove_file(beside(&self.path, ending));
        }
    }
}

/// The name of a file that SQLite puts beside a database.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_stands_in_its_place_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        let mut scratch = Scratch::beside(&place).expect("made");
        scratch.file().write_all(b"content").expect("written");
        assert_eq!(names(folder.path()), [".file.new"]);
        scratch.put_in_place(&place).expect("put");
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(fs::read(&place).expect("there"), b"content");
        let mode = fs::metadata(&place).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_in_the_place_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        fs::write(&place, "theirs").expect("written");
        let scratch = Scratch::beside(&place).expect("made");
        let refused = scratch.put_in_place(&place).expect_err("taken");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).expect("there"), b"theirs");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_file_that_is_given_up_goes_with_what_sqlite_put_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::beside(&folder.path().join("file")).expect("made");
        for ending in BESIDE {
            fs::write(beside(scratch.path(), ending), "x").expect("written");
        }
        drop(scratch);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn one_at_a_time_writes_and_what_a_killed_one_left_is_taken_over_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        let first = Scratch::beside(&place).expect("made");
        let refused = Scratch::beside(&place).err().expect("held");
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        fs::write(folder.path().join(".file.new"), "left").expect("written");
        let second = Scratch::beside(&place).expect("taken over");
        second.put_in_place(&place).expect("put");
        assert_eq!(fs::read(&place).expect("there"), b"");
    }

    #[test]
    fn one_that_was_killed_after_it_put_the_file_in_its_place_is_cleaned_up_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        fs::write(&place, "done").expect("written");
        fs::hard_link(&place, folder.path().join(".file.new")).expect("linked");
        drop(Scratch::beside(&place).expect("made"));
        assert_eq!(fs::read(&place).expect("there"), b"done");
        assert_eq!(names(folder.path()), ["file"]);
    }
}
