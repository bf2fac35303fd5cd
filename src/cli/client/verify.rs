//! `kms verify`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::data::{self, MOST_DATA};
use super::session::{Session, StandardInput};
use super::shown::{self, malformed};
use crate::cli::fault::Fault;
use crate::domain::algorithm::SigningAlgorithm;
use crate::domain::binary::{Base64Bytes, Base64Text};
use crate::domain::ids::KeyRef;

/// The longest file of a signature, in bytes; signatures are far shorter.
const LONGEST_SIGNATURE: usize = 64 * 1024;

/// What is verified, and with what.
#[derive(Args)]
pub(in crate::cli) struct Verify {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    /// The file with the data; standard input where it is not named.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// The signature, in base64.
    #[arg(
        long,
        value_name = "BASE64",
        allow_hyphen_values = true,
        required_unless_present = "signature_file",
        conflicts_with = "signature_file"
    )]
    signature: Option<String>,
    /// The file with the signature in base64, as kms sign prints it.
    #[arg(long, value_name = "FILE")]
    signature_file: Option<PathBuf>,
    /// The algorithm; the key's default where it is not given.
    #[arg(long)]
    algorithm: Option<SigningAlgorithm>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Fields<'a> {
    key_id: &'a KeyRef,
    data: Base64Text<'a>,
    signature: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<SigningAlgorithm>,
}

#[derive(Deserialize)]
struct Verified {
    valid: bool,
}

/// Says whether the signature verifies.
pub(super) fn run(wanted: &Verify) -> Result<bool, Fault> {
    let input = data::named(&wanted.input);
    let signature = signature(wanted)?;
    let session = Session::open(&wanted.connection, StandardInput::of(input))?;
    let data = data::read(input, MOST_DATA)?;
    let fields = Fields {
        key_id: &wanted.key_ref,
        data: Base64Text(data.expose()),
        signature: &signature,
        algorithm: wanted.algorithm,
    };
    let length = fields.data.len() + signature.len();
    let answer = session.use_key("verify", &fields, length)?;
    let Verified { valid } =
        serde_json::from_slice(answer.expose()).map_err(|_| malformed("verification"))?;
    match (wanted.connection.json, valid) {
        (true, _) => shown::print(answer.expose(), true)?,
        (false, true) => shown::write("verified\n")?,
        (false, false) => shown::write("failed: the signature does not verify\n")?,
    }
    Ok(valid)
}

fn signature(wanted: &Verify) -> Result<String, Fault> {
    let text = match (&wanted.signature, &wanted.signature_file) {
        (Some(text), _) => text.clone(),
        (None, Some(_)) => {
            let file = data::named(&wanted.signature_file);
            if file.is_none() && data::named(&wanted.input).is_none() {
                return Err(Fault::arguments(
                    "--signature-file: standard input is the data already; name a file for one of \
                     them",
                ));
            }
            let read = data::read(file, LONGEST_SIGNATURE)?;
            let text = std::str::from_utf8(read.expose().trim_ascii());
            text.unwrap_or_default().to_owned()
        }
        (None, None) => String::new(),
    };
    match Base64Bytes::decode(&text) {
        Ok(bytes) if !bytes.bytes().is_empty() => Ok(text),
        _ => Err(Fault::arguments(
            "the signature: expected standard base64 with padding, as kms sign prints it",
        )),
    }
}
