//! Production mode from outside: what `kms dev-pki` lays out serves, with `curl`,
//! `openssl` and `kms approve` as anybody has them.

use serde_json::{Value, json};

use crate::support::outsider::{
    Production, Said, TRIED_SCOPE, Validity, in_tried_scope, series, tried_name,
};
use crate::support::{KmsProcess, base64, text};

const M21: &str = "client-M21";
const PLATFORM: &str = "client-GLOBAL-M32";

fn header(approval: &str) -> String {
    format!("X-Approval-Token: {approval}")
}

/// Approves a new key of the tenant's for signing and verifying.
fn approve_new_key(production: &Production, approver: &str) -> String {
    let what = ["--operation", "key_generate", "--tenant", "acme"];
    let which = ["--key-type", "Ed25519", "--key-usage", "sign,verify"];
    production.approve(approver, &[what, which].concat())
}

/// Approves an operation on one of the tenant's keys.
fn approve_on(production: &Production, operation: &str, key_id: &str) -> String {
    let what = ["--operation", operation, "--tenant", "acme"];
    production.approve("alice", &[&what[..], &["--key-id", key_id]].concat())
}

/// Makes a key with this approval and these fields beside the usual.
fn make_key(production: &Production, kms: &KmsProcess, approval: &str, fields: Value) -> Said {
    let body = in_tried_scope(json!({
        "key_type": "Ed25519", "key_usage": ["sign", "verify"],
    }));
    let body = crate::support::with(body, fields);
    let approval = header(approval);
    production.curl(kms, M21, "/kms/v1/keys", Some(&body), &[&approval])
}

fn metrics(production: &Production, kms: &KmsProcess) -> String {
    let operations = kms.operations().expect("an operations listener");
    let said = production.curl_nameless(&format!("http://{operations}/kms/v1/metrics"));
    said.with_status(200);
    said.text
}

#[test]
fn what_dev_pki_makes_is_healthy_and_says_nothing_of_development() {
    let production = Production::lay_out();
    let kms = production.start();
    let operations = kms.operations().expect("an operations listener");
    let health = production.curl_nameless(&format!("http://{operations}/kms/v1/health"));
    assert_eq!(health.with_status(200)["status"], "healthy", "{health:?}");
    let checks = health.body["checks"].as_array().expect("a list");
    for name in [
        "tls_certificate",
        "client_ca",
        "crl",
        "jwks",
        "approvers_jwks",
    ] {
        let check = checks.iter().find(|check| check["name"] == name);
        assert_eq!(check.expect(name)["status"], "pass", "{health:?}");
    }
    // With a certificate the same is asked of the API itself.
    let over_tls = production.curl(&kms, M21, "/kms/v1/health", None, &[]);
    over_tls.with_status(200);

    let output = kms.stop();
    for line in output.lines() {
        assert_eq!(line.matches("\"version\":").count(), 1, "{line}");
        let line: Value = serde_json::from_str(line).expect("JSON outside development");
        assert_eq!(line["environment"], "production", "{line}");
    }
    assert!(!output.contains("DEVELOPMENT"), "{output}");
}

#[test]
fn the_commands_that_dev_pki_prints_make_a_key_and_show_it() {
    let production = Production::lay_out();
    let kms = production.start();
    let made = production.run_printed(&kms, "Make a key, which alice approves:");
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let listed = production.run_printed(&kms, "See it:");
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["keys"][0]["key_id"], made["key_id"], "{made}");
    assert!(made["key_id"].is_string(), "{made}");
}

#[test]
fn the_operations_listener_serves_probes_and_metrics_and_nothing_else() {
    let production = Production::lay_out();
    let kms = production.start();
    let operations = kms.operations().expect("an operations listener");
    let get = |path: &str| production.curl_nameless(&format!("http://{operations}{path}"));
    for path in ["/health", "/kms/v1/health", "/kms/v1/metrics"] {
        get(path).with_status(200);
    }
    for path in [
        "/",
        "/kms/v1/config",
        "/kms/v1/keys",
        "/kms/v1/keys/alias/receipts",
        "/kms/v1/sign",
        "/kms/v1/trust-anchors",
        "/kms/v1/receipts/018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e",
        "/kms/v1/health/",
        "//health",
        "/health/../kms/v1/keys",
        "/debug/pprof",
    ] {
        get(&format!("{path}?{TRIED_SCOPE}")).refused(404, "no such path");
    }
}

#[test]
fn the_gauges_say_how_long_certificates_and_lists_will_do() {
    let production = Production::lay_out();
    let kms = production.start();
    let scraped = metrics(&production, &kms);
    let day = 86_400.0;
    let left = series(&scraped, "kms_tls_certificate_expiry_seconds");
    assert!(left > 29.0 * day && left <= 30.0 * day, "{left}");
    // Lists begin five minutes before they are made.
    let age = series(&scraped, "kms_crl_age_seconds");
    assert!((300.0..600.0).contains(&age), "{age}");
    let left = series(&scraped, "kms_crl_expiry_seconds");
    assert!(left > 29.0 * day && left <= 30.0 * day, "{left}");
    for set in ["m21", "approvers"] {
        let name = format!("kms_jwks_age_seconds{{set=\"{set}\"}}");
        assert!(scraped.contains(&name), "{scraped}");
        let age = series(&scraped, &name);
        assert!((0.0..300.0).contains(&age), "{name} {age}");
    }
}

