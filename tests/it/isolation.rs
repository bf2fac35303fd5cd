//! No caller sees, uses, changes or writes into any scope but its own.
//!
//! A matrix over mutual TLS: every endpoint, asked by a caller of every scope, in
//! every scope, for the things of somebody. All pairs of the first two scopes are
//! in it with every endpoint; the owner takes turns where they differ, and is every
//! scope and nobody where they are the same. Every other request that is to be
//! refused brings an approval.

mod endpoints;
mod scopes;
mod timing;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use self::endpoints::{Endpoint, Names, every_endpoint, every_route};
use self::scopes::{Compartment, Scope, Things};
use crate::support::{Answer, Pki, TestKms, UNTHROTTLED, open_store, text, without};

/// How many requests are under way at once.
const LANES: usize = 64;

/// One request of the matrix. Scopes are numbers here.
#[derive(Clone, Copy, Debug)]
struct Cell {
    endpoint: usize,
    caller: usize,
    /// The scope in the request.
    asked: usize,
    /// Whose things it names.
    owner: Option<usize>,
    /// Whether it brings an approval.
    is_approved: bool,
}

/// What must come of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    ForeignScope,
    NotFound,
    Done,
}

/// The rule, all of it.
fn outcome(cell: Cell, names: Names) -> Outcome {
    match names {
        Names::Nothing => Outcome::Done,
        _ if cell.asked != cell.caller => Outcome::ForeignScope,
        Names::Key | Names::Record if cell.owner != Some(cell.caller) => Outcome::NotFound,
        _ => Outcome::Done,
    }
}

/// Everything in an answer that could tell one refusal from another.
#[derive(Debug, PartialEq)]
struct Appearance {
    status: u16,
    error: Value,
    /// With their values, where these are not the request's own.
    headers: BTreeMap<String, String>,
    length: usize,
}

impl Appearance {
    /// What differs from one request to the next, whoever asks for whatever.
    const OF_THE_REQUEST: [&str; 6] = [
        "date",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-request-id",
        "x-span-id",
        "x-trace-id",
    ];

    fn of(answer: &Answer) -> Self {
        let headers = answer.headers.iter().map(|(name, value)| {
            let value = match Self::OF_THE_REQUEST.contains(&name.as_str()) {
                true => "",
                false => value.to_str().expect("text"),
            };
            (name.to_string(), value.to_owned())
        });
        Self {
            status: answer.status.as_u16(),
            error: without(answer.body["error"].clone(), "request_id"),
            headers: headers.collect(),
            length: answer.text.len(),
        }
    }
}

/// A service with compartments, and all there is to ask.
struct Matrix {
    kms: TestKms,
    endpoints: Vec<Endpoint>,
    compartments: Vec<Compartment>,
    nobodys: Things,
}

impl Matrix {
    async fn set_up(pki: &Pki) -> Self {
        let [rate, burst] = UNTHROTTLED;
        let approvals = ("KMS__APPROVALS__OPERATIONS", "key_lifecycle,trust_anchor");
        let kms = TestKms::start_tls(pki, &[rate, burst, approvals]).await;
        let mut compartments = Vec::new();
        for scope in Scope::all() {
            compartments.push(Compartment::furnish(&kms, pki, scope).await);
        }
        Self {
            kms,
            endpoints: every_endpoint(),
            compartments,
            nobodys: Things::of_nobody(),
        }
    }

    /// Every cell that must be refused.
    fn refusals(&self) -> Vec<Cell> {
        let scopes = 0..self.compartments.len();
        let mut cells = Vec::new();
        for caller in scopes.clone() {
            for endpoint in 0..self.endpoints.len() {
                let mut add = |asked, owner| {
                    cells.push(Cell {
                        endpoint,
                        caller,
                        asked,
                        owner,
                        // Whether a thing needs one must not tell that it is there.
                        is_approved: (endpoint + caller + cells.len()) % 2 == 0,
                    });
                };
                for other in scopes.clone().filter(|other| *other != caller) {
                    let owners = [Some(caller), Some(other), None];
                    add(other, owners[(endpoint + caller + other) % owners.len()]);
                }
                for owner in scopes.clone().map(Some).chain([None]) {
                    add(caller, owner);
                }
            }
        }
        cells.retain(|cell| self.outcome(*cell) != Outcome::Done);
        cells
    }

