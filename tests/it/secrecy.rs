//! No secret that passes through the service stays anywhere: not in its log at
//! the most talkative level, not in its files, not in what it says of mistakes.

mod canary;

use std::path::Path;

use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use canary::{Canary, assert_no_private_key_in, assert_not_in, contains, files};

use crate::support::{Answer, KmsProcess, base64, in_scope, unbase64, with};

const DATA: &str = "canary-data-to-be-signed-81b2c7";
const PLAINTEXT: &str = "canary-plaintext-to-hide-44d09a";
const AAD: &str = "canary-authenticated-data-1f6e3c";
const TOKEN_IN_HEADER: &str = "canary-approval-in-header-93aa20";
const TOKEN_IN_BODY: &str = "canary-approval-in-body-5bd1e8";
const BEARER: &str = "canary-bearer-token-of-m21-c0ffee";
const COOKIE: &str = "canary-cookie-of-a-browser-2d77f1";
const PIN: &str = "canary-pin-of-the-token-6e52b9";
const WRONG_FIELD: &str = "canary-in-a-field-nobody-knows-e1";
const WRONG_TYPE: &str = "canary-as-a-value-of-wrong-type-f2";
const BROKEN_JSON: &str = "canary-inside-of-broken-json-a3b4";
const IN_PATH: &str = "canary-in-a-path-nobody-serves-c5";
const IN_QUERY: &str = "canary-in-a-query-nobody-reads-d6";
const IN_MODULE: &str = "canary in a module that is none!";
const IN_TRACE: &str = "canary-in-a-traceparent-that-is-none";

const SENT: [&str; 15] = [
    DATA,
    PLAINTEXT,
    AAD,
    TOKEN_IN_HEADER,
    TOKEN_IN_BODY,
    BEARER,
    COOKIE,
    PIN,
    WRONG_FIELD,
    WRONG_TYPE,
    BROKEN_JSON,
    IN_PATH,
    IN_QUERY,
    IN_MODULE,
    IN_TRACE,
];

/// POST with everything that a caller brings along.
async fn ask(kms: &KmsProcess, path: &str, fields: Value) -> Value {
    let request = kms
        .request(Method::POST, path)
        .bearer_auth(BEARER)
        .header("Cookie", format!("session={COOKIE}"))
        .header("traceparent", IN_TRACE)
        .json(&in_scope(fields.clone()));
    let request = match fields.get("approval_token") {
        None => request.header("X-Approval-Token", TOKEN_IN_HEADER),
        Some(_) => request,
    };
    let answer = Answer::of(request).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    answer.body
}

fn path_of(key: &Value, step: &str) -> String {
    format!(
        "/kms/v1/keys/{}{step}",
        key["key_id"].as_str().expect("an id")
    )
}

