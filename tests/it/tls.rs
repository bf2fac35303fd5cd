//! Whoever has no certificate that somebody in force vouches for gets no word in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use kms::app::App;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{
    Answer, KmsProcess, Pki, SCOPE_QUERY, TestAuthority, TestKms, base64, config, eventually,
    in_scope, in_tenant, spiffe_name,
};

async fn post(kms: &TestKms, client: &Client, path: &str, body: &Value) -> Answer {
    Answer::of(kms.request_over(client, Method::POST, path).json(body)).await
}

/// Takes an authority in as an anchor of the usual scope; its id.
async fn take_in(kms: &TestKms, authority: &TestAuthority) -> String {
    let body = in_scope(json!({
        "certificate": base64(authority.der()), "anchor_type": "internal_ca",
    }));
    let answer = kms.post("/kms/v1/trust-anchors", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.body["trust_anchor_id"].as_str().expect("an id");
    id.to_owned()
}

#[tokio::test]
async fn a_client_with_a_certificate_works_with_keys() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let key_id = kms.generate_id("Ed25519").await;
    let signed = kms.sign(&key_id, b"over TLS").await;
    let verified = kms
        .verify(&key_id, b"over TLS", &signed.ok()["signature"])
        .await;
    assert_eq!(verified.ok()["valid"], true);
}

/// What curl says of a GET with this certificate; its exit code where it fails.
async fn curl(kms: &TestKms, pki: &Pki, arguments: &[&str]) -> Result<String, Option<i32>> {
    let certificate = pki.path("curl.pem");
    pki.write("curl.pem", pki.client("tenant123", "M21").pem());
    let mut command = std::process::Command::new("curl");
    command
        .args(["--silent", "--output", "/dev/null", "--write-out"])
        .arg("%{http_code} over HTTP/%{http_version}")
        .arg("--cacert")
        .arg(pki.path("ca.pem"))
        .arg("--cert")
        .arg(certificate)
        .args(arguments)
        .arg(format!("https://{}/kms/v1/config", kms.address()));
    let ended = tokio::task::spawn_blocking(move || command.output().expect("curl runs"));
    let ended = ended.await.expect("no panic");
    if !ended.status.success() {
        return Err(ended.status.code());
    }
    Ok(String::from_utf8(ended.stdout).expect("text"))
}

#[tokio::test]
async fn another_library_speaks_tls_1_3_with_either_http_and_no_older_tls() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let said = curl(&kms, &pki, &["--http2"]).await;
    assert_eq!(said.as_deref(), Ok("200 over HTTP/2"));
    let said = curl(&kms, &pki, &["--http1.1"]).await;
    assert_eq!(said.as_deref(), Ok("200 over HTTP/1.1"));
    // CURLE_SSL_CONNECT_ERROR.
    let said = curl(&kms, &pki, &["--tls-max", "1.2"]).await;
    assert_eq!(said, Err(Some(35)));
    assert_eq!(kms.handshakes_refused("protocol_version").await, 1);
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_that_is_vouched_for() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let request = kms.request_over(&pki.nameless(), Method::GET, "/health");
    assert!(request.send().await.is_err());
    assert_eq!(kms.handshakes_refused("no_certificate").await, 1);

    let stranger = TestAuthority::new("stranger").client("tenant123", "M21");
    assert!(!kms.lets_in(&pki, &stranger).await);
    assert_eq!(kms.handshakes_refused("unknown_authority").await, 1);

    let misnamed = pki.authority().client_named("spiffe://test.example/M21");
    assert!(!kms.lets_in(&pki, &misnamed).await);
    assert_eq!(kms.handshakes_refused("bad_name").await, 1);

    assert!(kms.lets_in(&pki, &pki.client("tenant123", "M21")).await);
}

#[tokio::test]
async fn plain_http_is_turned_away_and_the_operations_listener_speaks_it() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let address = kms.address();
    let said = tokio::task::spawn_blocking(move || {
        let mut plain = TcpStream::connect(address).expect("it listens");
        plain
            .write_all(b"GET /health HTTP/1.1\r\nHost: kms\r\n\r\n")
            .expect("sent");
        let mut said = Vec::new();
        plain.read_to_end(&mut said).expect("a clean end");
        said
    });
    // A TLS alert, and nothing of HTTP.
    assert_eq!(said.await.expect("no panic").first(), Some(&21));
    assert_eq!(kms.handshakes_refused("not_tls").await, 1);
    let request = kms.operations_request(Method::GET, "/kms/v1/health");
    let health = Answer::of(request).await;
    let names: Vec<&str> = health.ok()["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    for unit in ["tls_certificate", "client_ca", "crl"] {
        assert!(names.contains(&unit), "{unit} in {names:?}");
    }
}

