//! A service to talk to, and something to say.

mod process;
mod service;

pub(crate) use process::KmsProcess;
pub(crate) use service::{Answer, TestKms};

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An approval as development takes it.
pub(crate) const APPROVAL: &str = "approval-token-123";

/// A scope with these fields added.
pub(crate) fn in_scope(fields: Value) -> Value {
    in_tenant("tenant123", fields)
}

/// A scope of this tenant with these fields added.
pub(crate) fn in_tenant(tenant_id: &str, fields: Value) -> Value {
    let mut body = json!({
        "tenant_id": tenant_id,
        "environment": "prod",
        "plane": "laptop",
    });
    let scope = body.as_object_mut().expect("an object");
    scope.extend(fields.as_object().expect("an object").clone());
    body
}

/// The same scope as a query string.
pub(crate) const SCOPE_QUERY: &str = "tenant_id=tenant123&environment=prod&plane=laptop";

/// Standard base64 with padding.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes behind standard base64.
pub(crate) fn unbase64(text: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text.as_str().expect("a text"))
        .expect("base64")
}

/// Waits until something is there, or fails the test.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not come to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
