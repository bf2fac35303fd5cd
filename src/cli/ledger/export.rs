//! `kms ledger export`: receipts as JSON lines, each with the proof that it is in
//! the tree.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{database, failed};
use crate::adapters::data_plane::sqlite::LedgerCopy;
use crate::adapters::ledger::{ProofFault, Prover, present};
use crate::domain::ledger::{Checkpoint, LedgerFlaw, SignedNote};
use crate::ports::ledger_source::{LedgerSource as _, SourceFault};

/// Receipts that are read together.
const STRIDE: u64 = 256;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The folder with the ledger, a copy or a running service's; the
    /// configuration's where it is not named.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The index of the first receipt.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,

    /// The index behind the last receipt; all where it is not named.
    #[arg(long, value_name = "N")]
    to: Option<u64>,

    /// The file to write to; standard output where it is not named.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Why an export ends early.
#[derive(Debug, thiserror::Error)]
enum ExportFault {
    #[error(transparent)]
    Proof(#[from] ProofFault),
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// A receipt with what proves that it is in the ledger.
#[derive(Serialize)]
struct Line<'a> {
    leaf_index: u64,
    receipt: &'a RawValue,
    tree_size: u64,
    inclusion_proof: Vec<String>,
    checkpoint: &'a str,
}

/// Writes the receipts. Checks nothing: whoever reads them can.
pub(super) fn run(
    arguments: &Arguments,
    config_dir: Option<PathBuf>,
) -> Result<ExitCode, ExitCode> {
    if arguments.to.is_some_and(|to| to < arguments.from) {
        let error = clap::error::ErrorKind::ValueValidation;
        crate::cli::Arguments::command()
            .error(error, "--to is before --from")
            .exit();
    }
    let database = database(arguments.data_dir.as_deref(), config_dir)?;
    let mut copy = LedgerCopy::open(&database).map_err(|fault| failed(&fault))?;
    let exported = match &arguments.out {
        None => export(&mut copy, arguments, &mut io::stdout().lock()),
        Some(path) => File::create(path)
            .map_err(ExportFault::from)
            .and_then(|file| export(&mut copy, arguments, &mut BufWriter::new(file))),
    };
    exported.map_err(|fault| failed(&fault))?;
    copy.settle().map_err(|fault| failed(&fault))?;
    Ok(ExitCode::SUCCESS)
}

fn export(
    copy: &mut LedgerCopy,
    arguments: &Arguments,
    out: &mut impl Write,
) -> Result<(), ExportFault> {
    let note = copy
        .head()
        .map_err(ProofFault::from)?
        .ok_or(ProofFault::Flawed(LedgerFlaw::CheckpointMissing))?;
    let tree_size = signed_size(&note)?;
    let to = arguments.to.unwrap_or(tree_size);
    let mut prover = Prover::new(copy, tree_size)?;
    let mut next = arguments.from;
    while next < to {
        let most = STRIDE - next % STRIDE;
        for leaf in present(copy, next, most.min(to - next) as usize)? {
            let proof = prover.inclusion(copy, next)?;
            let line = Line {
                leaf_index: next,
                receipt: raw(&leaf).ok_or(ProofFault::Flawed(LedgerFlaw::ReceiptMalformed {
                    leaf_index: next,
                }))?,
                tree_size,
                inclusion_proof: proof.iter().map(ToString::to_string).collect(),
                checkpoint: &note,
            };
            serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
            next += 1;
        }
    }
    Ok(out.flush()?)
}

fn signed_size(note: &str) -> Result<u64, ProofFault> {
    note.parse()
        .ok()
        .and_then(|note: SignedNote| Checkpoint::from_text(&note.text).ok())
        .map(|checkpoint| checkpoint.size)
        .ok_or_else(|| SourceFault::new("the newest checkpoint is no checkpoint").into())
}

/// The leaf as it is, if it is JSON on one line.
fn raw(leaf: &[u8]) -> Option<&RawValue> {
    let is_one_line = !leaf.contains(&b'\n');
    serde_json::from_slice(leaf).ok().filter(|_| is_one_line)
}
