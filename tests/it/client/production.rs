//! The same in production mode: mutual TLS, tokens and signed approvals.

use serde_json::{Value, json};

use super::field;
use crate::support::desk::{Desk, argument};
use crate::support::outsider::{Production, Validity, tried_name};
use crate::support::{KmsProcess, text};

const GENERATE: [&str; 6] = [
    "key",
    "generate",
    "--type",
    "Ed25519",
    "--usage",
    "sign,verify",
];

fn start(production: &Production) -> (KmsProcess, Desk) {
    let kms = production.start_with(&[("KMS__AUTH__REQUIRE_JWT", "true")]);
    let desk = Desk::bare();
    let at = |name: &str| production.file(name).display().to_string();
    let profile = format!(
        "[acme]\nurl = \"https://localhost:{}\"\ncacert = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n\
         tenant = \"acme\"\nenvironment = \"prod\"\nplane = \"tenant\"\ntoken_file = \"token\"\n",
        kms.api().port(),
        at("ca.pem"),
        at("client-M27.pem"),
        at("client-M27.key"),
    );
    let file = desk.put("profiles.toml", profile);
    desk.put("token", production.token("m21.pem", &claims("M27")));
    let desk = desk
        .with("KMS_CLIENT_PROFILES", file.display())
        .with("KMS_CLIENT_PROFILE", "acme");
    (kms, desk)
}

fn claims(module: &str) -> Value {
    json!({
        "sub": "workload-7", "module_id": module, "tenant_id": "acme", "environment": "prod",
        "exp": crate::support::approver::seconds_since_1970() + 300,
    })
}

#[test]
fn two_people_lead_a_key_through_its_life() {
    let production = Production::lay_out();
    let (_kms, desk) = start(&production);
    let approved = |arguments: &[&str], command: &[&str]| {
        let approval = production.approve("alice", &[&["--tenant", "acme"], arguments].concat());
        let command = [command, &["--approval-file", "-"]].concat();
        desk.run_with(&command, format!("{approval}\n").as_bytes())
    };
    desk.run(&GENERATE).failed(4, "UNAUTHORIZED");
    let of_new = [
        "--operation",
        "key_generate",
        "--key-type",
        "Ed25519",
        "--key-usage",
        "sign,verify",
    ];
    let made = approved(&of_new, &GENERATE);
    let key_id = field(made.ok(), "key_id").to_owned();
    let of_other = ["--operation", "key_revoke", "--key-id", &key_id];
    let rotate = ["key", "rotate", &key_id];
    approved(&of_other, &rotate).failed(4, "UNAUTHORIZED");
    let of_key = ["--operation", "key_rotate", "--key-id", &key_id];
    let rotated = approved(&of_key, &rotate);
    let successor = field(rotated.ok(), "new_key_id").to_owned();

    let signed = desk.run_with(&["sign", &successor], b"data");
    desk.put("signature", signed.ok());
    let verify = ["verify", &successor, "--signature-file", "signature"];
    assert_eq!(desk.run_with(&verify, b"data").ok(), "verified\n");
    assert_eq!(desk.run_with(&verify, b"other").code, Some(3));
    let listed = desk.run(&["key", "list"]);
    assert_eq!(listed.ok().lines().count(), 3, "{listed:?}");

    let revoke = ["key", "revoke", &successor, "--reason", "retired"];
    let of_key = ["--operation", "key_revoke", "--key-id", &successor];
    approved(&of_key, &revoke).ok();
    let of_key = ["--operation", "key_restore", "--key-id", &successor];
    let restored = approved(&of_key, &["key", "restore", &successor, "--json"]).json();
    assert_eq!(text(&restored["key_state"]), "archived");
}

#[test]
fn whoever_is_not_let_in_is_told_why() {
    let production = Production::lay_out();
    let (_kms, desk) = start(&production);
    let list = ["key", "list"];
    desk.run(&list).ok();

    // Another authority for the service than the one it has.
    production.make_authority("stranger");
    let stranger = production.file("stranger.pem");
    let untrusted = [&list[..], &["--cacert", argument(&stranger)]].concat();
    desk.run(&untrusted)
        .failed(1, "not of an authority that is trusted here");
    // No certificate, and one of a stranger's.
    desk.run(&[&list[..], &["--cert", ""]].concat())
        .failed(4, "does not take this client's certificate");
    production.issue(
        "intruder",
        "stranger",
        &tried_name("M27"),
        "clientAuth",
        Validity::NOW,
    );
    let (cert, key) = (
        production.file("intruder.pem"),
        production.file("intruder.key"),
    );
    let intruder = ["--cert", argument(&cert), "--key", argument(&key)];
    desk.run(&[&list[..], &intruder].concat())
        .failed(4, "does not take this client's certificate");
    // A key of another certificate.
    let (cert, key) = (
        production.file("client-M27.pem"),
        production.file("client-M21.key"),
    );
    let mixed = ["--cert", argument(&cert), "--key", argument(&key)];
    desk.run(&[&list[..], &mixed].concat())
        .failed(2, "cannot make a client");

    // Certificate and key in one file.
    let both = production.read("client-M27.pem") + &production.read("client-M27.key");
    let both = desk.put("both.pem", both);
    desk.run(&[&list[..], &["--cert", argument(&both)]].concat())
        .ok();
    desk.run(&[&list[..], &["--cert", "missing.pem"]].concat())
        .failed(1, "missing.pem: ");
}

#[test]
fn a_token_that_is_refused_is_not_repeated() {
    let production = Production::lay_out();
    let (_kms, desk) = start(&production);
    let list = ["key", "list"];
    desk.run(&[&list[..], &["--token-file", ""]].concat())
        .failed(4, "UNAUTHENTICATED");
    let foreign = production.token("m21.pem", &claims("M21"));
    let forged = production.token("approver-alice.pem", &claims("M27"));
    for token in [foreign.as_str(), &forged, "hunter2.hunter2.hunter2"] {
        let file = desk.put("other", token);
        let done = desk.run(&[&list[..], &["--token-file", argument(&file)]].concat());
        done.failed(4, "UNAUTHENTICATED");
        let signature = token.rsplit('.').next().expect("a part");
        assert!(!done.stderr.contains(signature), "{done:?}");
    }
    // Whoever is in another scope is nobody's there.
    let other = [&list[..], &["--tenant", "other"]].concat();
    desk.run(&other).failed(4, "UNAUTHORIZED");
}
