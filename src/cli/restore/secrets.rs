//! The secrets that a backup does not hold, held to what it says of them.

use std::error::Error;
use std::path::PathBuf;

use crate::adapters::data_plane::sqlite::snapshot::StoreSummary;
use crate::adapters::ledger::LedgerSigner;
use crate::app::kek::KekFiles;
use crate::app::{LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::config::Config;
use crate::domain::ledger::{ORIGIN, VerifierKey};
use crate::ports::ledger::EvidenceLedger as _;

/// What lies in the data folder.
pub(super) struct Secrets {
    kek: Found<String>,
    /// The ids of the key-encryption keys beside it that a start looks at too.
    other_keks: Vec<String>,
    ledger_keys: Vec<Found<[u8; 32]>>,
}

/// A secret's file, and what tells its secret from another.
struct Found<T> {
    path: PathBuf,
    /// `None` where there is no file; the fault of one that cannot be used.
    id: Result<Option<T>, String>,
}

impl Secrets {
    pub(super) fn of(config: &Config) -> Self {
        let files = KekFiles::of(config);
        let kek = Found {
            path: files.kek().to_owned(),
            id: files
                .load()
                .map(|kek| kek.map(|kek| kek.id()))
                .map_err(|fault| in_words(&fault)),
        };
        let next = files.load_next().ok().flatten();
        let mut other_keks: Vec<String> = next.into_iter().map(|kek| kek.id()).collect();
        if matches!(kek.id, Ok(Some(_))) {
            other_keks.extend(files.load_old().iter().map(|(_, kek)| kek.id()));
        }
        let ledger_key = |name| {
            let path = config.data_dir.join(name);
            let loaded = LedgerSigner::load(&path);
            Found {
                path,
                id: loaded
                    .map(|signer| signer.map(|signer| signer.public_key()))
                    .map_err(|fault| in_words(&fault)),
            }
        };
        Self {
            kek,
            other_keks,
            ledger_keys: [LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE]
                .map(ledger_key)
                .into(),
        }
    }

    /// What has to be put right before a service can start on this store.
    pub(super) fn warnings(&self, store: &StoreSummary, sealed_under: &[String]) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_missing = |wanted: &&String| !self.other_keks.contains(*wanted);
        match sealed_under {
            // No more than what its service was started with.
            [] => warnings.extend(store.kek_id.iter().filter(is_missing).filter_map(|wanted| {
                self.kek.warning(
                    wanted,
                    "the key-encryption key of the service of this backup",
                )
            })),
            [wanted] => warnings.extend(Some(wanted).filter(is_missing).and_then(|wanted| {
                self.kek.warning(
                    wanted,
                    "the key-encryption key that the keys in the backup are sealed under",
                )
            })),
            several => warnings.extend(several.iter().filter(is_missing).filter_map(|wanted| {
                let what = format!(
                    "the key-encryption key {wanted} that some keys in the backup are sealed \
                     under, while they were being sealed anew"
                );
                self.kek.warning(wanted, &what)
            })),
        }
        // A key that was to sign next may be the one that does.
        if let (Some(wanted), Some(first)) = (store.ledger_keys.last(), self.ledger_keys.first())
            && !self.has_ledger_key(wanted)
        {
            warnings.extend(first.warning(wanted, "the key that signs the ledger in the backup"));
        }
        warnings
    }

    fn has_ledger_key(&self, wanted: &[u8; 32]) -> bool {
        let mut keys = self.ledger_keys.iter();
        keys.any(|key| key.id.as_ref().is_ok_and(|id| id.as_ref() == Some(wanted)))
    }
}

impl<T: PartialEq> Found<T> {
    fn warning(&self, wanted: &T, what: &str) -> Option<String> {
        let path = self.path.display();
        match &self.id {
            Ok(Some(id)) if id == wanted => None,
            Ok(Some(_)) => Some(format!(
                "{path} is not {what}: put the right one in its place before the service starts"
            )),
            Ok(None) => Some(format!(
                "{path} is missing, {what}: put it in its place before the service starts"
            )),
            Err(fault) => Some(format!("{path}, {what}, cannot be used: {fault}")),
        }
    }
}

/// The newest key of the ledger, where the data folder has the secret of it and so
/// vouches for it.
pub(super) fn trusted_key(secrets: &Secrets, store: &StoreSummary) -> Option<VerifierKey> {
    let newest = store.ledger_keys.last()?;
    let has_it = secrets.has_ledger_key(newest);
    has_it.then(|| VerifierKey::new(ORIGIN, *newest))
}

fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(": ");
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}
