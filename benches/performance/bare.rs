//! The floor: an axum handler that parses the same body, decodes its base64 and
//! answers JSON of the same size, and does nothing else.

use std::net::SocketAddr;
use std::path::Path as FilePath;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::serve::{Listener, ListenerExt as _};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pki::Pki;

/// The binary fields of any operation, of one or of each of a batch.
#[derive(Deserialize)]
struct Asked {
    data: Option<String>,
    signature: Option<String>,
    plaintext: Option<String>,
    ciphertext: Option<String>,
    iv: Option<String>,
    items: Option<Vec<Asked>>,
}

impl Asked {
    /// How many bytes they come to.
    fn decode(&self) -> usize {
        let own = [
            &self.data,
            &self.signature,
            &self.plaintext,
            &self.ciphertext,
            &self.iv,
        ];
        let own = own
            .into_iter()
            .flatten()
            .map(|text| STANDARD.decode(text).map_or(0, |bytes| bytes.len()));
        let items = self.items.iter().flatten().map(Self::decode);
        own.chain(items).sum()
    }
}

#[derive(Serialize)]
struct Answered {
    answer: String,
}

/// What surrounds the text in the answer.
const FRAME: usize = r#"{"answer":""}"#.len();

fn answer(size: usize, decoded: usize) -> Json<Answered> {
    // What was decoded has to matter, or it would not be done.
    let byte = decoded as u8;
    let bytes = vec![byte; size.saturating_sub(FRAME) / 4 * 3];
    Json(Answered {
        answer: STANDARD.encode(bytes),
    })
}

async fn echo(Path(size): Path<usize>, Json(asked): Json<Asked>) -> Json<Answered> {
    answer(size, asked.decode())
}

async fn read(Path(size): Path<usize>) -> Json<Answered> {
    answer(size, 0)
}

/// Serves until it is killed.
pub(crate) fn serve(address: &str, pki: Option<&str>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.expect("a port");
        let router = Router::new()
            .route("/kms/v1/health", get(async || "ready"))
            .route("/bare/{size}", post(echo).get(read));
        let listener = listener.tap_io(|stream: &mut TcpStream| {
            stream.set_nodelay(true).expect("set");
        });
        match pki {
            None => axum::serve(listener, router).await,
            Some(folder) => {
                let config = Pki::at(FilePath::new(folder)).server();
                let acceptor = TlsAcceptor::from(config);
                axum::serve(OverTls { listener, acceptor }, router).await
            }
        }
        .expect("it serves");
    });
}

/// A listener whose connections have shaken hands. One after the other: the load
/// generator connects that way, before anything is measured.
struct OverTls<L> {
    listener: L,
    acceptor: TlsAcceptor,
}

impl<L: Listener<Io = TcpStream, Addr = SocketAddr>> Listener for OverTls<L> {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await;
            // Whoever only looked whether the port is taken is gone by now.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