/// Does everything that can be done; what came out that is the caller's alone.
async fn do_everything(kms: &KmsProcess) -> Vec<Canary> {
    let mut given_out = Vec::new();
    let mut keep = |what: &str, value: &Value| {
        given_out.push(Canary::new(what, &unbase64(value)));
    };
    for key_type in ["RSA-2048", "Ed25519"] {
        let key = json!({
            "key_type": key_type,
            "key_usage": ["sign", "verify"],
            "access_policy": { "requires_approval": true },
        });
        let key = ask(kms, "/kms/v1/keys", key).await;
        let mut body = json!({ "key_id": key["key_id"], "data": base64(DATA) });
        let signed = ask(kms, "/kms/v1/sign", body.clone()).await;
        keep("a signature", &signed["signature"]);
        body["signature"] = signed["signature"].clone();
        body["approval_token"] = json!(TOKEN_IN_BODY);
        ask(kms, "/kms/v1/verify", body).await;
        let mut items = json!([{ "data": base64(DATA) }, { "data": base64(AAD) }]);
        let batch = json!({ "key_id": key["key_id"], "items": items });
        let signed = ask(kms, "/kms/v1/sign/batch", batch).await;
        for (item, result) in [0, 1].map(|place| (place, &signed["results"][place])) {
            keep("a signature", &result["signature"]);
            items[item]["signature"] = result["signature"].clone();
        }
        let batch = json!({ "key_id": key["key_id"], "items": items });
        ask(kms, "/kms/v1/verify/batch", batch).await;
        let rotate = json!({ "approval_token": TOKEN_IN_BODY });
        ask(kms, &path_of(&key, "/rotate"), rotate).await;
        let revoke = json!({ "revocation_reason": "compromised" });
        ask(kms, &path_of(&key, "/revoke"), revoke).await;
        kms.get_scoped(&path_of(&key, "")).await.ok();
    }
    let key = json!({ "key_type": "AES-256", "key_usage": ["encrypt", "decrypt"] });
    let key = ask(kms, "/kms/v1/keys", key).await;
    for algorithm in ["AES-256-GCM", "ChaCha20-Poly1305"] {
        let encrypt = json!({
            "key_id": key["key_id"],
            "plaintext": base64(PLAINTEXT),
            "aad": base64(AAD),
            "algorithm": algorithm,
        });
        let encrypted = ask(kms, "/kms/v1/encrypt", encrypt).await;
        keep("a ciphertext", &encrypted["ciphertext"]);
        let mut decrypt = json!({
            "key_id": key["key_id"],
            "ciphertext": encrypted["ciphertext"],
            "iv": encrypted["iv"],
            "aad": base64(AAD),
            "algorithm": algorithm,
        });
        let decrypted = ask(kms, "/kms/v1/decrypt", decrypt.clone()).await;
        assert_eq!(decrypted["plaintext"], base64(PLAINTEXT));
        let items = json!([{ "plaintext": base64(PLAINTEXT), "aad": base64(AAD) }]);
        let batch = json!({ "key_id": key["key_id"], "items": items, "algorithm": algorithm });
        let encrypted = ask(kms, "/kms/v1/encrypt/batch", batch).await;
        let sealed = &encrypted["results"][0];
        keep("a ciphertext", &sealed["ciphertext"]);
        let good = json!({
            "ciphertext": sealed["ciphertext"], "iv": sealed["iv"], "aad": base64(AAD),
        });
        let wrong = with(good.clone(), json!({ "aad": base64(PLAINTEXT) }));
        let batch = json!({
            "key_id": key["key_id"], "items": [good, wrong], "algorithm": algorithm,
        });
        let decrypted = ask(kms, "/kms/v1/decrypt/batch", batch).await;
        assert_eq!(decrypted["results"][0]["plaintext"], base64(PLAINTEXT));
        assert_eq!(decrypted["failed"], 1);
        decrypt["aad"] = json!(base64(PLAINTEXT));
        let wrong = kms.post("/kms/v1/decrypt", &in_scope(decrypt)).await;
        wrong.refused(400, "INVALID_REQUEST");
    }
    given_out
}

