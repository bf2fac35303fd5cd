//! Why a start comes to nothing, with how to mend it where the operator can.

use std::io;
use std::net::SocketAddr;

use crate::adapters::data_plane::sqlite::OpenError;
use crate::adapters::hsm::software::kek::KekFault;
use crate::adapters::ledger::LedgerKeyFault;
use crate::adapters::secret_file::SecretFileFault;
use crate::domain::error::KmsError;
use crate::domain::ledger::LedgerFlaw;
use crate::ports::data_plane::Unavailable;
use crate::ports::ledger::LedgerError;
use crate::ports::material::MaterialFault;

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("the data folder {path} (data_dir) cannot be made")]
    DataDir {
        /// The folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// The store was opened, and failed.
    #[error("the store failed while starting")]
    StoreFailed(#[from] Unavailable),
    /// The key-encryption key cannot be used.
    #[error(transparent)]
    Kek(#[from] KekFault),
    /// The store has keys, and the key that seals them is not there.
    #[error(
        "the store holds keys, and {file} with the key-encryption key that seals them is missing; \
         restore it from its backup, or move the data folder away to start anew"
    )]
    KekMissing {
        /// Where it was looked for.
        file: String,
    },
    /// The store's secrets are sealed under another key.
    #[error(
        "the key-encryption key in {file} is not the one that this store's keys are sealed under; \
         restore the right one from its backup"
    )]
    KekForeign {
        /// Where it came from.
        file: String,
    },
    /// Secrets are being sealed anew, and a key that some are sealed under is not
    /// there.
    #[error(
        "{number} of this store's keys are sealed under the key-encryption key {kek_id}, which is          in none of {file}, {file}.next and {file}.old: a change of the key is not finished, and          needs both. Put it back from its backup"
    )]
    KekIncomplete {
        /// The id of the key.
        kek_id: String,
        /// How many secrets are sealed under it.
        number: u64,
        /// Where the key in force lies.
        file: String,
    },
    /// The ledger's key cannot be used.
    #[error("the ledger's signing key cannot be used")]
    LedgerKey(#[from] LedgerKeyFault),
    /// The store has receipts, and the key that signed them is not there.
    #[error(
        "the store holds receipts, and {file} with the key that signs them is missing; \
         restore it from its backup, or move the data folder away to start anew"
    )]
    LedgerKeyMissing {
        /// Where it was looked for.
        file: String,
    },
    /// The store's receipts are signed with another key.
    #[error(
        "the ledger's key in {file} is not the one that signed this store's receipts; \
         restore the right one from its backup"
    )]
    LedgerKeyForeign {
        /// Where it came from.
        file: String,
    },
    /// The ledger does not verify.
    #[error(
        "the ledger does not verify: {0}. The store was damaged, or changed by something other \
         than this service; nothing was changed now. `kms ledger verify` says more; restore the \
         store from its backup"
    )]
    LedgerBroken(LedgerFlaw),
    /// The store failed while the ledger was looked at.
    #[error("the ledger cannot be read")]
    LedgerUnread(#[source] KmsError),
    /// The ledger does not contain a checkpoint that was signed of it.
    #[error(
        "the store was put back to an earlier state, or lost its newest part: {flaw}. Restore the \
         newest backup. To go on from here all the same, and so to break with whoever has seen \
         what came after, move {file} away"
    )]
    LedgerOlder {
        /// Where the checkpoint stands.
        file: String,
        /// What is wrong.
        flaw: LedgerFlaw,
    },
    /// The file holds something else than a checkpoint of this ledger.
    #[error(
        "{file} holds no checkpoint that this store's ledger has signed: the store, or the file, \
         is of another service. Put the right one in its place, or move the file away"
    )]
    KnownCheckpointForeign {
        /// The file.
        file: String,
    },
    /// The file cannot be read.
    #[error("{file} cannot be read")]
    KnownCheckpoint {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The ledger's key signs nothing.
    #[error("the ledger's key cannot sign")]
    LedgerUnsigned(#[source] LedgerError),
    /// A file of the ledger's key cannot be put in its place.
    #[error("the file of the ledger's key cannot be put in its place")]
    LedgerKeyFile(#[from] SecretFileFault),
    /// A key set cannot be used.
    #[error("{setting} cannot be used")]
    KeySet {
        /// The setting it comes from.
        setting: &'static str,
        /// Why.
        source: MaterialFault,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({setting})")]
    Listen {
        /// The setting it comes from.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The files of TLS cannot be used.
    #[error("the files of TLS cannot be used: {faults}")]
    Tls {
        /// What is wrong with each, and how to mend it.
        faults: String,
    },
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The configuration asks for what this version does not have; the
    /// configuration's own rules say so first.
    #[error("this version has no such store")]
    Unsupported,
}