#[test]
fn a_key_is_made_used_and_rotated_with_what_kms_approve_prints() {
    let production = Production::lay_out();
    let kms = production.start();
    let approval = approve_new_key(&production, "alice");
    let made = make_key(&production, &kms, &approval, json!({}));
    let key_id = text(&made.with_status(201)["key_id"]).to_owned();
    make_key(&production, &kms, &approval, json!({})).refused(403, "was used already");
    make_key(&production, &kms, "approval-token-123", json!({})).refused(403, "not a signed JWT");

    let post = |path: &str, fields: Value, headers: &[&str]| {
        production.curl(&kms, M21, path, Some(&in_tried_scope(fields)), headers)
    };
    let sent = json!({ "key_id": key_id, "data": base64("from outside") });
    let signed = post("/kms/v1/sign", sent.clone(), &[]);
    let signature = signed.with_status(200)["signature"].clone();
    let verify = crate::support::with(sent, json!({ "signature": signature }));
    let verified = post("/kms/v1/verify", verify, &[]);
    assert_eq!(verified.with_status(200)["valid"], true);

    let rotate = format!("/kms/v1/keys/{key_id}/rotate");
    post(&rotate, json!({}), &[]).refused(403, "needs an approval");
    // An approval of something else on the same key.
    let other = header(&approve_on(&production, "key_revoke", &key_id));
    post(&rotate, json!({}), &[&other]).refused(403, "for another operation");
    let approval = header(&approve_on(&production, "key_rotate", &key_id));
    let rotated = post(&rotate, json!({}), &[&approval]);
    assert_ne!(rotated.with_status(200)["new_key_id"], key_id);
    let shown = production.curl(
        &kms,
        M21,
        &format!("/kms/v1/keys/{key_id}?{TRIED_SCOPE}"),
        None,
        &[],
    );
    assert_eq!(shown.with_status(200)["key_state"], "pending_rotation");
}

#[test]
fn whoever_is_not_in_the_approvers_key_set_approves_nothing() {
    let production = Production::lay_out();
    let kms = production.start();
    let genpkey = ["genpkey", "-algorithm", "ed25519", "-out"];
    production.openssl_does(&[&genpkey[..], &["approver-mallory.pem"]].concat());
    let approval = approve_new_key(&production, "mallory");
    make_key(&production, &kms, &approval, json!({})).refused(403, "not signed by a known");
}

#[test]
fn a_guarded_key_is_used_with_an_approval_that_counts_once() {
    let production = Production::lay_out();
    let kms = production.start();
    let guarded = json!({ "access_policy": { "requires_approval": true } });
    let made = make_key(
        &production,
        &kms,
        &approve_new_key(&production, "bob"),
        guarded,
    );
    let key_id = text(&made.with_status(201)["key_id"]).to_owned();
    let body = in_tried_scope(json!({ "key_id": key_id, "data": base64("x") }));
    let sign = |headers: &[&str]| production.curl(&kms, M21, "/kms/v1/sign", Some(&body), headers);
    sign(&[]).refused(403, "needs an approval");
    let approval = header(&approve_on(&production, "key_use", &key_id));
    sign(&[&approval]).with_status(200);
    sign(&[&approval]).refused(403, "was used already");
}

#[test]
fn the_platform_takes_an_authority_in_with_an_approval_and_its_clients_get_in() {
    let production = Production::lay_out();
    let kms = production.start();
    production.make_authority("anchor");
    production.issue(
        "newcomer",
        "anchor",
        &tried_name("M27"),
        "clientAuth",
        Validity::NOW,
    );
    let list = format!("/kms/v1/keys?{TRIED_SCOPE}");
    let early = production.curl(&kms, "newcomer", &list, None, &[]);
    assert_eq!((early.status, early.code != Some(0)), (0, true));

    let x509 = ["x509", "-in", "anchor.pem", "-noout"];
    let printed = production.openssl_does(&[&x509[..], &["-fingerprint", "-sha256"]].concat());
    let fingerprint = printed.trim_end().split_once('=').expect("a fingerprint").1;
    let what = ["--operation", "trust_anchor_add", "--tenant", "GLOBAL"];
    let approval = production.approve(
        "alice",
        &[what, ["--fingerprint", fingerprint, "--expires-in", "5m"]].concat(),
    );
    let body = json!({
        "tenant_id": "GLOBAL", "environment": "prod", "plane": "tenant",
        "certificate": base64(production.read("anchor.pem")), "anchor_type": "root",
    });
    let add = |client: &str, headers: &[&str]| {
        production.curl(&kms, client, "/kms/v1/trust-anchors", Some(&body), headers)
    };
    let approval = header(&approval);
    add(PLATFORM, &[]).refused(403, "needs an approval");
    add(M21, &[&approval]).refused(403, "not the caller's");
    let added = add(PLATFORM, &[&approval]);
    text(&added.with_status(201)["trust_anchor_id"]);
    let now = production.curl(&kms, "newcomer", &list, None, &[]);
    assert_eq!(now.with_status(200)["keys"], json!([]));
}

#[test]
fn a_token_signed_with_m21s_key_is_taken_and_no_other() {
    let production = Production::lay_out();
    let kms = production.start();
    let list = format!("/kms/v1/keys?{TRIED_SCOPE}");
    let claims = |module: &str| {
        json!({
            "sub": "workload-7", "module_id": module, "tenant_id": "acme", "environment": "prod",
            "exp": crate::support::approver::seconds_since_1970() + 300,
        })
    };
    let ask = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        production.curl(&kms, M21, &list, None, &[&header])
    };
    ask(&production.token("m21.pem", &claims("M21"))).with_status(200);
    ask(&production.token("m21.pem", &claims("M27"))).refused(401, "module_id");
    ask(&production.token("approver-alice.pem", &claims("M21"))).refused(401, "signature");
}
