//! `kms decrypt`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::data::{self, Destination, MOST_DATA};
use super::encrypt::Sealed;
use super::session::{Session, StandardInput};
use super::shown::{self, malformed};
use crate::cli::fault::Fault;
use crate::config::LARGEST_BODY;
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::binary::{Base64Text, decode_secret};
use crate::domain::ids::KeyId;
use crate::domain::secret::SecretBytes;

/// What is decrypted.
#[derive(Args)]
pub(in crate::cli) struct Decrypt {
    /// The file that kms encrypt wrote; standard input where it is not named.
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// The new file for the plaintext, for its owner only; standard output where it is
    /// not named.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The file with the associated data of the encryption, where there was any.
    #[arg(long, value_name = "FILE")]
    aad_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Fields<'a> {
    key_id: KeyId,
    algorithm: AeadAlgorithm,
    iv: &'a str,
    ciphertext: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<Base64Text<'a>>,
}

/// Where the plaintext stands in an answer, so that it is copied nowhere.
#[derive(Deserialize)]
struct Opened<'a> {
    plaintext: &'a str,
}

/// Decrypts, and writes the plaintext as it is.
pub(super) fn run(wanted: &Decrypt) -> Result<(), Fault> {
    let input = data::named(&wanted.input);
    let destination = Destination::new(data::named(&wanted.out))?;
    let session = Session::open(&wanted.connection, StandardInput::of(input))?;
    let aad = wanted.aad_file.as_deref();
    let aad = aad
        .map(|path| data::read_file(path, MOST_DATA))
        .transpose()?;
    let sealed = data::read(input, LARGEST_BODY)?;
    let sealed: Sealed = serde_json::from_slice(sealed.expose()).map_err(|error| {
        Fault::failed(format_args!(
            "the input is not what kms encrypt writes: {error}"
        ))
    })?;
    let fields = Fields {
        key_id: sealed.key_id,
        algorithm: sealed.algorithm,
        iv: &sealed.iv,
        ciphertext: &sealed.ciphertext,
        aad: aad.as_ref().map(|aad| Base64Text(aad.expose())),
    };
    let length = sealed.ciphertext.len() + fields.aad.as_ref().map_or(0, Base64Text::len);
    let answer = session.use_key("decrypt", &fields, length)?;
    if wanted.connection.json {
        let mut line = SecretBytes::from(shown::one_line(answer.expose())?);
        line = data::joined(&[line.expose(), b"\n"]);
        return destination.write_secret(&line);
    }
    let Opened { plaintext } =
        serde_json::from_slice(answer.expose()).map_err(|_| malformed("plaintext"))?;
    let plaintext = decode_secret(plaintext).map_err(|_| malformed("plaintext"))?;
    destination.write_secret(&plaintext)
}
