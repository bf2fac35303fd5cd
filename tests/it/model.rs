//! A model that counts: whatever is asked, one after the other or all at once, the
//! ledger has one receipt for each request that reached an operation, and none for
//! any other.
//!
//! **These leave one receipt**, whatever comes of them: well-formed requests, by a
//! caller who is known and within its rate, to make, rotate or revoke a key, to sign,
//! verify, encrypt or decrypt, and to add or remove a trust anchor. So do those that
//! are refused because the key is not there, or is in another state, or its policy,
//! its daily limit or a missing approval forbids it; because the ciphertext does not
//! open, the algorithm is not the key's, the usage does not fit the type, the alias is
//! taken, the certificate is none or the anchor unknown; and because the scope is
//! another's, whose refusal is written into the caller's own.
//!
//! **These leave none**: what is malformed (a body, a field, an id in a path, two
//! approvals, another media type), unknown paths and methods,
//! callers that nobody knows or that ask too fast, and everything that only reads.

mod requests;
mod world;

use std::collections::HashMap;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use self::requests::{Expected, Planned, Subject, plan};
use self::world::{Outcome, Who, World};
use crate::support::{
    Answer, Pki, SCOPE_QUERY, Seed, TestKms, UNTHROTTLED, all_at_once, leaves, text,
};

/// Steps one after the other.
const STEPS: usize = 400;

/// Crowds of requests at once, and how many in each.
const CROWDS: usize = 12;
const CROWD: usize = 24;

/// The service, its callers, and the receipts that they have to find.
struct Clerk {
    kms: TestKms,
    module: Client,
    stranger: Client,
    other_tenant: Client,
    owed: Vec<Owed>,
}

/// A receipt that has to be there.
struct Owed {
    request_id: String,
    who: Who,
    operation: &'static str,
    subject: Value,
    success: bool,
    code: Value,
}

impl Clerk {
    async fn start() -> Self {
        let pki = Pki::new();
        Self {
            kms: TestKms::start_tls(&pki, &UNTHROTTLED).await,
            module: pki.connector(&pki.client("tenant123", "M21")),
            stranger: pki.connector(&pki.client("tenant123", "M90")),
            other_tenant: pki.connector(&pki.client("other", "M21")),
            owed: Vec::new(),
        }
    }

    fn request(&self, planned: &Planned) -> RequestBuilder {
        let client = match planned.who {
            Who::Module => &self.module,
            Who::Stranger => &self.stranger,
            Who::OtherTenant => &self.other_tenant,
        };
        let method = planned.method.clone();
        let mut request = self.kms.request_over(client, method, &planned.path);
        if let Some(body) = &planned.body {
            let chosen = planned
                .headers
                .iter()
                .any(|(name, _)| *name == "content-type");
            if !chosen {
                request = request.header("content-type", "application/json");
            }
            request = request.body(body.clone());
        }
        for (name, value) in &planned.headers {
            request = request.header(*name, value);
        }
        request
    }

    /// Writes down which receipt an answer promises.
    fn note(&mut self, planned: &Planned, answer: &Answer) {
        let Some(expected) = &planned.receipt else {
            assert_eq!(
                answer.status, planned.status,
                "{planned:?}: {}",
                answer.text
            );
            return;
        };
        let made = match expected.operation {
            "generate" => &answer.body["key_id"],
            _ => &answer.body["trust_anchor_id"],
        };
        let subject = match &expected.subject {
            Subject::Is(id) => json!(id),
            Subject::Made => made.clone(),
        };
        let is_done = answer.status.is_success();
        self.owed.push(Owed {
            request_id: answer.headers["x-request-id"]
                .to_str()
                .expect("text")
                .to_owned(),
            who: planned.who,
            operation: expected.operation,
            subject,
            success: is_done && answer.body["valid"] != false,
            code: answer.body["error"]["code"].clone(),
        });
    }

    /// Holds the ledger to what was owed, and to nothing else.
    async fn settle(self) {
        let folder = self.kms.stop().await;
        let mut receipts = HashMap::new();
        for leaf in leaves(folder.path()) {
            let receipt: Value = serde_json::from_str(&leaf).expect("JSON");
            let request_id = text(&receipt["request_id"]).to_owned();
            let twice = receipts.insert(request_id, receipt);
            assert!(twice.is_none(), "two receipts of one request: {leaf}");
        }
        for owed in self.owed {
            let receipt = receipts.remove(&owed.request_id);
            let receipt = receipt
                .unwrap_or_else(|| panic!("no receipt of {} {}", owed.operation, owed.request_id));
            let context = &receipt["kms_context"];
            assert_eq!(context["operation_type"], owed.operation, "{receipt}");
            assert_eq!(context["key_id"], owed.subject, "{receipt}");
            assert_eq!(context["success"], owed.success, "{receipt}");
            assert_eq!(context["error_code"], owed.code, "{receipt}");
            assert_eq!(receipt["requesting_module"], owed.who.module(), "{receipt}");
            assert_eq!(receipt["tenant_id"], owed.who.tenant(), "{receipt}");
        }
        assert!(receipts.is_empty(), "nobody asked for {receipts:?}");
    }

