//! What the service is asked: bodies, and keys to ask for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::servers::Server;

/// Whose keys they are.
pub(crate) const TENANT: &str = "bench";

/// What is signed.
pub(crate) const MESSAGE: [u8; 100] = [7; 100];

/// What is encrypted.
pub(crate) const KIBIBYTE: [u8; 1024] = [7; 1024];

/// How many items a batch has.
pub(crate) const BATCH: usize = 100;

/// More than anybody gets to.
const USES_A_DAY: u32 = 1_000_000_000;

/// A key that was made for the benchmark.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) tenant: String,
    pub(crate) id: String,
    /// SPKI PEM; empty of a symmetric key.
    pub(crate) public_key: String,
}

impl Key {
    /// Has one made for a tenant.
    pub(crate) async fn make(kms: &Server, tenant: &str, key_type: &str) -> Self {
        let made = kms.post("/kms/v1/keys", &generate(tenant, key_type)).await;
        Self {
            tenant: tenant.to_owned(),
            id: made["key_id"].as_str().expect("a key").to_owned(),
            public_key: made["public_key"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The body that signs with it.
    pub(crate) fn sign(&self, algorithm: &str) -> Value {
        let item = json!({ "data": base64(&MESSAGE) });
        self.one(algorithm, item)
    }

    /// The body of a request with the fields of one item.
    pub(crate) fn one(&self, algorithm: &str, item: Value) -> Value {
        let mut body = self.body(algorithm);
        for (name, value) in item.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    /// The body of a batch of as many of these.
    pub(crate) fn batch(&self, algorithm: &str, item: &Value) -> Value {
        let mut body = self.body(algorithm);
        body["items"] = vec![item.clone(); BATCH].into();
        body
    }

    fn body(&self, algorithm: &str) -> Value {
        let fields = json!({ "key_id": self.id, "algorithm": algorithm });
        scoped(&self.tenant, fields)
    }
}

/// The body that makes a key.
pub(crate) fn generate(tenant: &str, key_type: &str) -> Value {
    let usage = match key_type {
        "AES-256" => json!(["encrypt", "decrypt"]),
        _ => json!(["sign", "verify"]),
    };
    let fields = json!({
        "key_type": key_type,
        "key_usage": usage,
        "access_policy": { "max_usage_per_day": USES_A_DAY },
        "approval_token": "approved for the benchmark",
    });
    scoped(tenant, fields)
}

/// With whose keys it is about.
pub(crate) fn scoped(tenant: &str, mut fields: Value) -> Value {
    fields["tenant_id"] = json!(tenant);
    fields["environment"] = json!("dev");
    fields["plane"] = json!("tenant");
    fields
}

/// The same in a query.
pub(crate) fn scope_query(tenant: &str) -> String {
    format!("tenant_id={tenant}&environment=dev&plane=tenant")
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decoded(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).expect("base64")
}
