//! Every endpoint of the router, and how to ask it for somebody's things.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::scopes::{Compartment, Things};
use crate::support::{APPROVAL, TestKms, with};

/// What a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Not even a scope.
    Nothing,
    /// A scope and nothing in it.
    Scope,
    /// A key of a scope.
    Key,
    /// A trust anchor or a receipt of a scope.
    Record,
}

/// One way to ask one route for something.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) route: &'static str,
    pub(super) names: Names,
    /// Whether every request leaves a receipt, refused or not.
    pub(super) is_attested: bool,
    /// What stands in the braces of the route.
    in_path: fn(&Things) -> &str,
    /// What the body has beside the scope.
    fields: fn(&Things) -> Value,
    /// What the query has where there is no scope in it.
    query: &'static str,
}

impl Endpoint {
    fn new(method: Method, route: &'static str, names: Names) -> Self {
        Self {
            is_attested: method != Method::GET,
            method,
            route,
            names,
            in_path: |_| "",
            fields: |_| json!({}),
            query: "",
        }
    }

    fn at(mut self, in_path: fn(&Things) -> &str) -> Self {
        self.in_path = in_path;
        self
    }

    fn with(mut self, fields: fn(&Things) -> Value) -> Self {
        self.fields = fields;
        self
    }

    fn asking(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    /// A request of this caller, in the scope of `asked`, for these things,
    /// with an approval or without.
    pub(super) fn request(
        &self,
        kms: &TestKms,
        caller: &Compartment,
        asked: &Compartment,
        things: &Things,
        is_approved: bool,
    ) -> RequestBuilder {
        let mut path = format!("{}{}", self.path(things), self.query);
        let has_body = [Method::POST, Method::PATCH].contains(&self.method);
        if !has_body && self.names != Names::Nothing {
            path = format!("{path}?{}", asked.scope.query());
        }
        let mut request = kms.request_over(&caller.client, self.method.clone(), &path);
        if is_approved {
            request = request.header("X-Approval-Token", APPROVAL);
        }
        if has_body {
            request.json(&with(asked.scope.fields(), (self.fields)(things)))
        } else {
            request
        }
    }

    fn path(&self, things: &Things) -> String {
        match self.route.split_once('{') {
            None => self.route.to_owned(),
            Some((before, rest)) => {
                let (_, after) = rest.split_once('}').expect("a closing brace");
                format!("{before}{}{after}", (self.in_path)(things))
            }
        }
    }
}

/// All of them, in an order in which one caller can ask for its own things from
/// the first to the last.
pub(super) fn every_endpoint() -> Vec<Endpoint> {
    use Names::{Key, Nothing, Record, Scope};
    let get = |route, names| Endpoint::new(Method::GET, route, names);
    let post = |route, names| Endpoint::new(Method::POST, route, names);
    let patch = |route, names| Endpoint::new(Method::PATCH, route, names);
    let delete = |route, names| Endpoint::new(Method::DELETE, route, names);
    let reason = |_: &Things| json!({ "revocation_reason": "retired" });
    vec![
        get("/kms/v1/config", Nothing),
        get("/kms/v1/openapi.json", Nothing),
        get("/kms/v1/keys", Scope),
        get("/kms/v1/keys/{key_id}", Key).at(|things| &things.pair),
        get("/kms/v1/keys/alias/{alias}", Key).at(|things| &things.alias),
        get("/kms/v1/keys/{key_id}/versions", Key).at(|things| &things.pair),
        get("/kms/v1/keys/alias/{alias}/versions", Key).at(|things| &things.alias),
        get("/kms/v1/receipts/{receipt_id}", Record).at(|things| &things.receipt),
        get("/kms/v1/receipts", Scope),
        get("/kms/v1/ledger/checkpoint", Nothing),
        get("/kms/v1/ledger/consistency", Nothing).asking("?from=1"),
        get("/kms/v1/ledger/keys", Nothing),
        get("/kms/v1/ledger/tile/{tile}", Nothing).at(|_| "0/000.p/1"),
        get("/kms/v1/trust-anchors", Scope),
        post("/kms/v1/keys", Scope)
            .with(|_| json!({ "key_type": "Ed25519", "key_usage": ["sign", "verify"] })),
        post("/kms/v1/sign", Key).with(|things| json!({ "key_id": things.pair, "data": "" })),
        post("/kms/v1/sign", Key).with(|things| {
            json!({ "key_id": format!("alias/{}", things.alias), "data": "" })
        }),
        post("/kms/v1/verify", Key).with(
            |things| json!({ "key_id": things.pair, "data": "", "signature": things.signature }),
        ),
        post("/kms/v1/encrypt", Key)
            .with(|things| json!({ "key_id": things.secret, "plaintext": "" })),
        post("/kms/v1/decrypt", Key).with(|things| {
            json!({ "key_id": things.secret, "ciphertext": things.ciphertext, "iv": things.iv })
        }),
        post("/kms/v1/sign/batch", Key)
            .with(|things| json!({ "key_id": things.pair, "items": [{ "data": "" }] })),
        post("/kms/v1/verify/batch", Key).with(|things| {
            json!({
                "key_id": things.pair,
                "items": [{ "data": "", "signature": things.signature }],
            })
        }),
        post("/kms/v1/encrypt/batch", Key)
            .with(|things| json!({ "key_id": things.secret, "items": [{ "plaintext": "" }] })),
        post("/kms/v1/decrypt/batch", Key).with(|things| {
            json!({
                "key_id": things.secret,
                "items": [{ "ciphertext": things.ciphertext, "iv": things.iv }],
            })
        }),
        post("/kms/v1/trust-anchors", Scope).with(|things| {
            json!({ "certificate": things.spare_certificate, "anchor_type": "internal_ca" })
        }),
        delete("/kms/v1/trust-anchors/{trust_anchor_id}", Record).at(|things| &things.anchor),
        patch("/kms/v1/keys/alias/{alias}", Key)
            .at(|things| &things.alias)
            .with(|_| json!({ "access_policy": { "max_usage_per_day": 9_000 } })),
        // The alias moves on to the successor; the old key keeps its id.
        post("/kms/v1/keys/{key_id}/rotate", Key).at(|things| &things.pair),
        post("/kms/v1/keys/alias/{alias}/rotate", Key).at(|things| &things.alias),
        post("/kms/v1/keys/{key_id}/archive", Key).at(|things| &things.pair),
        post("/kms/v1/keys/{key_id}/revoke", Key)
            .at(|things| &things.pair)
            .with(reason),
        post("/kms/v1/keys/{key_id}/restore", Key).at(|things| &things.pair),
        post("/kms/v1/keys/alias/{alias}/revoke", Key)
            .at(|things| &things.alias)
            .with(reason),
        // The alias is free, and another key takes it.
        patch("/kms/v1/keys/{key_id}", Key)
            .at(|things| &things.secret)
            .with(|things| json!({ "key_alias": things.alias })),
        post("/kms/v1/keys/alias/{alias}/archive", Key).at(|things| &things.alias),
    ]
}

/// Method and path of every route that needs a caller, as the document has them, which
/// is held to the router.
pub(super) fn every_route() -> Vec<(Method, String)> {
    let document: Value =
        serde_json::from_slice(&kms::http::openapi_document()).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut routes = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("an item") {
            // Where nobody is asked who they are, there are no ways to say so.
            if operation["security"] != json!([]) {
                let method = method.to_uppercase().parse().expect("a method");
                routes.push((method, path.clone()));
            }
        }
    }
    routes
}
