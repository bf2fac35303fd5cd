//! The write-ahead log of a store that somebody wrote to.

use std::fs;
use std::path::PathBuf;

use super::wal;

/// A folder of this thread's own, in memory where there is such a file system.
fn folder() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let above = if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    };
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    above.join(format!("kms-fuzz-{}-{number}", std::process::id()))
}

/// A log beside a database, and its index: judged in one way, whatever it holds. The
/// first byte says how much of the input is the index.
pub(crate) fn log(bytes: &[u8]) {
    let Some((share, rest)) = bytes.split_first() else {
        return;
    };
    let (index, log) = rest.split_at(rest.len() * usize::from(*share) / 256);
    let folder = folder();
    fs::create_dir_all(&folder).expect("a folder");
    let database = folder.join("kms.db");
    let mut page = vec![0; 4_096];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&4_096u16.to_be_bytes());
    fs::write(&database, page).expect("written");
    fs::write(wal::log_of(&database), log).expect("written");
    fs::write(folder.join("kms.db-shm"), index).expect("written");
    let one = format!("{:?}", wal::judge(&database));
    let other = format!("{:?}", wal::judge(&database));
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(one, other);
}
