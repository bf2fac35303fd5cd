//! Trust anchors.

use axum::http::{Method, StatusCode};

use super::ANCHORS;
use crate::domain::error::{Dependency, RequestFault};
use crate::domain::ids::TrustAnchorId;
use crate::http::dto::{
    AddTrustAnchorBody, ListTrustAnchorsQuery, ScopeQuery, TrustAnchorAnswer,
    TrustAnchorListAnswer, TrustAnchorRemovedAnswer,
};
use crate::http::openapi::describe::Schemas;
use crate::http::openapi::failures::{self, away};
use crate::http::openapi::operation::Operation;

pub(super) fn operations() -> Vec<Operation> {
    let path = "/kms/v1/trust-anchors";
    let one = "/kms/v1/trust-anchors/{trust_anchor_id}";
    let ledger = || vec![("ledger", away(Dependency::Ledger))];
    vec![
        Operation::new::<TrustAnchorAnswer>(ANCHORS, Method::POST, path, "addTrustAnchor", "Adds a trust anchor")
            .about("A CA certificate that RFC 5280 and the verifier can stand by. From the next handshake on it vouches for its own tenant in its own environment; one of the tenant `GLOBAL` for all.")
            .answers_with(StatusCode::CREATED)
            .body(Schemas::asked::<AddTrustAnchorBody>)
            .scoped()
            .approvable()
            .fails(failures::of_a_certificate())
            .fails(ledger()),
        Operation::new::<TrustAnchorListAnswer>(ANCHORS, Method::GET, path, "listTrustAnchors", "Lists the trust anchors of a scope")
            .query::<ListTrustAnchorsQuery>()
            .scoped(),
        Operation::new::<TrustAnchorRemovedAnswer>(ANCHORS, Method::DELETE, one, "removeTrustAnchor", "Removes a trust anchor")
            .about("From the answer on it vouches for nobody, and connections that lived by it end. The approval comes in the header only.")
            .in_path::<TrustAnchorId>("trust_anchor_id", "The anchor, by the id that was answered when it was added.")
            .query::<ScopeQuery>()
            .scoped()
            .approvable()
            .fails(vec![("no_such_anchor", RequestFault::UnknownTrustAnchor.into())])
            .fails(ledger()),
    ]
}
