//! The compartments of the matrix, each with a caller and things of its own.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, Answer, Pki, TestAuthority, TestKms, UNKNOWN, base64, spiffe_name, text, with,
};

/// Two that differ in nothing but case: the nearest that two tenants can be.
const TENANTS: [&str; 2] = ["acme", "Acme"];
const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "prod"];
const PLANES: [&str; 4] = ["laptop", "tenant", "product", "shared"];

/// How often a pair and a secret may be used a day: as often as the caller they
/// belong to uses them here, so that it would notice if anybody else did.
const USES_OF_PAIR: u32 = 6;
const USES_OF_SECRET: u32 = 5;

/// What a request has to name, and what a caller's certificate says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    tenant: &'static str,
    environment: &'static str,
    plane: &'static str,
}

impl Scope {
    /// Every one of two tenants, and one of the platform's.
    pub(super) fn all() -> Vec<Self> {
        let mut scopes = vec![Self {
            tenant: "GLOBAL",
            environment: "prod",
            plane: "shared",
        }];
        for tenant in TENANTS {
            for environment in ENVIRONMENTS {
                scopes.extend(PLANES.map(|plane| Self {
                    tenant,
                    environment,
                    plane,
                }));
            }
        }
        scopes
    }

    /// As a body says it.
    pub(super) fn fields(&self) -> Value {
        json!({
            "tenant_id": self.tenant, "environment": self.environment, "plane": self.plane,
        })
    }

    /// As a query says it.
    pub(super) fn query(&self) -> String {
        format!(
            "tenant_id={}&environment={}&plane={}",
            self.tenant, self.environment, self.plane
        )
    }

    /// The name that a module of it has in its certificate.
    pub(super) fn name_of(&self, module: &str) -> String {
        spiffe_name(self.tenant, self.environment, self.plane, module)
    }
}

/// What a request can name, and what it takes to have it done.
pub(super) struct Things {
    /// An Ed25519 key, its alias, and its signature of nothing.
    pub(super) pair: String,
    pub(super) alias: String,
    pub(super) signature: String,
    /// An AES-256 key, and what it encrypted.
    pub(super) secret: String,
    pub(super) ciphertext: String,
    pub(super) iv: String,
    pub(super) anchor: String,
    pub(super) receipt: String,
    /// The certificate of an authority that nobody has taken in.
    pub(super) spare_certificate: String,
}

impl Things {
    /// Such as nobody has.
    pub(super) fn of_nobody() -> Self {
        Self {
            pair: UNKNOWN.to_owned(),
            alias: "pair-of-nobody".to_owned(),
            signature: base64([0; 64]),
            secret: UNKNOWN.to_owned(),
            ciphertext: base64([0; 16]),
            iv: base64([0; 12]),
            anchor: UNKNOWN.to_owned(),
            receipt: UNKNOWN.to_owned(),
            spare_certificate: base64(TestAuthority::new("nobody's").der()),
        }
    }
}

/// A scope, its caller and its things.
pub(super) struct Compartment {
    pub(super) scope: Scope,
    pub(super) client: Client,
    pub(super) things: Things,
}

impl Compartment {
    /// Gives a scope a caller, and the caller its things.
    pub(super) async fn furnish(kms: &TestKms, pki: &Pki, scope: Scope) -> Self {
        let certificate = pki.authority().client_named(&scope.name_of("M21"));
        let mut compartment = Self {
            scope,
            client: pki.connector(&certificate),
            things: Things::of_nobody(),
        };
        let alias = format!("pair-of-{}", scope.query().replace(['=', '&'], "."));
        let pair = json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"], "key_alias": alias,
            "access_policy": { "max_usage_per_day": USES_OF_PAIR },
        });
        let pair = compartment.post(kms, "/kms/v1/keys", pair).await;
        let secret = json!({
            "key_type": "AES-256", "key_usage": ["encrypt", "decrypt"],
            "access_policy": { "max_usage_per_day": USES_OF_SECRET },
        });
        let secret = compartment.post(kms, "/kms/v1/keys", secret).await;
        let signing = json!({ "key_id": pair["key_id"], "data": "" });
        let signed = compartment.post(kms, "/kms/v1/sign", signing).await;
        let encrypting = json!({ "key_id": secret["key_id"], "plaintext": "" });
        let encrypted = compartment.post(kms, "/kms/v1/encrypt", encrypting).await;
        let [anchor, spare] =
            ["anchor", "spare"].map(|kind| TestAuthority::new(&format!("{kind} of {scope:?}")));
        let adding = json!({ "certificate": base64(anchor.der()), "anchor_type": "internal_ca" });
        let added = compartment.post(kms, "/kms/v1/trust-anchors", adding).await;
        let own = |value: &Value| text(value).to_owned();
        compartment.things = Things {
            pair: own(&pair["key_id"]),
            alias,
            signature: own(&signed["signature"]),
            secret: own(&secret["key_id"]),
            ciphertext: own(&encrypted["ciphertext"]),
            iv: own(&encrypted["iv"]),
            anchor: own(&added["trust_anchor_id"]),
            receipt: own(&signed["receipt_id"]),
            spare_certificate: base64(spare.der()),
        };
        compartment
    }

    /// Everything that its caller finds in it: keys and anchors with all that is
    /// told of them.
    pub(super) async fn inventory(&self, kms: &TestKms) -> [Value; 2] {
        let keys = self.list(kms, "keys", "key_id").await;
        let anchors = self.list(kms, "trust-anchors", "trust_anchor_id").await;
        let Things {
            pair,
            secret,
            anchor,
            ..
        } = &self.things;
        assert_eq!(keys.0, [pair.as_str(), secret], "{:?}", self.scope);
        assert_eq!(anchors.0, [anchor.as_str()], "{:?}", self.scope);
        [keys.1, anchors.1]
    }

    async fn list(&self, kms: &TestKms, what: &str, id: &str) -> (Vec<String>, Value) {
        let path = format!("/kms/v1/{what}?{}", self.scope.query());
        let listed = Answer::of(kms.request_over(&self.client, Method::GET, &path)).await;
        let entries = listed.ok()[what.replace('-', "_")].as_array();
        let ids = entries.expect("a list").iter();
        let ids = ids.map(|entry| text(&entry[id]).to_owned()).collect();
        (ids, listed.body)
    }

    async fn post(&self, kms: &TestKms, path: &str, fields: Value) -> Value {
        let request = kms
            .request_over(&self.client, Method::POST, path)
            .header("X-Approval-Token", APPROVAL)
            .json(&with(self.scope.fields(), fields));
        let answer = Answer::of(request).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.body
    }
}
