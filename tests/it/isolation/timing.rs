//! How long the two kinds of nothing take to be found out.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::scopes::Scope;
use crate::support::{Answer, Pki, TestKms, UNKNOWN, UNTHROTTLED, with};

/// How often each is asked for.
const ROUNDS: usize = 200;

/// Loose, since no machine is quiet enough for more: this is to find work that is
/// done for one and not for the other. The rest is for whoever reads the numbers.
const MOST_APART: u32 = 3;

/// A request for a key.
type Ask<'a> = &'a dyn Fn(&str) -> RequestBuilder;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn time_of(request: RequestBuilder) -> Duration {
    let start = Instant::now();
    let answer = Answer::of(request).await;
    let elapsed = start.elapsed();
    answer.refused(404, "KEY_NOT_FOUND");
    elapsed
}

#[tokio::test]
async fn a_foreign_key_takes_about_as_long_as_one_that_does_not_exist() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &UNTHROTTLED).await;
    // In use by its own caller, and so at hand wherever keys are kept at hand.
    let foreign = kms.generate_id("RSA-2048").await;
    kms.sign(&foreign, b"data").await.ok();
    let scope = Scope::all()[0];
    let name = scope.name_of("M21");
    let client = pki.connector(&pki.authority().client_named(&name));
    let show = |key: &str| {
        let path = format!("/kms/v1/keys/{key}?{}", scope.query());
        kms.request_over(&client, Method::GET, &path)
    };
    let sign = |key: &str| {
        let body = with(scope.fields(), json!({ "key_id": key, "data": "" }));
        let request = kms.request_over(&client, Method::POST, "/kms/v1/sign");
        request.json(&body)
    };
    let requests: [(&str, Ask); 2] = [("show", &show), ("sign", &sign)];
    for (what, request) in requests {
        let (mut of_foreign, mut of_unknown) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_foreign.push(time_of(request(&foreign)).await);
            of_unknown.push(time_of(request(UNKNOWN)).await);
        }
        let (of_foreign, of_unknown) = (median(of_foreign), median(of_unknown));
        eprintln!("{what}: {of_foreign:?} for a foreign key, {of_unknown:?} for an unknown one");
        assert!(of_foreign < of_unknown * MOST_APART, "{what}");
        assert!(of_unknown < of_foreign * MOST_APART, "{what}");
    }
}
