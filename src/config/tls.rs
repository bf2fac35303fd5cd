//! `tls.*`: the files of the API listener's TLS.
//!
//! It knows paths, and not what is in the files.

use std::path::PathBuf;

use super::reader::Reader;
use super::value::path;

/// PEM files. With none of them set the API listener speaks plain HTTP.
pub struct Tls {
    /// The server's certificate and the chain above it.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub private_key: Option<PathBuf>,
    /// The authorities that client certificates may come from; a file or a folder.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those authorities; a file or a folder.
    pub crl: Option<PathBuf>,
}

impl Tls {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            certificate: reader.take_optional("tls.certificate", path),
            private_key: reader.take_optional("tls.private_key", path),
            client_ca: reader.take_optional("tls.client_ca", path),
            crl: reader.take_optional("tls.crl", path),
        }
    }
}
