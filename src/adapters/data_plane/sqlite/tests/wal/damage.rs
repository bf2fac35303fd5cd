//! What must not be passed over.

use std::fs;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Bench, FRAME, HEADER, Left, flipped, flips_of};
use crate::adapters::data_plane::sqlite::wal::{Damage, LogEnd};

#[test]
fn a_flipped_bit_in_an_earlier_transaction_is_damage() {
    for has_earlier_log in [false, true] {
        let left = Left::after(4, has_earlier_log);
        let bench = Bench::new();
        for transaction in 1..3 {
            for (at, bit) in left.bytes_of(transaction).flat_map(flips_of) {
                let log = flipped(&left.log, at, bit);
                let frame = (at - HEADER) / FRAME + 1;
                let damage = Damage::Frame {
                    frame: frame as u64,
                };
                let found = bench.judge(&left.database, &log);
                assert_eq!(found, Err(damage), "byte {at}, bit {bit}");
            }
        }
        let at = left.bytes_of(1).start + 100;
        let log = flipped(&left.log, at, 0);
        assert_eq!(
            bench.rows(&left.database, &log),
            1,
            "SQLite says nothing of it"
        );
    }
}

/// Transactions of one frame, down to a database of one page: every number in a
/// frame's header is then one bit away from zero at times.
#[test]
fn a_flipped_bit_in_a_commit_of_one_frame_is_damage() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("kms.db");
    let writer = Connection::open(&path).expect("a database");
    writer
        .execute_batch("PRAGMA page_size = 512; PRAGMA journal_mode = WAL;")
        .expect("set");
    for version in 1..=4 {
        writer
            .pragma_update(None, "user_version", version)
            .expect("set");
    }
    let database = fs::read(&path).expect("a file");
    let log = fs::read(folder.path().join("kms.db-wal")).expect("a file");
    assert_eq!(log.len(), HEADER + 4 * FRAME);
    let bench = Bench::new();
    for frame in 0..3 {
        let start = HEADER + frame * FRAME;
        for (at, bit) in (start..start + FRAME).flat_map(flips_of) {
            let log = flipped(&log, at, bit);
            let damage = Damage::Frame {
                frame: frame as u64 + 1,
            };
            assert_eq!(bench.judge(&database, &log), Err(damage), "{at}, {bit}");
        }
    }
}

#[test]
fn a_damaged_header_before_good_frames_is_damage_and_before_nothing_a_torn_write() {
    for has_earlier_log in [false, true] {
        let left = Left::after(2, has_earlier_log);
        let bench = Bench::new();
        for at in 0..HEADER {
            for bit in 0..8 {
                let log = flipped(&left.log, at, bit);
                let found = bench.judge(&left.database, &log);
                assert_eq!(found, Err(Damage::Header), "byte {at}, bit {bit}");
            }
            let one_frame = flipped(&left.log[..HEADER + FRAME], at, 0);
            let found = bench.judge(&left.database, &one_frame);
            assert_eq!(found, Err(Damage::Header), "byte {at}");
        }
        let mut nothing = flipped(&left.log[..HEADER + 2 * FRAME + 9], 3, 0);
        nothing[HEADER..].fill(0);
        let torn = LogEnd::Torn {
            frames: 3,
            bytes: nothing.len() as u64,
        };
        assert_eq!(bench.judge(&left.database, &nothing), Ok(torn));
    }
}

#[test]
fn a_commit_that_the_index_knows_and_the_log_does_not_have_is_damage() {
    let left = Left::after(4, false);
    let bench = Bench::new();
    fs::write(bench.file("-shm"), &left.index).expect("written");
    let frames = |transaction: usize| ((left.ends[transaction] - HEADER) / FRAME) as u64;
    let short = Err(Damage::Short {
        there: frames(2),
        committed: frames(3),
    });
    let last = left.bytes_of(3);
    let damaged = flipped(&left.log, last.start + 7, 0);
    assert_eq!(bench.judge(&left.database, &damaged), short);
    let cut = &left.log[..last.end - 1];
    assert_eq!(bench.judge(&left.database, cut), short);
    assert_eq!(bench.judge(&left.database, &left.log), Ok(LogEnd::Whole));

    // An index that is behind, of another log or half-written knows nothing.
    let other = Left::after(9, false);
    for index in [
        other.index,
        vec![0; 32_768],
        vec![],
        left.index[..40].to_vec(),
        flipped(&flipped(&left.index, 16, 6), 48 + 16, 6),
    ] {
        fs::write(bench.file("-shm"), index).expect("written");
        let found = bench.judge(&left.database, &damaged);
        assert!(matches!(found, Ok(LogEnd::Torn { .. })), "{found:?}");
    }
}

#[test]
fn commits_without_their_database_are_damage() {
    let left = Left::after(2, false);
    let bench = Bench::new();
    let found = bench.judge(&[], &left.log);
    assert_eq!(found, Err(Damage::NoDatabase));
    fs::remove_file(bench.file("")).expect("removed");
    assert_eq!(bench.judge_what_is_there(), Err(Damage::NoDatabase));
}
