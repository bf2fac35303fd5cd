//! What was sent and what came back, recorded from a running service; the tests send
//! it again.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// Both, by the operation's id.
static RECORDED: LazyLock<BTreeMap<String, Recorded>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

#[derive(Deserialize)]
struct Recorded {
    request: Option<Value>,
    answer: Option<Value>,
}

/// What was sent to this operation.
pub(super) fn request(operation_id: &str) -> Option<Value> {
    RECORDED.get(operation_id)?.request.clone()
}

/// What it answered.
pub(super) fn answer(operation_id: &str) -> Option<Value> {
    RECORDED.get(operation_id)?.answer.clone()
}
