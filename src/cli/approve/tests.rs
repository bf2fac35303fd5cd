//! What `kms approve` prints, and what it refuses. That the service accepts what
//! it signs is tested beside the key, and against a running service.

use clap::Parser;
use serde_json::Value;

use super::*;

const KEY_ID: &str = "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e";

/// PKCS#8 of an Ed25519 key (RFC 8410 §10.3).
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

struct Said {
    stdout: String,
    stderr: String,
}

fn kms_approve(line: &str) -> Result<Said, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, PEM).expect("written");
    let line = format!("approve {line} --signing-key {}", key.display());
    let line = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let now = "2026-03-01T12:00:00Z".parse().expect("valid");
    match approve(&line.arguments, now, "jti-1", &mut stdout, &mut stderr) {
        Ok(()) => Ok(Said {
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        }),
        Err(fault) => Err(fault.what),
    }
}

const SCOPE: &str = "--approver alice --tenant t --environment prod --plane shared";

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.trim_end().split('.').nth(1).expect("three parts");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .expect("base64url");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn the_help_names_every_operation() {
    use clap::CommandFactory as _;
    let help = Line::command().render_long_help().to_string();
    let words: Vec<&str> = help.split([' ', ',', '\n', '.']).collect();
    for operation in ApprovalOperation::ALL {
        assert!(words.contains(&operation.as_str()), "{operation:?}: {help}");
    }
}

#[test]
fn the_token_alone_is_printed_and_its_meaning_told_beside_it() {
    let said = kms_approve(&format!("{SCOPE} --operation key_rotate --key-id {KEY_ID}"))
        .expect("approved");
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    for word in [
        "alice",
        "key_rotate",
        KEY_ID,
        "tenant t",
        "environment prod",
        "plane shared",
        "2026-03-01T12:10:00",
        "jti-1",
        "EdDSA",
    ] {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    let claims = claims(&said.stdout);
    let at = claims["iat"].as_i64().expect("a number");
    assert_eq!(claims["exp"], at + 600);
    assert_eq!(claims["key_id"], KEY_ID);
    assert_eq!(claims["jti"], "jti-1");
}

#[test]
fn each_operation_says_what_it_is_about() {
    let generate = "--operation key_generate --key-type RSA-2048 --key-usage verify,sign";
    let said = kms_approve(&format!("{SCOPE} {generate}")).expect("approved");
    let claims_of = claims(&said.stdout);
    assert_eq!(claims_of["key_type"], "RSA-2048");
    assert_eq!(
        claims_of["key_usage"],
        serde_json::json!(["sign", "verify"])
    );

    let colons = vec!["AB"; 32].join(":");
    let anchor = format!("--operation trust_anchor_add --fingerprint {colons}");
    let said = kms_approve(&format!("{SCOPE} {anchor}")).expect("approved");
    assert_eq!(claims(&said.stdout)["fingerprint"], "ab".repeat(32));
}

#[test]
fn what_does_not_fit_together_is_refused_by_its_flag() {
    for (line, flag) in [
        (
            format!("--operation key_generate --key-id {KEY_ID}"),
            "--key-id",
        ),
        ("--operation key_rotate".to_owned(), "--key-id"),
        (
            format!("--operation key_use --key-id {KEY_ID} --key-type Ed25519"),
            "--key-type",
        ),
        (
            format!("--operation key_revoke --key-id {KEY_ID} --key-usage sign"),
            "--key-usage",
        ),
        (
            format!("--operation key_revoke --key-id {KEY_ID} --fingerprint aa"),
            "--fingerprint",
        ),
        (
            "--operation key_generate --key-type Ed25519".to_owned(),
            "--key-usage",
        ),
        (
            "--operation key_generate --key-type Ed25519 --key-usage encrypt".to_owned(),
            "--key-usage",
        ),
        (
            "--operation trust_anchor_remove --fingerprint abc".to_owned(),
            "--fingerprint",
        ),
        (
            format!("--operation key_rotate --key-id {KEY_ID} --expires-in 16m"),
            "--expires-in",
        ),
        (
            format!("--operation key_rotate --key-id {KEY_ID} --expires-in 0s"),
            "--expires-in",
        ),
        (
            format!(
                "--operation key_rotate --key-id {KEY_ID} --kid {}",
                "k".repeat(257)
            ),
            "--kid",
        ),
        (
            "--operation key_rotate --key-id alias/a".to_owned(),
            "--key-id",
        ),
        ("--operation rotate".to_owned(), "--operation"),
        (String::new(), "--operation"),
    ] {
        let fault = kms_approve(&format!("{SCOPE} {line}"))
            .err()
            .expect("refused");
        assert!(fault.contains(flag), "{line}: {fault}");
    }
}

#[test]
fn the_public_key_is_printed_for_the_key_set_with_its_owner() {
    let said = kms_approve("--print-jwk --approver alice").expect("printed");
    let jwk: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(jwk["sub"], "alice");
    assert_eq!(jwk["use"], "sig");
    assert_eq!(jwk["alg"], "EdDSA");
    // RFC 8410 §10.1 has the public key of this one.
    assert_eq!(jwk["x"], "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
    assert!(jwk.get("d").is_none());
    let named = kms_approve("--print-jwk --approver alice --kid laptop").expect("printed");
    assert!(named.stdout.contains(r#""kid":"laptop""#));
    assert!(said.stderr.contains("approvals.jwks"));
}

#[test]
fn a_key_that_cannot_be_read_is_named() {
    let line =
        format!("approve {SCOPE} --operation key_use --key-id {KEY_ID} --signing-key no/such");
    let line =
        Line::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
    let now = "2026-03-01T12:00:00Z".parse().expect("valid");
    let fault = approve(&line.arguments, now, "1", &mut Vec::new(), &mut Vec::new());
    let Err(Fault { what, .. }) = fault else {
        panic!("approved with a key that is not there");
    };
    assert!(what.contains("--signing-key: no/such"), "{what}");
}
