//! `kms sign`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::data::{self, MOST_DATA};
use super::session::{Session, StandardInput};
use super::shown::{self, malformed};
use crate::cli::fault::Fault;
use crate::domain::algorithm::SigningAlgorithm;
use crate::domain::binary::{Base64Bytes, Base64Text, encode_base64};
use crate::domain::ids::KeyRef;

/// What is signed, and with what.
#[derive(Args)]
pub(in crate::cli) struct Sign {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    /// The file with the data; standard input where it is not named.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<SigningAlgorithm>,
}

#[derive(Deserialize)]
struct Signed {
    signature: Base64Bytes,
}

/// Signs, and prints the signature in base64.
pub(super) fn run(wanted: &Sign) -> Result<(), Fault> {
    let input = data::named(&wanted.input);
    let session = Session::open(&wanted.connection, StandardInput::of(input))?;
    let data = data::read(input, MOST_DATA)?;
    let fields = Fields {
        key_id: &wanted.key_ref,
        data: Base64Text(data.expose()),
        algorithm: wanted.algorithm,
    };
    let answer = session.use_key("sign", &fields, fields.data.len())?;
    if wanted.connection.json {
        return shown::print(answer.expose(), true);
    }
    // Decoded, so that nothing but base64 is printed.
    let signed: Signed =
        serde_json::from_slice(answer.expose()).map_err(|_| malformed("signature"))?;
    let signature = encode_base64(signed.signature.bytes());
    shown::write(&format!("{signature}\n"))
}
