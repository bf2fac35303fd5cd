//! `kms openapi`: prints the document that the service serves.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::http::openapi_document;

/// Prints it, and exits with 1 where it cannot be written.
pub(super) fn run() -> ExitCode {
    match print(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn print(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&openapi_document())?;
    output.write_all(b"\n")?;
    output.flush()
}
