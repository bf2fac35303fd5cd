//! Flags, variables and profiles of a client, through the real binary.

use serde_json::json;

use crate::support::KmsProcess;
use crate::support::desk::{Desk, argument};
use crate::support::fake_service::{FakeService, Request};

const SIGN: [&str; 2] = ["sign", "alias/a"];

fn signing() -> FakeService {
    let answer = json!({ "signature": "QUJD" });
    FakeService::always(200, "", answer.to_string())
}

/// The one thing that was asked.
fn asked(service: &FakeService) -> Request {
    let heard = service.heard();
    heard.last().expect("a request").clone()
}

fn tenant(request: &Request) -> String {
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    body["tenant_id"].as_str().expect("a text").to_owned()
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_a_profile() {
    let service = signing();
    let desk = Desk::bare().with("HOME", "/nowhere");
    let profile = format!(
        "[work]\nurl = \"{}\"\ntenant = \"profile\"\nenvironment = \"dev\"\nplane = \"shared\"\n\
         module = \"M27\"\ntoken_file = \"token\"\n",
        service.address()
    );
    desk.put("settings/kms/profiles.toml", profile);
    desk.put("settings/kms/token", "a.b.c\n");
    let desk = desk.with("KMS_CLIENT_PROFILE", "work");
    let folder = desk.path("settings");
    let desk = desk.with("XDG_CONFIG_HOME", folder.display());

    desk.run(&SIGN).ok();
    let request = asked(&service);
    assert_eq!(tenant(&request), "profile");
    assert_eq!(request.header("x-module-id"), Some("M27"));
    assert_eq!(request.header("authorization"), Some("Bearer a.b.c"));

    let desk = desk
        .with("KMS_CLIENT_TENANT", "variable")
        .with("KMS_CLIENT_TOKEN", "d.e.f");
    desk.run(&SIGN).ok();
    assert_eq!(tenant(&asked(&service)), "variable");
    assert_eq!(
        asked(&service).header("authorization"),
        Some("Bearer d.e.f")
    );

    desk.run(
        &[
            &SIGN[..],
            &["--tenant", "flag", "--module", "", "--token-file", ""],
        ]
        .concat(),
    )
    .ok();
    assert_eq!(tenant(&asked(&service)), "flag");
    assert_eq!(asked(&service).header("x-module-id"), None);
    assert_eq!(asked(&service).header("authorization"), None);
    let other = [&SIGN[..], &["--profile", "play"]].concat();
    desk.run(&other)
        .failed(2, "there is no play; there are: work");
}

#[test]
fn a_mistake_in_a_profile_names_the_field_and_not_what_it_holds() {
    let desk = Desk::bare();
    let file = desk.put(
        "p.toml",
        "[p]\nurl = \"http://127.0.0.1:9\"\napproval = \"hunter2\"\n",
    );
    let desk = desk.with("KMS_CLIENT_PROFILES", file.display());
    let done = desk.run(&[&SIGN[..], &["--profile", "p"]].concat());
    done.failed(2, "approval ([p] in ");
    done.failed(2, "name its file in approval_file");
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
}

#[test]
fn what_is_missing_is_wrong_arguments_and_all_of_it_is_named() {
    let done = Desk::bare().run(&SIGN);
    for way in [
        "--tenant",
        "KMS_CLIENT_ENVIRONMENT",
        "plane: missing",
        "--profile",
    ] {
        done.failed(2, way);
    }
    let desk = Desk::new("ftp://nowhere");
    desk.run(&SIGN).failed(2, "url: ftp://nowhere");
    desk.run(&["sign", "no key"]).failed(2, "alias/<name>");
    desk.run(&["key", "revoke", "alias/a"])
        .failed(2, "--reason");
    let spelt = Desk::new("http://127.0.0.1:9").with("KMS_CLIENT_TENNANT", "x");
    spelt.run(&SIGN).failed(2, "is KMS_CLIENT_TENANT meant?");
}

#[test]
fn the_services_settings_and_a_clients_do_not_disturb_each_other() {
    let service = signing();
    let faulty = Desk::new(service.address())
        .with("KMS__NO__SUCH", "x")
        .with("ENVIRONMENT", "No Such");
    faulty.run(&SIGN).ok();
    let folder = tempfile::tempdir().expect("a folder");
    let clients = [("KMS_CLIENT_URL", "x"), ("KMS_CLIENT_NONSENSE", "y")];
    let with = KmsProcess::run(folder.path(), &["check-config"], &clients);
    let without = KmsProcess::run(folder.path(), &["check-config"], &[]);
    assert_eq!(with.code, Some(0), "{with:?}");
    assert_eq!(with.stdout, without.stdout);
}

#[test]
fn no_flag_takes_a_secret_and_no_message_gives_one_away() {
    let refusing = FakeService::always(401, "", "{}");
    for flag in ["--token", "--approval", "--password"] {
        let done = Desk::new(refusing.address()).run(&[&SIGN[..], &[flag, "hunter2"]].concat());
        done.failed(2, "unexpected argument");
        let said = done.stderr.replace(&format!("'{flag}"), "");
        assert!(!said.contains("hunter2"), "{done:?}");
    }
    assert!(refusing.heard().is_empty());
    // Refused by the service, and before it is sent.
    for token in ["hunter2", "hunter2\u{7f}", "hunter2\n\nhunter2"] {
        let desk = Desk::new(refusing.address()).with("KMS_CLIENT_APPROVAL", token);
        let file = desk.put("token", token);
        let done = desk.run(&[&SIGN[..], &["--token-file", argument(&file)]].concat());
        assert!(matches!(done.code, Some(2 | 4)), "{done:?}");
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
    let desk = Desk::new("http://192.0.2.1").with("KMS_CLIENT_TOKEN", "hunter2");
    let done = desk.run(&SIGN);
    done.failed(2, "a token goes over https");
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
    // However it is written that parsers of addresses read the same into it.
    for url in [
        " http://192.0.2.1",
        "http:/192.0.2.1",
        "http:192.0.2.1",
        "http:\\\\192.0.2.1",
        "ht\ttp://192.0.2.1",
        "http://127.0.0.1\\@192.0.2.1",
        "http://127.0.0.1:9/?a=b",
        "http://127.0.0.1:9/#a",
    ] {
        let desk = Desk::new(url).with("KMS_CLIENT_TOKEN", "hunter2");
        desk.run(&SIGN).failed(2, "");
    }
    let desk = Desk::new("https://me:hunter2@127.0.0.1:9");
    let done = desk.run(&SIGN);
    done.failed(2, "holds no name and no password");
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
}

#[test]
fn the_exit_codes_are_in_the_help_of_every_command() {
    let desk = Desk::bare();
    for command in [
        &["sign"][..],
        &["verify"],
        &["encrypt"],
        &["decrypt"],
        &["key", "generate"],
        &["key", "list"],
        &["key", "show"],
        &["key", "rotate"],
        &["key", "revoke"],
        &["key", "restore"],
    ] {
        let help = desk.run(&[command, &["--help"]].concat());
        assert!(
            help.ok().contains("3  the signature does not verify"),
            "{help:?}"
        );
    }
}
