//! A signed checkpoint in a file of its own, beside the store: what a store that
//! was put back to an earlier state does not contain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The longest file that is read, in bytes; a note is a few hundred.
const LONGEST: u64 = 64 * 1024;

/// The note in this file; `None` where there is no such file.
///
/// # Errors
/// The operating system's; [`io::ErrorKind::InvalidData`] for what is no text, or
/// too long to be a note.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.len() > LONGEST => return Err(io::ErrorKind::InvalidData.into()),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some)
}

/// Puts this note into the file, durably: at every moment there is the old one or
/// the new one.
///
/// # Errors
/// The operating system's.
pub fn write(path: &Path, note: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Whoever serves this folder is alone, so one name is enough, and a leftover of
    // a crash is written over.
    let scratch = path.with_extension("checkpoint.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&scratch)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.checkpoint");
        assert_eq!(read(&path).expect("no file"), None);
        for note in ["one\n", "another\n", "3\n"] {
            write(&path, note).expect("written");
            assert_eq!(read(&path).expect("readable").as_deref(), Some(note));
        }
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_note_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.checkpoint");
        for content in [vec![0xff; 10], vec![b'a'; 100_000]] {
            fs::write(&path, content).expect("written");
            let error = read(&path).expect_err("no note");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