/// Makes every mistake with a canary in it; no answer repeats it.
async fn make_mistakes(kms: &KmsProcess, canaries: &[Canary]) {
    let sign = "/kms/v1/sign";
    let post = |path: &str| kms.request(Method::POST, path);
    let json_text = |text: String| {
        let request = post(sign).header("content-type", "application/json");
        request.body(text)
    };
    let sound = in_scope(json!({ "key_id": "alias/none", "data": base64(DATA) }));
    let mut wrong_field = sound.clone();
    wrong_field["dta"] = json!(WRONG_FIELD);
    let mut wrong_type = sound.clone();
    wrong_type["data"] = json!([WRONG_TYPE, { "a": WRONG_TYPE }]);
    wrong_type["key_id"] = json!(WRONG_TYPE);
    wrong_type["plane"] = json!(WRONG_TYPE);
    wrong_type["algorithm"] = json!(WRONG_TYPE);
    wrong_type["approval_token"] = json!([TOKEN_IN_BODY]);
    let mut twice = sound.clone();
    twice["approval_token"] = json!(TOKEN_IN_BODY);
    let mistakes = [
        (post(sign).json(&wrong_field), 400),
        (post(sign).json(&wrong_type), 400),
        (post(sign).json(&json!(WRONG_TYPE)), 400),
        (
            post(sign)
                .header("X-Approval-Token", TOKEN_IN_HEADER)
                .json(&twice),
            400,
        ),
        (
            json_text(format!("{{\"data\": \"{BROKEN_JSON}\" oops")),
            400,
        ),
        (json_text(format!("{{\"data\": \"{BROKEN_JSON}")), 400),
        (post(sign).body(BROKEN_JSON), 415),
        (post(&format!("/kms/v1/{IN_PATH}")).json(&sound), 404),
        (kms.request(Method::PUT, &format!("/{IN_PATH}")), 404),
        (
            kms.request(Method::GET, &format!("/kms/v1/keys/{IN_PATH}?x={IN_QUERY}")),
            400,
        ),
        (
            kms.request(Method::GET, &format!("/kms/v1/keys?cursor={IN_QUERY}")),
            400,
        ),
        (
            post(sign).header("X-Module-Id", IN_MODULE).json(&sound),
            401,
        ),
        (post(sign).json(&sound), 404),
    ];
    for (request, status) in mistakes {
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_not_in(canaries, "an answer", answer.text.as_bytes());
    }
    // And one that is no HTTP at all, which is logged at `debug`.
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(kms.api()).expect("it listens");
    let patience = Some(crate::support::DEADLINE);
    stream.set_read_timeout(patience).expect("set");
    let nonsense = format!("{IN_PATH} HTTP/9.9\r\n{BROKEN_JSON}\r\n\r\n");
    stream.write_all(nonsense.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert_not_in(canaries, "an answer", &answer);
}

#[tokio::test]
async fn nothing_secret_is_in_the_log_or_in_the_files() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [
            ("KMS__LOG__LEVEL", "trace"),
            ("KMS__LOG__FORMAT", format),
            ("HSM_CREDENTIALS", PIN),
        ];
        let mut kms = KmsProcess::start(folder.path(), &settings);
        let mut canaries: Vec<Canary> = SENT
            .iter()
            .map(|canary| Canary::new(*canary, canary.as_bytes()))
            .collect();
        make_mistakes(&kms, &canaries).await;
        canaries.extend(do_everything(&kms).await);
        let secrets: Vec<Canary> = ["kek", "ledger.key"]
            .iter()
            .map(|name| {
                let secret = std::fs::read(folder.path().join(name)).expect("there");
                Canary::new(*name, &secret)
            })
            .collect();
        let metrics = kms.get("/kms/v1/metrics").await.text;
        let running = files(folder.path(), &["kek", "ledger.key"]);
        // The level is in effect.
        kms.wait_for_line(&["connection ended"]);
        let output = kms.stop();
        assert!(output.contains("request.end"), "{output}");

        let stopped = files(folder.path(), &["kek", "ledger.key"]);
        let mut places = vec![
            ("the log".to_owned(), output.into_bytes()),
            ("the metrics".to_owned(), metrics.into_bytes()),
        ];
        places.extend(running);
        places.extend(stopped);
        assert!(places.iter().any(|(name, _)| name == "kms.db-wal"));
        for (name, place) in &places {
            assert_not_in(&canaries, name, place);
            assert_not_in(&secrets, name, place);
            assert_no_private_key_in(name, place);
        }
    }
}

/// The sealed secret of a key as the store has it.
fn sealed_secret(folder: &Path, key_id: &str) -> Vec<u8> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = Connection::open_with_flags(folder.join("kms.db"), flags).expect("a database");
    let key_id = uuid::Uuid::parse_str(key_id).expect("an id");
    let query = "SELECT handle FROM key_handles JOIN keys USING (slot) WHERE key_id = ?1";
    store
        .query_row(query, [key_id.as_bytes()], |row| row.get(0))
        .expect("a handle")
}

/// Whether the middle or the end of it is in any file.
fn is_on_disk(folder: &Path, sealed: &[u8]) -> bool {
    let middle = sealed.len() / 2;
    let parts = [
        &sealed[middle - 8..middle + 8],
        &sealed[sealed.len() - 16..],
    ];
    files(folder, &[])
        .iter()
        .any(|(_, content)| parts.iter().any(|part| contains(content, part)))
}

#[tokio::test]
async fn a_revoked_keys_sealed_secret_is_gone_from_every_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let mut sealed = Vec::new();
    for key_type in ["RSA-2048", "Ed25519", "AES-256"] {
        // One to be revoked among some that stay.
        kms.generate_id(key_type).await;
        let key_id = kms.generate_id(key_type).await;
        kms.generate_id(key_type).await;
        let secret = sealed_secret(folder.path(), &key_id);
        assert!(is_on_disk(folder.path(), &secret), "{key_type}");
        let reason = in_scope(json!({ "revocation_reason": "compromised" }));
        kms.post_approved(&format!("/kms/v1/keys/{key_id}/revoke"), &reason)
            .await
            .ok();
        assert!(!is_on_disk(folder.path(), &secret), "{key_type}");
        sealed.push(secret);
    }
    kms.stop();
    for secret in &sealed {
        assert!(!is_on_disk(folder.path(), secret));
    }
}
