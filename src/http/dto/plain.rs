//! The answers that are given a thousand times a second, written straight into the
//! buffer that is sent.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::domain::algorithm::Algorithm;
use crate::domain::binary::append_base64;
use crate::domain::ids::{KeyId, ReceiptId};

/// Room for the fields that every such answer has.
const USUAL_LEN: usize = 256;

/// Room for the headers that an answer gets on its way out.
const USUAL_HEADERS: usize = 24;

/// An object of which no text has anything to escape (RFC 8259 §7): base64, ids, and
/// names of our own. Each field is written where it is named.
pub(crate) struct PlainAnswer(Vec<u8>);

impl PlainAnswer {
    /// An object without fields yet, and room for so many bytes in base64.
    pub(crate) fn with_room_for(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes / 3 * 4 + USUAL_LEN);
        buffer.push(b'{');
        Self(buffer)
    }

    /// A field of bytes, in base64.
    pub(crate) fn bytes(mut self, name: &'static str, bytes: &[u8]) -> Self {
        self.name(name);
        self.0.push(b'"');
        append_base64(bytes, &mut self.0);
        self.0.push(b'"');
        self
    }

    /// A field that is one of our own words.
    pub(crate) fn word(self, name: &'static str, word: &'static str) -> Self {
        self.text(name, word)
    }

    /// A field that is true or false.
    pub(crate) fn flag(mut self, name: &'static str, is_set: bool) -> Self {
        self.name(name);
        let written: &[u8] = if is_set { b"true" } else { b"false" };
        self.0.extend_from_slice(written);
        self
    }

    /// The fields that say how it came about, and the end.
    pub(crate) fn finish(
        self,
        key_id: KeyId,
        algorithm: Algorithm,
        receipt_id: ReceiptId,
    ) -> Response {
        let mut answer = self
            .text("key_id", key_id.as_text().as_ref())
            .text("algorithm", algorithm.as_str())
            .text("receipt_id", receipt_id.as_text().as_ref());
        answer.0.push(b'}');
        let json = HeaderValue::from_static("application/json");
        let mut response = Body::from(answer.0).into_response();
        // Once, and not as the layers add theirs.
        response.headers_mut().reserve(USUAL_HEADERS);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    fn text(mut self, name: &'static str, text: &str) -> Self {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        self
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::domain::algorithm::KeyType;

    #[tokio::test]
    async fn an_answer_is_the_json_that_serde_would_write() {
        for key_type in KeyType::ALL {
            for algorithm in key_type.algorithms() {
                let (key_id, receipt_id) = (KeyId::generate(), ReceiptId::generate());
                let response = PlainAnswer::with_room_for(4)
                    .flag("valid", true)
                    .flag("wrong", false)
                    .word("status", "verified")
                    .bytes("signature", b"\xff\x00\xfb?")
                    .finish(key_id, *algorithm, receipt_id);
                assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
                let body = response.into_body().collect().await.expect("a body");
                let expected = serde_json::json!({
                    "valid": true,
                    "wrong": false,
                    "status": "verified",
                    "signature": "/wD7Pw==",
                    "key_id": key_id,
                    "algorithm": algorithm,
                    "receipt_id": receipt_id,
                });
                let read: serde_json::Value =
                    serde_json::from_slice(&body.to_bytes()).expect("JSON");
                assert_eq!(read, expected);
            }
        }
    }
}
