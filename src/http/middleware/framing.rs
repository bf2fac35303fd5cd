//! Where one request ends and the next one begins.

use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;

/// Ends the connection after a request whose body came in chunks over HTTP/1.
///
/// A request with both `Transfer-Encoding` and `Content-Length` is how one
/// request is smuggled inside another, past a proxy that believes the length.
/// RFC 9112 §6.1 lets a server read it by its chunks and has it close the
/// connection then. hyper does the first and takes the length away, so that
/// nobody behind it can tell; hence every request in chunks closes. Those who
/// call this service know their lengths, so that it costs nobody a connection.
pub(crate) async fn close_after_chunks(request: Request, next: Next) -> Response {
    let in_chunks = request.version() <= Version::HTTP_11
        && request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = next.run(request).await;
    if in_chunks {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
