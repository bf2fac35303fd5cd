//! What production does not start with: each hole by itself and all of them at
//! once, with how to mend it, and material that cannot serve.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::outsider::{Production, Validity, argument};

/// A change that breaks one thing.
enum Break<'a> {
    Unset(&'static str),
    Set(&'static str, &'a str),
}

#[test]
fn production_with_nothing_set_says_everything_that_is_missing_and_how_to_mend_it() {
    let production = Production::lay_out();
    let nothing = BTreeMap::from([("ENVIRONMENT".to_owned(), "production".to_owned())]);
    let ended = production.serve_in(&nothing);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    let mut lines = ended.stderr.lines();
    assert_eq!(lines.next(), Some("the configuration has 7 faults:"));
    for (setting, mend) in [
        ("tls.certificate", "set it to the path of a PEM file"),
        ("tls.private_key", "set it to the path of a PEM file"),
        ("tls.client_ca", "set it to the path of a PEM file"),
        (
            "approvals.jwks",
            "set it to their JWKS, a file or an address",
        ),
        (
            "server.cors_origins",
            "set CORS_ORIGINS to the origins that may call",
        ),
        ("hsm.backend", "hsm.allow_software_in_production = true"),
        (
            "hsm.software.kek_file",
            "make one (32 random bytes) and set this to its path",
        ),
    ] {
        let line = lines.next().expect(setting);
        let (name, _) = line.split_once(": ").expect("a name");
        // Where the value is from may follow it.
        assert_eq!(name.split_whitespace().next(), Some(setting), "{line}");
        assert!(line.contains(mend), "{line}");
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn production_refuses_each_hole_by_itself_and_says_how_to_mend_it() {
    use Break::{Set, Unset};
    let production = Production::lay_out();
    let good = production.environment();
    let data = std::path::Path::new(&good["KMS__DATA_DIR"]);
    std::fs::create_dir(data).expect("made");
    std::fs::copy(production.file("kek"), data.join("kek")).expect("copied");
    let of_development = data.join("kek");
    let missing = production.file("no-such-kek");
    for (broken, setting, mend) in [
        (
            Unset("KMS__TLS__PRIVATE_KEY"),
            "tls.private_key",
            "PEM file",
        ),
        (
            Unset("KMS__TLS__CERTIFICATE"),
            "tls.certificate",
            "PEM file",
        ),
        (Unset("KMS__TLS__CLIENT_CA"), "tls.client_ca", "PEM file"),
        (
            Set("CORS_ORIGINS", "*"),
            "server.cors_origins",
            "CORS_ORIGINS",
        ),
        (
            Set("CORS_ORIGINS", ""),
            "server.cors_origins",
            "CORS_ORIGINS",
        ),
        (
            Unset("KMS__HSM__ALLOW_SOFTWARE_IN_PRODUCTION"),
            "hsm.backend",
            "hsm.allow_software_in_production = true",
        ),
        (
            Unset("KMS__HSM__SOFTWARE__KEK_FILE"),
            "hsm.software.kek_file",
            "make one (32 random bytes)",
        ),
        (
            Set("KMS__HSM__SOFTWARE__KEK_FILE", argument(&missing)),
            "hsm.software.kek_file",
            "make one of 32 random bytes",
        ),
        (
            Set("KMS__HSM__SOFTWARE__KEK_FILE", argument(&of_development)),
            "hsm.software.kek_file",
            "make another for production",
        ),
        (
            Set("KMS__APPROVALS__MODE", "development"),
            "approvals.mode",
            "set it to signed",
        ),
        (Unset("KMS__APPROVALS__JWKS"), "approvals.jwks", "JWKS"),
        (
            Set("KMS__APPROVALS__JWKS", "http://iam.example.com/approvers"),
            "approvals.jwks",
            "https://",
        ),
        (
            Set("KMS__AUTH__JWKS", "http://iam.example.com/jwks"),
            "auth.jwks",
            "https://",
        ),
        (
            Set("KMS__STORE__URL", "memory:"),
            "store.url",
            "sqlite:PATH",
        ),
        (
            Set("KMS__APPROVALS__OPERATIONS", "key_lifecycle"),
            "approvals.operations",
            "add trust_anchor",
        ),
    ] {
        let mut environment = good.clone();
        match broken {
            Unset(variable) => drop(environment.remove(variable).expect(variable)),
            Set(variable, value) => drop(environment.insert(variable.into(), value.into())),
        }
        let ended = production.serve_in(&environment);
        assert_eq!(ended.code, Some(64), "{setting}: {ended:?}");
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let ["the configuration has 1 fault:", fault] = lines[..] else {
            panic!("one fault of {setting}: {ended:?}");
        };
        assert!(fault.trim_start().starts_with(setting), "{fault}");
        assert!(fault.contains(mend), "{mend} in {fault}");
    }
}

/// Tries to start with other files in some variables' places, which has to fail
/// with one line that has these words in it.
#[track_caller]
fn refuses(production: &Production, files: &[(&str, &str)], words: &[&str]) {
    let mut environment = production.environment();
    for (variable, file) in files {
        let path = production.file(file).display().to_string();
        environment.insert((*variable).to_owned(), path);
    }
    let ended = production.serve_in(&environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let output = ended.output();
    let line = output.lines().find(|line| line.contains("cannot start"));
    let line = line.unwrap_or_else(|| panic!("no reason: {output}"));
    for word in words {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert!(!output.contains("listening"), "{output}");
}

#[test]
fn certificates_that_cannot_serve_stop_the_start_with_the_file_and_the_reason() {
    let production = Production::lay_out();
    let (certificate, key) = ("KMS__TLS__CERTIFICATE", "KMS__TLS__PRIVATE_KEY");
    let words = ["client-M21.key", "tls.private_key", "is not the key of"];
    refuses(&production, &[(key, "client-M21.key")], &words);

    production.issue("ended", "ca", "IP:127.0.0.1", "serverAuth", Validity::ENDED);
    let files = [(certificate, "ended.pem"), (key, "ended.key")];
    let words = ["ended.pem", "tls.certificate", "ended at", "renew it"];
    refuses(&production, &files, &words);

    let words = ["kms.env", "tls.certificate"];
    refuses(&production, &[(certificate, "kms.env")], &words);
    let words = ["client-M21.pem", "tls.client_ca"];
    let files = [("KMS__TLS__CLIENT_CA", "client-M21.pem")];
    refuses(&production, &files, &words);
    let words = ["ca.pem", "tls.crl"];
    refuses(&production, &[("KMS__TLS__CRL", "ca.pem")], &words);
}

#[test]
fn a_key_set_with_a_private_key_in_it_stops_the_start_and_is_not_repeated() {
    let production = Production::lay_out();
    let canary = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE";
    for (variable, setting, made) in [
        ("KMS__APPROVALS__JWKS", "approvals.jwks", "approvers.jwks"),
        ("KMS__AUTH__JWKS", "auth.jwks", "m21.jwks"),
    ] {
        let mut set: Value = serde_json::from_str(&production.read(made)).expect("JSON");
        set["keys"][0]["d"] = json!(canary);
        std::fs::write(production.file("private.jwks"), set.to_string()).expect("written");
        let words = ["private.jwks", setting, "key number 1", "private"];
        refuses(&production, &[(variable, "private.jwks")], &words);
        let mut environment = production.environment();
        let path = production.file("private.jwks").display().to_string();
        environment.insert(variable.to_owned(), path);
        let ended = production.serve_in(&environment);
        assert!(!ended.output().contains(canary), "{ended:?}");
    }
}
