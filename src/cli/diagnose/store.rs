//! The store and the ledger in it, as a start looks at them and without changing a byte.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::kek;
use super::report::Report;
use crate::adapters::clock::SystemClock;
use crate::adapters::data_plane::sqlite::look::{self, LogLook, StoreLook, User, judge_log};
use crate::adapters::ledger::{LedgerSigner, Prover, checkpoint_file, present};
use crate::app::{CHECKPOINT_FILE, LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::cli::fault::with_causes;
use crate::config::{Config, StoreUrl};
use crate::domain::ledger::Checkpoint;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock as _;
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_source::{LedgerSource as _, SourceFault};
use crate::ports::material::counted;

/// How often a store is looked at anew that somebody writes meanwhile.
const MOST_TRIES: usize = 3;

const RESTORE: &str = "restore the store from its backup (kms restore); nothing was changed now";

/// The newest receipt of a ledger.
#[derive(Clone, Copy)]
pub(super) struct Newest {
    /// When it was made.
    pub(super) made: Timestamp,
    /// What the clock showed right after it was read.
    pub(super) read: Timestamp,
}

/// Looks at the store, its ledger and the keys of both. The newest receipt.
pub(super) fn look(config: &Config, report: &mut Report) -> Option<Newest> {
    let database = match &config.store.url {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Memory | StoreUrl::Postgres(_) => {
            report.note("store", "is in memory, and forgets with the service");
            kek::look_alone(config, report);
            return None;
        }
    };
    for _ in 0..MOST_TRIES {
        let mut found = Report::default();
        // Asked anew each time: a service may have started, or ended.
        let is_open = look::user(database) != User::Nobody;
        if !is_open {
            match judge_log(database) {
                Ok(LogLook::AtRest(torn)) => {
                    torn.into_iter().for_each(|torn| found.note("store", torn));
                }
                Ok(LogLook::InUse) => continue,
                Err(fault) => {
                    // Whoever opens it recovers its log.
                    report.bad("store", with_causes(&fault), RESTORE);
                    return None;
                }
            }
            if fs::metadata(database).map_or(0, |found| found.len()) == 0 {
                without_store(config, database, report);
                return None;
            }
        }
        match look_inside(config, database, is_open, &mut found) {
            Ok(Looked::AtOneState(newest)) => {
                report.take(found);
                return newest;
            }
            Ok(Looked::AtSeveral) => {}
            // Looked at as nobody's, while somebody opened it.
            Err(_) if !is_open && look::user(database) != User::Nobody => {}
            Err(fault) => {
                report.take(found);
                report.bad(
                    "store",
                    with_causes(&fault),
                    format_args!(
                        "let the service's user read {}, and see that it is the store of this \
                         service, and of no newer release; else {RESTORE}",
                        database.display()
                    ),
                );
                return None;
            }
        }
    }
    report.note(
        "store",
        "was written each time it was looked at, by a service that starts or ends, or that cannot \
         be seen from here: run this again, in the service's own container and as its user",
    );
    None
}

/// A store that the first start makes.
fn without_store(config: &Config, database: &Path, report: &mut Report) {
    let path = config.data_dir.join(CHECKPOINT_FILE);
    match checkpoint_file::read(&path) {
        Ok(Some(note)) if !note.is_empty() => report.bad(
            "store",
            format_args!(
                "{} is not there, and {} says that it was: a start is refused",
                database.display(),
                path.display()
            ),
            format_args!("{RESTORE}; or move that file away to begin anew"),
        ),
        _ => report.good(
            "store",
            format_args!("{} is made at the first start", database.display()),
        ),
    }
    match LedgerSigner::load(&config.data_dir.join(LEDGER_KEY_FILE)) {
        Ok(_) => {}
        Err(fault) => report.bad(
            "ledger_key",
            with_causes(&fault),
            "restore it from its backup",
        ),
    }
    kek::look_alone(config, report);
}

/// What was looked at.
enum Looked {
    /// One state, with its newest receipt.
    AtOneState(Option<Newest>),
    /// More than one: somebody wrote in between.
    AtSeveral,
}

fn look_inside(
    config: &Config,
    database: &Path,
    is_served: bool,
    report: &mut Report,
) -> Result<Looked, SourceFault> {
    // Before the store, which has grown out of it.
    let known = checkpoint_file::read(&config.data_dir.join(CHECKPOINT_FILE));
    let mut store = StoreLook::open(database, is_served)?;
    let looked = (|| {
        schema(&store, report)?;
        let newest = match signer(config, &mut store, report)? {
            Some(signer) => ledger(&mut store, &signer, known, config, report)?,
            None => None,
        };
        kek::look_inside(config, &store, report)?;
        Ok(newest)
    })();
    match (store.settle(), looked) {
        // What was read of two states may be anything, a failure included.
        (Err(_), _) => Ok(Looked::AtSeveral),
        (Ok(()), looked) => looked.map(Looked::AtOneState),
    }
}

fn schema(store: &StoreLook, report: &mut Report) -> Result<(), SourceFault> {
    let (found, newest) = store.schema()?;
    if found == newest {
        report.good(
            "store",
            format_args!("opens, with the schema of this release ({found})"),
        );
    } else {
        report.note(
            "store",
            format_args!("has schema {found}; the next start brings it to {newest}"),
        );
    }
    Ok(())
}

/// The key that the store says signs its ledger.
fn signer(
    config: &Config,
    store: &mut StoreLook,
    report: &mut Report,
) -> Result<Option<LedgerSigner>, SourceFault> {
    let keys = store.ledger().keys()?;
    let path = config.data_dir.join(LEDGER_KEY_FILE);
    let next_path = config.data_dir.join(NEXT_LEDGER_KEY_FILE);
    let (shown, next_shown) = (path.display(), next_path.display());
    let mut load = |path: &Path| match LedgerSigner::load(path) {
        Ok(signer) => signer,
        Err(fault) => {
            report.bad(
                "ledger_key",
                with_causes(&fault),
                "restore it from its backup",
            );
            None
        }
    };
    let (current, next) = (load(&path), load(&next_path));
    let Some(in_force) = keys.last().map(|key| key.public_key) else {
        report.good("ledger_key", "the ledger has not begun");
        return Ok(None);
    };
    let is_it = |signer: &LedgerSigner| signer.public_key() == in_force;
    let signer = if current.as_ref().is_some_and(is_it) {
        report.good(
            "ledger_key",
            format_args!("{shown} is the one that signs the ledger"),
        );
        if next.as_ref().is_some_and(|next| !is_it(next)) {
            report.note(
                "ledger_key",
                format_args!("{next_shown} waits to take over"),
            );
        }
        current
    } else if next.as_ref().is_some_and(is_it) {
        report.note(
            "ledger_key",
            format_args!("{next_shown} has taken over; the next start moves it to {shown}"),
        );
        next
    } else {
        let what = match path.exists() {
            true => "is not the one that signed the store's receipts",
            false => "is missing, and the store has receipts that it signed",
        };
        report.bad(
            "ledger_key",
            format_args!("{shown} {what}"),
            "restore it from its backup; kms ledger public-key --all prints the keys that signed",
        );
        None
    };
    if let Some(signer) = &signer {
        let past = keys.iter().map(|key| key.public_key);
        signer.remember(past.filter(|key| *key != in_force));
    }
    Ok(signer)
}

/// Holds the ledger's edge to its newest checkpoint, and the checkpoint beside the store
/// to the ledger.
fn ledger(
    store: &mut StoreLook,
    signer: &LedgerSigner,
    known: std::io::Result<Option<String>>,
    config: &Config,
    report: &mut Report,
) -> Result<Option<Newest>, SourceFault> {
    let head = match store.check_ledger(signer)? {
        Ok(head) => head.checkpoint,
        Err(fault) => {
            report.bad("ledger", with_causes(&fault), RESTORE);
            return Ok(None);
        }
    };
    report.good(
        "ledger",
        format_args!(
            "{}, the newest of which verify; kms ledger verify looks at all",
            counted(head.size, "receipt", "receipts")
        ),
    );
    let file = config.data_dir.join(CHECKPOINT_FILE);
    let shown = file.display();
    let fault = match known {
        Err(error) => Some(format!("{shown} cannot be read: {error}")),
        Ok(None) => None,
        Ok(Some(note)) if note.is_empty() => None,
        Ok(Some(note)) => match signer.read_checkpoint(&note) {
            None => Some(format!(
                "{shown} holds no checkpoint that this ledger has signed"
            )),
            Some(known) => does_not_contain(store, &known, head.size)?,
        },
    };
    if let Some(fault) = fault {
        report.bad(
            "ledger",
            fault,
            format_args!("restore the newest backup; or, to go on from here, move {shown} away"),
        );
    }
    newest(store, head.size)
}

/// Why the ledger does not contain a checkpoint that it has signed, if it does not.
fn does_not_contain(
    store: &mut StoreLook,
    known: &Checkpoint,
    size: u64,
) -> Result<Option<String>, SourceFault> {
    if known.size > size {
        return Ok(Some(format!(
            "the ledger has {size} receipts, and has signed that it had {}: the store was put back \
             to an earlier state, or lost its newest part",
            known.size
        )));
    }
    match Prover::new(store.ledger(), known.size) {
        Ok(tree) if tree.root() == known.root => Ok(None),
        Ok(_) => Ok(Some(format!(
            "the first {} receipts are others than those that the ledger has signed",
            known.size
        ))),
        Err(crate::adapters::ledger::ProofFault::Source(fault)) => Err(fault),
        Err(fault) => Ok(Some(with_causes(&fault))),
    }
}

/// The newest receipt.
fn newest(store: &mut StoreLook, size: u64) -> Result<Option<Newest>, SourceFault> {
    #[derive(Deserialize)]
    struct Receipt {
        ts: Timestamp,
    }
    let Some(last) = size.checked_sub(1) else {
        return Ok(None);
    };
    let leaves = present(store.ledger(), last, 1).unwrap_or_default();
    let leaf = leaves
        .first()
        .and_then(|leaf| serde_json::from_slice(leaf).ok());
    // Now, and not when the look began: a service makes receipts meanwhile.
    let read = SystemClock.now();
    Ok(leaf.map(|Receipt { ts: made }| Newest { made, read }))
}
