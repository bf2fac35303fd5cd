//! What a log may end in, with nothing lost.

use std::fs;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Bench, FRAME, HEADER, Left, flipped, flips_of, insert, used_frames, writer};
use crate::adapters::data_plane::sqlite::wal::LogEnd;

#[test]
fn a_log_that_ends_with_a_commit_is_whole_whatever_an_earlier_log_left_behind_it() {
    for has_earlier_log in [false, true] {
        let left = Left::after(3, has_earlier_log);
        assert_eq!(left.log.len() > left.ends[2], has_earlier_log);
        let bench = Bench::new();
        let end = bench.judge(&left.database, &left.log);
        assert_eq!(end, Ok(LogEnd::Whole));
        for empty in [0, 1, HEADER - 1, HEADER] {
            let end = bench.judge(&left.database, &left.log[..empty]);
            assert_eq!(end, Ok(LogEnd::Whole), "{empty} bytes");
        }
        fs::remove_file(bench.file("-wal")).expect("removed");
        assert_eq!(bench.judge_what_is_there(), Ok(LogEnd::Whole));
    }
}

#[test]
fn a_log_cut_off_at_any_byte_of_its_last_transaction_is_torn_and_costs_nothing_else() {
    let left = Left::after(4, false);
    let bench = Bench::new();
    let last = left.bytes_of(3);
    assert!(last.len() > 2 * FRAME, "or there is little to cut");
    for length in last.clone() {
        let log = &left.log[..length];
        let bytes = length - last.start;
        let torn = LogEnd::Torn {
            frames: bytes.div_ceil(FRAME) as u64,
            bytes: bytes as u64,
        };
        let expected = if bytes == 0 { LogEnd::Whole } else { torn };
        assert_eq!(bench.judge(&left.database, log), Ok(expected), "{bytes}");
        assert_eq!(bench.rows(&left.database, log), 3, "{bytes}");
    }
    assert_eq!(bench.rows(&left.database, &left.log), 4);
}

#[test]
fn a_flipped_byte_in_the_last_transaction_is_a_torn_write_and_costs_nothing_else() {
    for has_earlier_log in [false, true] {
        let left = Left::after(4, has_earlier_log);
        let bench = Bench::new();
        let last = left.bytes_of(3);
        let torn = LogEnd::Torn {
            frames: (last.len() / FRAME) as u64,
            bytes: last.len() as u64,
        };
        for (at, bit) in last.clone().flat_map(flips_of) {
            let log = flipped(&left.log, at, bit);
            assert_eq!(bench.judge(&left.database, &log), Ok(torn), "{at}, {bit}");
        }
        for at in last.step_by(97) {
            let log = flipped(&left.log, at, at % 8);
            assert_eq!(bench.rows(&left.database, &log), 3, "{at}");
        }
    }
}

/// A transaction larger than the cache reaches the log before it is decided, and
/// some of its frames more than once.
#[test]
fn a_large_transaction_that_was_cut_off_is_torn() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("kms.db");
    let writer = writer(&path);
    insert(&writer, 4);
    insert(&writer, 4);
    writer
        .execute_batch(
            "PRAGMA cache_size = 5; PRAGMA cache_spill = 5; CREATE INDEX by_filling ON rows (filling);
             BEGIN",
        )
        .expect("begun");
    let committed = used_frames(&writer);
    for _ in 0..60 {
        insert(&writer, 2);
    }
    let read = |name| fs::read(folder.path().join(name)).expect("a file");
    let (database, log) = (read("kms.db"), read("kms.db-wal"));
    let frames = (log.len() - HEADER) / FRAME;
    assert!(frames > committed + 40, "{frames} frames");
    let bench = Bench::new();
    let torn = |log: &[u8]| LogEnd::Torn {
        frames: ((log.len() - HEADER) / FRAME - committed) as u64,
        bytes: (log.len() - HEADER - committed * FRAME) as u64,
    };
    assert_eq!(bench.judge(&database, &log), Ok(torn(&log)));
    writer.execute_batch("COMMIT").expect("committed");
    let log = read("kms.db-wal");
    assert_eq!(bench.judge(&database, &log), Ok(LogEnd::Whole));
    let damaged = flipped(&log, HEADER + (frames - 20) * FRAME, 1);
    assert_eq!(bench.judge(&database, &damaged), Ok(torn(&log)));
}

/// Frames of commits that failed stay in the file, with good checksums and the
/// salts of the log, until others are written over them.
#[test]
fn what_failed_commits_leave_in_the_log_is_no_damage() {
    let left = Left::after(2, false);
    let bench = Bench::new();
    let log_with = |name: &str, rows: usize, log: &[u8]| {
        let path = bench.0.path().join(name);
        fs::write(&path, &left.database).expect("written");
        let wal = bench.0.path().join(format!("{name}-wal"));
        fs::write(&wal, log).expect("written");
        let writer = Connection::open(&path).expect("a database");
        writer
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; BEGIN")
            .expect("begun");
        for _ in 0..rows {
            insert(&writer, 4);
        }
        writer.execute_batch("COMMIT").expect("committed");
        let log = fs::read(&wal).expect("a file");
        (writer, log)
    };
    // Each of these goes on from the same commit; the longer ones failed.
    let (_first, longest) = log_with("longest", 12, &left.log);
    let (_second, longer) = log_with("longer", 6, &left.log);
    let (_third, kept) = log_with("kept", 1, &left.log);
    assert!(longest.len() > longer.len() && longer.len() > kept.len());
    let mut log = longest.clone();
    log[..longer.len()].copy_from_slice(&longer);
    log[..kept.len()].copy_from_slice(&kept);
    let bytes = log.len() - kept.len();
    let torn = LogEnd::Torn {
        frames: (bytes / FRAME) as u64,
        bytes: bytes as u64,
    };
    assert_eq!(bench.judge(&left.database, &log), Ok(torn));
    assert_eq!(bench.rows(&left.database, &log), 3);
}
