//! `docs/api.md` says what is so: its commands run as they stand, and no operation is
//! missing from it.

use std::process::Command;

use serde_json::Value;

use crate::support::KmsProcess;

const PAGE: &str = include_str!("../../docs/api.md");

/// The blocks of commands, each with whether it is to be refused.
fn blocks() -> Vec<(bool, String)> {
    let mut blocks = Vec::new();
    for block in PAGE.split("```sh").skip(1) {
        let (head, rest) = block.split_once('\n').expect("a line");
        let (commands, _) = rest.split_once("```").expect("an end");
        blocks.push((head.trim() == "refused", commands.to_owned()));
    }
    blocks
}

/// All of them as one script, in which a `curl` that is answered otherwise than the page
/// says ends it.
fn script(port: u16) -> String {
    let mut script = "set -euo pipefail\n\
        done_by_curl() { command curl --noproxy '*' --max-time 30 --fail-with-body \"$@\"; }\n\
        refused_by_curl() {\n  if command curl --noproxy '*' --max-time 30 --fail \"$@\"; then\n    \
        echo \"not refused: $*\" >&2\n    exit 1\n  else test $? -eq 22\n  fi\n}\n"
        .to_owned();
    for (is_refused, commands) in blocks() {
        let how = if is_refused {
            "refused_by_curl"
        } else {
            "done_by_curl"
        };
        script.push_str(&format!("curl() {{ {how} \"$@\"; }}\n{commands}\n"));
    }
    script.replace("127.0.0.1:8002", &format!("127.0.0.1:{port}"))
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let script = script(kms.api().port());
    assert!(script.matches("curl -sS").count() > 40, "{script}");
    let ended = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&ended.stdout);
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{complained}");
    for wanted in [
        "\"valid\":true",
        "\"plaintext\":\"SGVsbG8=\"",
        "inclusion_proof",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn every_operation_has_its_place_on_the_page() {
    let document: Value = serde_json::from_slice(&kms::http::openapi_document()).expect("JSON");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("an item").keys() {
            let heading = format!("**`{} {path}`**", method.to_uppercase());
            assert_eq!(PAGE.matches(&heading).count(), 1, "{heading}");
        }
    }
}

#[test]
fn every_code_and_every_header_of_the_document_is_on_the_page() {
    let document: Value = serde_json::from_slice(&kms::http::openapi_document()).expect("JSON");
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    let codes = &schemas["ItemFailure"]["properties"]["code"]["enum"];
    let codes = codes
        .as_array()
        .expect("codes")
        .iter()
        .filter_map(Value::as_str);
    let parameters = document["components"]["parameters"]
        .as_object()
        .expect("parameters");
    let read = parameters.keys().map(String::as_str);
    for name in codes.chain(read) {
        assert!(PAGE.contains(&format!("`{name}")), "{name}");
    }
}