    /// Holds the service's keys and anchors to the model's.
    async fn compare(&self, world: &World) {
        let list = async |path: &str| {
            let path = format!("{path}?limit=1000&{SCOPE_QUERY}");
            self.kms.get(&path).await.ok().clone()
        };
        let keys = list("/kms/v1/keys").await;
        let keys = keys["keys"].as_array().expect("a list").iter();
        let mut keys: Vec<Value> = keys
            .map(|key| json!([key["key_id"], key["key_state"]]))
            .collect();
        keys.sort_by_key(Value::to_string);
        let anchors = list("/kms/v1/trust-anchors").await;
        let anchors = anchors["trust_anchors"].as_array().expect("a list").iter();
        let mut anchors: Vec<&Value> = anchors.map(|one| &one["trust_anchor_id"]).collect();
        anchors.sort_by_key(|id| id.to_string());
        assert_eq!(json!({ "keys": keys, "anchors": anchors }), world.listing());
    }
}

/// Checks that the answer is the one that the model expects.
#[track_caller]
fn assert_as_expected(expected: &Expected, planned: &Planned, answer: &Answer) {
    let Outcome { success, code } = expected.outcome;
    assert_eq!(
        answer.body["error"]["code"].as_str(),
        code,
        "{planned:?}: {}",
        answer.text
    );
    let is_done = answer.status.is_success() && answer.body["valid"] != false;
    assert_eq!(is_done, success, "{planned:?}: {}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_reaches_an_operation_leaves_its_receipt_and_no_other_does() {
    let seed = Seed::of("KMS_MODEL_SEED");
    let mut random = seed.random();
    let mut clerk = Clerk::start().await;
    let mut world = World::default();
    for _ in 0..STEPS {
        let planned = plan(&world, &mut random);
        let answer = Answer::of(clerk.request(&planned)).await;
        if let Some(expected) = &planned.receipt {
            assert_as_expected(expected, &planned, &answer);
        }
        clerk.note(&planned, &answer);
        world.follow(&planned.effect, &answer);
    }
    clerk.compare(&world).await;
    clerk.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_at_once_each_leaves_the_receipt_of_its_own_answer() {
    let seed = Seed::of("KMS_MODEL_SEED");
    let mut random = seed.random();
    let mut clerk = Clerk::start().await;
    let mut world = World::default();
    for _ in 0..CROWDS {
        // An alias may pass to another key in the middle of a crowd, and only the
        // receipt knows which of them it was.
        let by_id = |planned: &Planned| {
            let names_alias = |text: &str| text.contains("alias/");
            !names_alias(&planned.path) && !planned.body.as_deref().is_some_and(names_alias)
        };
        let crowd: Vec<Planned> = std::iter::repeat_with(|| plan(&world, &mut random))
            .filter(by_id)
            .take(CROWD)
            .collect();
        let requests = crowd.iter().map(|planned| clerk.request(planned)).collect();
        let answers = all_at_once(requests).await;
        for (planned, answer) in crowd.iter().zip(&answers) {
            assert!(answer.status.as_u16() < 500, "{planned:?}: {}", answer.text);
            clerk.note(planned, answer);
        }
        // In an order in which all that was done can have been done.
        let mut done: Vec<_> = crowd.iter().zip(&answers).collect();
        done.sort_by_key(|(planned, _)| planned.effect.rank());
        for (planned, answer) in done {
            world.follow(&planned.effect, answer);
        }
        clerk.compare(&world).await;
    }
    clerk.settle().await;
}

#[tokio::test]
async fn who_asks_too_fast_leaves_receipts_of_what_was_let_through_alone() {
    let slow = [
        ("KMS__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("KMS__LIMITS__BURST", "5"),
    ];
    let kms = TestKms::start_with(&slow).await;
    let before = kms.ledger_size().await;
    let sign = json!({ "tenant_id": "tenant123", "environment": "prod", "plane": "laptop",
        "key_id": "alias/nobody", "data": "" });
    let requests = (0..30).map(|_| kms.post_request("/kms/v1/sign", &sign));
    let answers = all_at_once(requests.collect()).await;
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert!(refused > 0);
    let reached = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!(reached + refused, answers.len());
    assert_eq!(kms.ledger_size().await, before + reached as u64);
}
