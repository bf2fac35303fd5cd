//! A service to talk to, and something to say.

pub(crate) mod approver;
mod contract;
pub(crate) mod desk;
pub(crate) mod fake_service;
mod faulty_disk;
mod issuer;
mod ledger;
mod mixed_load;
mod operations;
pub(crate) mod outsider;
mod pki;
mod process;
mod random;
mod raw;
pub(crate) mod renewing;
mod service;
mod small_disk;
pub(crate) mod token;
mod token_load;
mod token_proxy;
pub(crate) mod token_service;
pub(crate) mod tools;

pub(crate) use approver::{Approver, SignedKms};
pub(crate) use contract::{Exchange, is_preflight};
pub(crate) use faulty_disk::FaultyDisk;
pub(crate) use issuer::{Issuer, public_rsa_forms};
pub(crate) use ledger::{leaves, ledger_key, open_store};
pub(crate) use mixed_load::{LATEST, MixedLoad};
pub(crate) use operations::{FoundReceipt, all_at_once};
pub(crate) use pki::{ClientCertificate, Pki, TestAuthority, spiffe_name};
pub(crate) use process::{Ended, KmsProcess};
pub(crate) use random::{Random, Seed, setting};
pub(crate) use raw::RawConnection;
pub(crate) use service::{Answer, TestKms, config};
pub(crate) use small_disk::SmallDisk;
pub(crate) use token_load::{BACK_WITHIN, TokenLoad};
pub(crate) use token_proxy::TokenProxy;
pub(crate) use token_service::TokenService;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// An approval as development takes it.
pub(crate) const APPROVAL: &str = "approval-token-123";

/// An id that no key has, and no receipt.
pub(crate) const UNKNOWN: &str = "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e";

/// A rate that no test reaches, for those that send much at once.
pub(crate) const UNTHROTTLED: [(&str, &str); 2] = [
    ("KMS__LIMITS__REQUESTS_PER_SECOND", "100000"),
    ("KMS__LIMITS__BURST", "100000"),
];

/// The usual scope with these fields added, or put in its place.
pub(crate) fn in_scope(fields: Value) -> Value {
    with(
        json!({
            "tenant_id": "tenant123",
            "environment": "prod",
            "plane": "laptop",
        }),
        fields,
    )
}

/// A scope of this tenant with these fields added.
pub(crate) fn in_tenant(tenant_id: &str, fields: Value) -> Value {
    in_scope(with(fields, json!({ "tenant_id": tenant_id })))
}

/// An object with these fields added, or put in the place of its own.
pub(crate) fn with(mut body: Value, fields: Value) -> Value {
    let object = body.as_object_mut().expect("an object");
    object.extend(fields.as_object().expect("an object").clone());
    body
}

/// An object without this field.
pub(crate) fn without(mut body: Value, field: &str) -> Value {
    let object = body.as_object_mut().expect("an object");
    object.remove(field).expect("a field to take away");
    body
}

/// The names of an object's fields, sorted.
pub(crate) fn field_names(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

/// The text of a field.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
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

/// Drives all of them on this task, so that they may borrow.
pub(crate) async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        match futures.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}
