//! The floor: an axum handler that parses the same body, decodes its base64 and
//! answers JSON of the same size, and does nothing else.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::serve::{Listener, ListenerExt as _};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pki::Pki;
use crate::requests::{KIBIBYTE, MESSAGE};

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

/// What the library does for one operation and its receipt, and nothing else: the floor
/// of operations beside each other. RSA is held to as many at once as there are cores.
struct Works {
    ed25519: Ed25519KeyPair,
    rsa: RsaKeyPair,
    aes: LessSafeKey,
    cores: Semaphore,
}

type Shared = State<Arc<Works>>;

impl Works {
    fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes");
        Arc::new(Self {
            ed25519: Ed25519KeyPair::generate().expect("randomness"),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness"),
            aes: LessSafeKey::new(key),
            cores: Semaphore::new(cores),
        })
    }

    fn receipt(&self) {
        black_box(self.ed25519.sign(&MESSAGE));
    }
}

async fn ed25519(State(works): Shared, Json(asked): Json<Asked>) -> Json<Answered> {
    black_box(works.ed25519.sign(&MESSAGE));
    works.receipt();
    answer(320, asked.decode())
}

async fn aes(State(works): Shared, Json(asked): Json<Asked>) -> Json<Answered> {
    let mut text = KIBIBYTE.to_vec();
    let mut nonce = [0; 12];
    aws_lc_rs::rand::fill(&mut nonce).expect("randomness");
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = works
        .aes
        .seal_in_place_append_tag(nonce, Aad::empty(), &mut text);
    sealed.expect("sealed");
    black_box(text);
    works.receipt();
    answer(1_664, asked.decode())
}

async fn rsa(State(works): Shared, Json(asked): Json<Asked>) -> Json<Answered> {
    let _place = works.cores.acquire().await.expect("never closed");
    let signing = Arc::clone(&works);
    let signed = tokio::task::spawn_blocking(move || {
        let mut signature = vec![0; signing.rsa.public_modulus_len()];
        let random = SystemRandom::new();
        let signed = signing
            .rsa
            .sign(&RSA_PSS_SHA256, &random, &MESSAGE, &mut signature);
        signed.expect("signed");
        signature
    });
    black_box(signed.await.expect("no panic"));
    works.receipt();
    answer(576, asked.decode())
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
            .route("/bare/{size}", post(echo).get(read))
            .route("/works/rsa", post(rsa))
            .route("/works/ed25519", post(ed25519))
            .route("/works/aes", post(aes))
            .with_state(Works::new());
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
