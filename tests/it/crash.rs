//! The real binary under a mixed load, killed at random moments: after every crash
//! it is held to all that it ever acknowledged.
//!
//! `KMS_CRASH_ROUNDS` sets how often it is killed, and `KMS_CRASH_SEED` makes the
//! same choices again (what the process and its clients make of them still depends
//! on the machine). `make crash ROUNDS=300` runs it for long.

mod audit;
mod book;
mod client;
mod copy;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::audit::Audit;
use self::book::Book;
use self::client::Client;
use self::copy::LedgerCopy;
use crate::support::{KmsProcess, Random, Seed, UNTHROTTLED, all, leaves, setting};

/// Rounds where nobody asks for more.
const ROUNDS: u64 = 5;

/// Clients at once.
const CLIENTS: usize = 10;

/// The longest load before a kill, in milliseconds.
const LONGEST_LOAD: usize = 800;

/// About how long a start takes, in milliseconds: the kills during one fall into it.
const START: usize = 120;

const SETTINGS: [(&str, &str); 4] = [
    UNTHROTTLED[0],
    UNTHROTTLED[1],
    ("KMS__AUTH__AUDITORS", "M27"),
    ("KMS__KEYS__MAX_USAGE_PER_DAY", "1000000000"),
];

/// Ends the process without a word; it must not have ended by itself.
fn kill(kms: KmsProcess) {
    kms.signal("KILL");
    let (status, output) = kms.wait();
    assert_eq!(status.code(), None, "{output}");
}

/// Asks with many clients and kills the process in the middle of it.
async fn ask_until_killed(kms: KmsProcess, book: &Mutex<Book>, random: &mut Random) {
    let clients: Vec<Client<'_>> = (0..CLIENTS)
        .map(|number| Client {
            number,
            kms: &kms,
            book,
            random: random.fork(),
        })
        .collect();
    let load = Duration::from_millis(random.below(LONGEST_LOAD) as u64);
    let killing = async {
        tokio::time::sleep(load).await;
        kms.signal("KILL");
    };
    tokio::join!(killing, all(clients.into_iter().map(Client::ask_on)));
    let (status, output) = kms.wait();
    assert_eq!(status.code(), None, "{output}");
}

/// Kills it while it starts, a few times, where chance wants it.
async fn kill_at_start(folder: &Path, random: &mut Random) {
    while random.percent(30) {
        let kms = KmsProcess::begin(folder, &SETTINGS);
        tokio::time::sleep(Duration::from_millis(random.below(START) as u64)).await;
        kill(kms);
    }
}

#[tokio::test]
async fn whatever_is_under_way_when_the_process_is_killed_nothing_acknowledged_is_lost() {
    let seed = Seed::of("KMS_CRASH_SEED");
    let rounds = setting("KMS_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut random = seed.random();
    let folder = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let book = Mutex::new(Book::default());
    let mut copy = LedgerCopy::default();
    for round in 0..=rounds {
        kill_at_start(folder.path(), &mut random).await;
        let kms = KmsProcess::start(folder.path(), &SETTINGS);
        let mut audit = Audit {
            kms: &kms,
            folder: folder.path(),
            book: &book,
            random: &mut random,
        };
        audit.hold(&mut copy).await;
        if round == rounds {
            kms.stop();
        } else {
            ask_until_killed(kms, &book, &mut random).await;
        }
    }
    // What the last audit asked itself comes behind what it copied.
    let kept = leaves(folder.path());
    assert!(kept.len() >= copy.leaves.len());
    assert!(
        kept.iter()
            .zip(&copy.leaves)
            .all(|(kept, seen)| kept == seen)
    );
    let book = book.into_inner().expect("no panic");
    eprintln!(
        "{rounds} kills in {:?}: {:?}, {} keys, {} leaves",
        started.elapsed(),
        book.totals,
        book.keys.len(),
        kept.len(),
    );
}