    fn outcome(&self, cell: Cell) -> Outcome {
        outcome(cell, self.endpoints[cell.endpoint].names)
    }

    fn request(&self, cell: Cell) -> RequestBuilder {
        let things = match cell.owner {
            Some(owner) => &self.compartments[owner].things,
            None => &self.nobodys,
        };
        self.endpoints[cell.endpoint].request(
            &self.kms,
            &self.compartments[cell.caller],
            &self.compartments[cell.asked],
            things,
            cell.is_approved,
        )
    }

    /// Sends all of these, each part one after the other and the parts at once.
    async fn send(&self, parts: impl Iterator<Item = &[Cell]>) -> Vec<(Cell, Answer)> {
        let mut lanes = Vec::new();
        for part in parts {
            let requests: Vec<_> = part
                .iter()
                .map(|cell| (*cell, self.request(*cell)))
                .collect();
            lanes.push(tokio::spawn(async move {
                let mut answers = Vec::with_capacity(requests.len());
                for (cell, request) in requests {
                    answers.push((cell, Answer::of(request).await));
                }
                answers
            }));
        }
        let mut answers = Vec::new();
        for lane in lanes {
            answers.extend(lane.await.expect("no panic"));
        }
        answers
    }

    async fn inventories(&self) -> Vec<[Value; 2]> {
        let mut inventories = Vec::new();
        for compartment in &self.compartments {
            inventories.push(compartment.inventory(&self.kms).await);
        }
        inventories
    }

    fn describe(&self, cell: Cell) -> String {
        let scope = |number: usize| self.compartments[number].scope;
        let endpoint = &self.endpoints[cell.endpoint];
        format!(
            "{} {}, caller {:?}, asked {:?}, owner {:?}, approved {}",
            endpoint.method,
            endpoint.route,
            scope(cell.caller),
            scope(cell.asked),
            cell.owner.map(scope),
            cell.is_approved,
        )
    }

    /// Checks that all are refused as the rule has it, and that no two refusals of
    /// one kind can be told apart.
    fn check_refusals(&self, answers: &[(Cell, Answer)]) {
        let mut usual: HashMap<(usize, bool), Appearance> = HashMap::new();
        for (cell, answer) in answers {
            let (outcome, names) = (self.outcome(*cell), self.endpoints[cell.endpoint].names);
            let (status, code) = match outcome {
                Outcome::ForeignScope => (403, "UNAUTHORIZED"),
                Outcome::NotFound if names == Names::Key => (404, "KEY_NOT_FOUND"),
                Outcome::NotFound => (404, "INVALID_REQUEST"),
                Outcome::Done => unreachable!("only refusals are here"),
            };
            let what = self.describe(*cell);
            assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
            answer.refused(status, code);
            let appearance = Appearance::of(answer);
            let kind = (cell.endpoint, outcome == Outcome::NotFound);
            match usual.get(&kind) {
                Some(usual) => assert_eq!(&appearance, usual, "{what}"),
                None => {
                    usual.insert(kind, appearance);
                }
            }
        }
    }

