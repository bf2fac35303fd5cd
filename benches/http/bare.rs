//! The floor: an axum handler that parses a body of the same size, decodes its
//! base64 and answers JSON of the same size.

use std::io::{self, Write as _};

use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Asked {
    data: String,
    algorithm: String,
}

#[derive(Serialize)]
struct Answered {
    signature: String,
    algorithm: String,
}

async fn echo(Json(asked): Json<Asked>) -> Json<Answered> {
    let data = STANDARD.decode(asked.data).unwrap_or_default();
    Json(Answered {
        signature: STANDARD.encode(&data[..data.len().min(64)]),
        algorithm: asked.algorithm,
    })
}

/// Serves until it is killed, and says where.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        writeln!(io::stdout(), "listening api={address}").expect("written");
        let router = Router::new().route("/echo", post(echo));
        kms::http::server::serve(
            listener,
            std::sync::Arc::new(kms::http::server::Plain),
            router,
            std::future::pending(),
            std::time::Duration::ZERO,
        )
        .await;
    });
}
