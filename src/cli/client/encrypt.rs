//! `kms encrypt`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::data::{self, Destination, MOST_DATA};
use super::session::{Session, StandardInput};
use super::shown::{self, malformed};
use crate::cli::fault::Fault;
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::binary::Base64Text;
use crate::domain::ids::{KeyId, KeyRef};

/// What is encrypted, and with what.
#[derive(Args)]
pub(in crate::cli) struct Encrypt {
    /// The key: its id, or alias/NAME.
    #[arg(value_name = "KEY")]
    key_ref: KeyRef,
    /// The file with the plaintext; standard input where it is not named.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// The new file for what kms decrypt takes; standard output where it is not named.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The file with the associated data, which is authenticated and not kept:
    /// decrypting needs the same again.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    /// The algorithm; the key's default where it is not given.
    #[arg(long)]
    algorithm: Option<AeadAlgorithm>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Fields<'a> {
    key_id: &'a KeyRef,
    plaintext: Base64Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<Base64Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<AeadAlgorithm>,
}

/// All that decrypting needs, but for the key's scope and the associated data.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// The very key, whatever the alias stands for later.
    pub(super) key_id: KeyId,
    pub(super) algorithm: AeadAlgorithm,
    pub(super) iv: String,
    pub(super) ciphertext: String,
    /// In the service's own answer; of no use here.
    #[serde(default, skip_serializing)]
    #[expect(
        dead_code,
        reason = "read so that the service's own answer is taken too"
    )]
    receipt_id: serde::de::IgnoredAny,
}

/// Encrypts, and writes what decrypting needs.
pub(super) fn run(wanted: &Encrypt) -> Result<(), Fault> {
    let input = data::named(&wanted.input);
    let destination = Destination::new(data::named(&wanted.out))?;
    let session = Session::open(&wanted.connection, StandardInput::of(input))?;
    let aad = wanted.aad_file.as_deref();
    let aad = aad
        .map(|path| data::read_file(path, MOST_DATA))
        .transpose()?;
    let plaintext = data::read(input, MOST_DATA)?;
    let fields = Fields {
        key_id: &wanted.key_ref,
        plaintext: Base64Text(plaintext.expose()),
        aad: aad.as_ref().map(|aad| Base64Text(aad.expose())),
        algorithm: wanted.algorithm,
    };
    let length = fields.plaintext.len() + fields.aad.as_ref().map_or(0, Base64Text::len);
    let answer = session.use_key("encrypt", &fields, length)?;
    let line = match wanted.connection.json {
        true => shown::one_line(answer.expose())?,
        false => {
            let sealed: Sealed =
                serde_json::from_slice(answer.expose()).map_err(|_| malformed("ciphertext"))?;
            let sealed = serde_json::to_vec(&sealed).map_err(|error| Fault::caused(&error))?;
            shown::one_line(&sealed)?
        }
    };
    destination.write_public(format!("{line}\n").as_bytes())
}
