//! The OpenAPI document and the service against each other, by requests that another
//! program makes from the document: those that it allows, and those that it refuses.
//!
//! `tests/schemathesis/` has its versions and what a schema cannot tell it; `make tools`
//! installs it. Every check that it has is on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::approver::seconds_since_1970;
use crate::support::{APPROVAL, Answer, Issuer, KmsProcess, TestAuthority, base64, in_scope, text};

/// The same requests each time, as far as they do not depend on ids.
const SEED: &str = "20260301";

/// Requests that each operation gets from each phase that makes them up.
const EXAMPLES: &str = "25";

/// A run takes about a minute; one that takes longer than this many seconds hangs.
const AT_MOST: &str = "400";

/// Keys and certificates that are there for a run to use up.
const PROVISIONS: usize = 150;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

fn program() -> PathBuf {
    let program = "target/schemathesis/bin/schemathesis";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
    assert!(
        program.exists(),
        "`make tools` installs {}",
        program.display()
    );
    program
}

/// A service that asks every caller for a token, and somebody with one.
struct Served {
    kms: KmsProcess,
    token: String,
    folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Issuer::ed25519("m21", 5);
        let keys = folder.path().join("jwks.json");
        std::fs::write(&keys, Issuer::key_set(&[&issuer])).expect("written");
        let keys = keys.display().to_string();
        let settings = [
            ("KMS__AUTH__JWKS", keys.as_str()),
            ("KMS__AUTH__REQUIRE_JWT", "true"),
            ("KMS__AUTH__AUDITORS", "M21"),
            // It would see nothing but 429.
            ("KMS__LIMITS__REQUESTS_PER_SECOND", "100000"),
            ("KMS__LIMITS__BURST", "100000"),
            ("KMS__KEYS__MAX_USAGE_PER_DAY", "10000000"),
        ];
        let token = issuer.token(json!({ "exp": seconds_since_1970() + 1_800 }));
        Self {
            kms: KmsProcess::start(folder.path(), &settings),
            token,
            folder,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.kms.request(method, path);
        request
            .header("X-Approval-Token", APPROVAL)
            .bearer_auth(&self.token)
    }

    async fn post(&self, path: &str, fields: Value) -> Value {
        let request = self.request(Method::POST, path).json(&in_scope(fields));
        let answer = Answer::of(request).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.body
    }

    async fn generate(&self, key_type: &str, usage: &[&str], key_alias: Option<&str>) -> String {
        let body = json!({ "key_type": key_type, "key_usage": usage, "key_alias": key_alias });
        text(&self.post("/kms/v1/keys", body).await["key_id"]).to_owned()
    }

    /// What is there for the run, written to a file that the hooks read.
    async fn provide(&self) -> PathBuf {
        let (signs, seals) = (["sign", "verify"], ["encrypt", "decrypt"]);
        self.generate("Ed25519", &signs, Some("stays")).await;
        self.generate("AES-256", &seals, Some("seals")).await;
        let (mut keys, mut aliases) = (Vec::new(), Vec::new());
        for number in 0..PROVISIONS {
            keys.push(self.generate("Ed25519", &signs, None).await);
            let alias = format!("line-{number}");
            self.generate("Ed25519", &signs, Some(&alias)).await;
            aliases.push(alias);
        }
        let body = json!({ "key_id": "alias/seals", "plaintext": base64("data") });
        let sealed = self.post("/kms/v1/encrypt", body).await;
        let certificates = (0..PROVISIONS).map(|number| {
            let authority = TestAuthority::new(&format!("authority {number}"));
            base64(authority.der())
        });
        let state = json!({
            "scope": in_scope(json!({})),
            "signer": "alias/stays",
            "sealer": "alias/seals",
            "sealed": { "ciphertext": sealed["ciphertext"], "iv": sealed["iv"] },
            "keys": keys,
            "aliases": aliases,
            "receipts": [sealed["receipt_id"]],
            "certificates": certificates.collect::<Vec<_>>(),
            "tree_size": PROVISIONS,
            "tiles": ["0/000", "0/000.p/20", "entries/000.p/5"],
        });
        let path = self.folder.path().join("state.json");
        std::fs::write(&path, state.to_string()).expect("written");
        path
    }

    /// How many requests of each operation ended with a status of each hundred.
    async fn answered(&self) -> BTreeMap<(String, u16), u64> {
        let metrics = self.kms.get_operations("/kms/v1/metrics").await.text;
        let mut answered = BTreeMap::new();
        for line in metrics.lines() {
            let Some(labels) = line.strip_prefix("kms_requests_total{operation=\"") else {
                continue;
            };
            let (operation, rest) = labels.split_once("\",status=\"").expect("two labels");
            let (status, count) = rest.split_once("\"} ").expect("a number");
            let status: u16 = status.parse().expect("a status");
            let count: u64 = count.parse().expect("a count");
            *answered
                .entry((operation.to_owned(), status / 100))
                .or_default() += count;
        }
        answered
    }
}

#[tokio::test]
async fn requests_made_from_the_document_find_no_difference() {
    let served = Served::start();
    let state = served.provide().await;
    let before = served.answered().await;
    let output = tokio::task::spawn_blocking({
        let url = format!("http://{}", served.kms.api());
        let authorization = format!("Authorization: Bearer {}", served.token);
        let folder = served.folder.path().to_owned();
        let document = folder.join("openapi.json");
        std::fs::write(&document, kms::http::openapi_document()).expect("written");
        move || {
            Command::new("timeout")
                .arg(AT_MOST)
                .arg(program())
                .args(["--no-color", "--config-file"])
                .arg(sources().join("schemathesis.toml"))
                .arg("run")
                .arg(document)
                .args(["--url", &url, "--header", &authorization])
                .args(["--seed", SEED, "--max-examples", EXAMPLES])
                .args(["--checks", "all", "--continue-on-failure"])
                .current_dir(&folder)
                .env("KMS_STATE", state)
                .env("SCHEMATHESIS_HOOKS", "hooks")
                .env("PYTHONPATH", sources())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .stdin(Stdio::null())
                .output()
                .expect("it runs")
        }
    });
    let output = output.await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");

    // All of it was tried, and came to something in both ways.
    let document: Value = serde_json::from_slice(&kms::http::openapi_document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").values();
    let operations: usize = paths
        .filter_map(Value::as_object)
        .map(|item| item.len())
        .sum();
    assert!(said.contains(&format!("Tested: {operations}\n")), "{said}");
    let answered = served.answered().await;
    let more = |operation: &str, hundred: u16| {
        let key = (operation.to_owned(), hundred);
        answered.get(&key).unwrap_or(&0) - before.get(&key).unwrap_or(&0)
    };
    for operation in [
        "generate_key",
        "list_keys",
        "get_key",
        "update_key",
        "list_versions",
        "archive_key",
        "restore_key",
        "rotate_key",
        "revoke_key",
        "sign",
        "verify",
        "encrypt",
        "decrypt",
        "sign_batch",
        "verify_batch",
        "encrypt_batch",
        "decrypt_batch",
        "add_trust_anchor",
        "list_trust_anchors",
        "remove_trust_anchor",
        "get_receipt",
        "list_receipts",
        "read_ledger",
        "read_ledger_tile",
        "config",
        "openapi",
    ] {
        assert!(
            more(operation, 2) > 0,
            "no {operation} succeeded: {answered:?}"
        );
        assert!(
            more(operation, 4) > 0,
            "no {operation} was refused: {answered:?}"
        );
        assert_eq!(more(operation, 5), 0, "{operation}: {answered:?}");
    }
}
