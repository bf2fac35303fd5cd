//! Whether somebody speaks TLS at an address, asked as a client that has nothing to show.

use std::io::{self, ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs as engine;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Begins TLS, and waits for the first byte of an answer. Any will do, an alert too: that
/// no certificate of a client is shown is no fault of the service's.
///
/// # Errors
/// What kept it from being had within twice `deadline`.
pub fn answers_tls(address: SocketAddr, deadline: Duration) -> io::Result<()> {
    let config = ClientConfig::builder_with_provider(Arc::new(engine::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client =
        ClientConnection::new(Arc::new(config), address.ip().into()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    while client.wants_write() {
        client.write_tls(&mut stream)?;
    }
    match stream.read_exact(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("nothing within {} s", deadline.as_secs()),
        )),
        answered => answered,
    }
}