    /// Checks that from this place on the ledger holds one receipt of each of these
    /// requests that leaves one, in the part that is its caller's, and no others.
    async fn check_receipts(self, first: u64, answers: &[(Cell, Answer)]) {
        let mut missing = HashMap::new();
        for (cell, answer) in answers {
            if self.endpoints[cell.endpoint].is_attested {
                let id = answer.headers["x-request-id"].to_str().expect("text");
                missing.insert(id.to_owned(), (*cell, &answer.body["error"]["code"]));
            }
        }
        let scopes: Vec<Value> = self
            .compartments
            .iter()
            .map(|compartment| compartment.scope.fields())
            .collect();
        let folder = self.kms.stop().await;
        for receipt in receipts(folder.path(), first) {
            let id = text(&receipt.leaf["request_id"]);
            let (cell, code) = missing.remove(id).expect("a request that is not told yet");
            for name in ["tenant_id", "environment", "plane"] {
                let own = &scopes[cell.caller][name];
                assert_eq!(&receipt.leaf[name], own, "{cell:?}: {}", receipt.leaf);
                assert_eq!(&receipt.kept_under[name], own, "{cell:?}");
            }
            assert_eq!(&receipt.leaf["kms_context"]["error_code"], code, "{cell:?}");
        }
        assert!(missing.is_empty(), "without a receipt: {missing:?}");
    }
}

/// A receipt and the scope in which the store looks for it.
struct KeptReceipt {
    leaf: Value,
    kept_under: Value,
}

fn receipts(folder: &Path, first: u64) -> Vec<KeptReceipt> {
    let store = open_store(folder);
    let columns = "leaf, tenant_id, environment, plane";
    let query = format!(
        "SELECT {columns} FROM receipts JOIN scopes USING (scope) WHERE seq >= ?1 ORDER BY seq"
    );
    let mut statement = store.prepare(&query).expect("a table of receipts");
    let first = i64::try_from(first).expect("few");
    let rows = statement.query_map([first], |row| {
        let leaf: Vec<u8> = row.get(0)?;
        Ok(KeptReceipt {
            leaf: serde_json::from_slice(&leaf).expect("JSON"),
            kept_under: json!({
                "tenant_id": row.get::<_, String>(1)?,
                "environment": row.get::<_, String>(2)?,
                "plane": row.get::<_, String>(3)?,
            }),
        })
    });
    let rows: Result<_, _> = rows.expect("rows").collect();
    rows.expect("whole rows")
}

#[test]
fn every_route_that_needs_a_caller_is_in_the_matrix() {
    let mut asked: Vec<_> = every_endpoint()
        .into_iter()
        .map(|endpoint| (endpoint.method.to_string(), endpoint.route.to_owned()))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let mut routes: Vec<_> = every_route()
        .into_iter()
        .map(|(method, path)| (method.to_string(), path))
        .collect();
    routes.sort_unstable();
    assert_eq!(asked, routes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_reaches_what_is_in_its_own_scope_and_cannot_tell_the_rest_from_nothing() {
    let start = Instant::now();
    let pki = Pki::new();
    let matrix = Matrix::set_up(&pki).await;
    let furnished = start.elapsed();
    let (first, before) = (matrix.kms.ledger_size().await, matrix.inventories().await);

    let cells = matrix.refusals();
    let lane = cells.len().div_ceil(LANES);
    let mut answers = matrix.send(cells.chunks(lane)).await;
    matrix.check_refusals(&answers);
    let refused = start.elapsed();
    assert_eq!(matrix.inventories().await, before, "refusals changed it");

    let endpoints = matrix.endpoints.len();
    let own: Vec<Cell> = (0..matrix.compartments.len() * endpoints)
        .map(|number| Cell {
            endpoint: number % endpoints,
            caller: number / endpoints,
            asked: number / endpoints,
            owner: Some(number / endpoints),
            is_approved: true,
        })
        .collect();
    let done = matrix.send(own.chunks(endpoints)).await;
    let config = &done[0].1.body;
    for (cell, answer) in &done {
        let what = matrix.describe(*cell);
        assert!(answer.status.is_success(), "{what}: {}", answer.text);
        // The ledger's checkpoints are for everybody too, and grow meanwhile.
        if matrix.endpoints[cell.endpoint].route == "/kms/v1/config" {
            assert_eq!(&answer.body, config, "{what}");
        }
    }
    answers.extend(done);
    matrix.check_receipts(first, &answers).await;
    eprintln!(
        "{} requests in {:?}: furnished after {furnished:?}, refused after {refused:?}",
        answers.len(),
        start.elapsed(),
    );
}
