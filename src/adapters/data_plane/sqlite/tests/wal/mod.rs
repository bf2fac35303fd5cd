//! The end of the write-ahead log: a write that was cut off costs nothing, and
//! whatever may have cost something stops the start. The logs are SQLite's own.

mod damage;
mod store;
mod torn;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::adapters::data_plane::sqlite::wal::{Damage, LogEnd, LogFault, judge};

/// The smallest pages, so that every byte of a log can be tried.
const PAGE: usize = 512;
const FRAME: usize = 24 + PAGE;
const HEADER: usize = 32;

/// A database as a process leaves it that ends without a word, and how long its
/// log was after each of its transactions.
struct Left {
    database: Vec<u8>,
    log: Vec<u8>,
    index: Vec<u8>,
    ends: Vec<usize>,
}

impl Left {
    /// Transactions of several pages, each with one row more than the last; with
    /// an earlier, longer log in the file if there is to be one.
    fn after(transactions: usize, has_earlier_log: bool) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("kms.db");
        let read = |suffix: &str| {
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            fs::read(path).expect("a file")
        };
        let writer = writer(&path);
        if has_earlier_log {
            for _ in 0..2 * transactions {
                insert(&writer, 40);
            }
            writer
                .execute_batch("PRAGMA wal_checkpoint(RESTART); DELETE FROM rows")
                .expect("restarted");
        }
        let mut ends = Vec::new();
        for _ in 0..transactions {
            insert(&writer, 4);
            let last = used_frames(&writer);
            ends.push(HEADER + last * FRAME);
        }
        Self {
            database: read(""),
            log: read("-wal"),
            index: read("-shm"),
            ends,
        }
    }

    /// The bytes of a transaction in the log.
    fn bytes_of(&self, transaction: usize) -> std::ops::Range<usize> {
        self.ends[transaction - 1]..self.ends[transaction]
    }
}

fn writer(path: &std::path::Path) -> Connection {
    let writer = Connection::open(path).expect("a database");
    writer
        .execute_batch(&format!(
            "PRAGMA page_size = {PAGE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE rows (number INTEGER PRIMARY KEY, filling BLOB);"
        ))
        .expect("a table");
    writer
}

/// One transaction with one row of so many random hundreds of bytes.
fn insert(writer: &Connection, hundreds: u32) {
    let inserted = writer.execute(
        "INSERT INTO rows (filling) VALUES (randomblob(?1 * 100))",
        [hundreds],
    );
    assert_eq!(inserted, Ok(1));
}

/// How many frames of the log are in use, as SQLite counts.
fn used_frames(writer: &Connection) -> usize {
    let frames = writer.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        row.get::<_, u32>(1)
    });
    frames.expect("counted") as usize
}

/// A place to lay such files out and look at them.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("kms.db{suffix}"))
    }

    /// Writes a file over what was there. (A file that is cut to nothing first is
    /// brought to the disk when it is closed, by some file systems.)
    fn lay_out(&self, suffix: &str, bytes: &[u8]) {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.file(suffix))
            .expect("made");
        file.write_all_at(bytes, 0).expect("written");
        file.set_len(bytes.len() as u64).expect("set");
    }

    fn judge(&self, database: &[u8], log: &[u8]) -> Result<LogEnd, Damage> {
        self.lay_out("", database);
        self.lay_out("-wal", log);
        self.judge_what_is_there()
    }

    fn judge_what_is_there(&self) -> Result<LogEnd, Damage> {
        judge(&self.file("")).map_err(|fault| match fault {
            LogFault::Damaged(damage) => damage,
            LogFault::Unreadable(error) => panic!("{error}"),
        })
    }

    /// The rows that SQLite finds.
    fn rows(&self, database: &[u8], log: &[u8]) -> u32 {
        self.lay_out("", database);
        self.lay_out("-wal", log);
        let _ = fs::remove_file(self.file("-shm"));
        Connection::open(self.file(""))
            .and_then(|reader| reader.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)))
            .expect("a number")
    }
}

fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}

/// Every bit of a frame's header, and one of each byte of its page.
fn flips_of(at: usize) -> impl Iterator<Item = (usize, usize)> {
    let is_in_header = (at - HEADER) % FRAME < FRAME - PAGE;
    let bits = if is_in_header {
        0..8
    } else {
        at % 8..at % 8 + 1
    };
    bits.map(move |bit| (at, bit))
}