#[tokio::test]
async fn a_caller_speaks_for_the_scope_of_its_certificate_and_for_no_other() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let key_id = kms.generate_id("Ed25519").await;
    let fields = json!({ "key_id": key_id, "data": base64("x") });
    let other = pki.connector(&pki.client("tenant124", "M21"));
    let body = in_scope(fields.clone());
    let answer = post(&kms, &other, "/kms/v1/sign", &body).await;
    answer.refused(403, "UNAUTHORIZED");
    // In its own scope there is no such key.
    let body = in_tenant("tenant124", fields.clone());
    let answer = post(&kms, &other, "/kms/v1/sign", &body).await;
    answer.refused(404, "KEY_NOT_FOUND");

    let plane = spiffe_name("tenant123", "prod", "tenant", "M21");
    let other = pki.connector(&pki.authority().client_named(&plane));
    let body = in_scope(fields);
    let answer = post(&kms, &other, "/kms/v1/sign", &body).await;
    answer.refused(403, "UNAUTHORIZED");
}

#[tokio::test]
async fn an_anchor_lets_its_tenants_clients_in_and_nobody_elses() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let anchor = TestAuthority::new("tenant's own");
    let below = anchor.below("below it");
    let client = below.client("tenant123", "M27").with_above(&below);
    assert!(!kms.lets_in(&pki, &client).await);
    take_in(&kms, &anchor).await;
    assert!(kms.lets_in(&pki, &client).await);
    assert!(kms.lets_in(&pki, &anchor.client("tenant123", "M27")).await);
    for (tenant, module) in [("tenant124", "M27"), ("GLOBAL", "M32")] {
        assert!(!kms.lets_in(&pki, &anchor.client(tenant, module)).await);
    }
}

#[tokio::test]
async fn connections_end_with_the_anchor_they_live_by_after_the_last_answer() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let anchor = TestAuthority::new("tenant's own");
    let id = take_in(&kms, &anchor).await;
    let (idle, remover) = (
        pki.connector(&anchor.client("tenant123", "M27")),
        pki.connector(&anchor.client("tenant123", "M32")),
    );
    let ask =
        |client: &Client| Answer::attempt(kms.request_over(client, Method::GET, "/kms/v1/config"));
    for client in [&idle, &remover] {
        assert_eq!(ask(client).await.expect("let in").status, 200);
    }
    let path = format!("/kms/v1/trust-anchors/{id}?{SCOPE_QUERY}");
    let removed = Answer::of(kms.request_over(&remover, Method::DELETE, &path)).await;
    removed.ok();
    // Asked at once, an old connection may still be ending; it says no, too.
    for client in [&idle, &remover] {
        eventually("the end of the connection", || async {
            match ask(client).await {
                None => Some(()),
                Some(answer) => {
                    assert_eq!(answer.status, 401);
                    None
                }
            }
        })
        .await;
    }
    // Those of the configuration live on.
    kms.get_scoped("/kms/v1/keys").await.ok();
}

#[tokio::test]
async fn a_certificate_that_is_revoked_while_the_service_runs_is_refused() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let (client, other) = (
        pki.client("tenant123", "M27"),
        pki.client("tenant123", "M27"),
    );
    assert!(kms.lets_in(&pki, &client).await);
    pki.revoke(&[&client]);
    eventually("the refusal", || async {
        (!kms.lets_in(&pki, &client).await).then_some(())
    })
    .await;
    assert!(kms.handshakes_refused("revoked").await >= 1);
    assert!(kms.lets_in(&pki, &other).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_all_in_one_message() {
    let pki = Pki::new();
    pki.write("server.pem", "nothing");
    pki.write("ca.pem", "nothing");
    pki.write("ca.crl", "nothing");
    let files = pki.settings();
    let settings: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let started = App::start(&config(&data, &settings)).await;
    let message = started.err().expect("a fault").to_string();
    for setting in ["tls.certificate", "tls.client_ca", "tls.crl"] {
        assert!(message.contains(setting), "{setting} in {message}");
    }
    assert!(!data.exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_try_out_infrastructure_is_made_once_and_never_over_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("pki");
    let arguments = ["dev-pki", "--out", out.to_str().expect("UTF-8")];
    let made = KmsProcess::run(folder.path(), &arguments, &[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stdout.starts_with("FOR TRYING OUT ONLY"), "{made:?}");
    let again = KmsProcess::run(folder.path(), &arguments, &[]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("ca.key"), "{again:?}");
}
