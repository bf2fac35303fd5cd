//! What a service can answer, or fail to, and what becomes of it.

use serde_json::json;

use crate::support::desk::Desk;
use crate::support::fake_service::{FakeService, Reply};

const SIGN: [&str; 2] = ["sign", "alias/a"];
const GENERATE: [&str; 6] = ["key", "generate", "--type", "AES-256", "--usage", "encrypt"];
const SOON: &str = "retry-after: 0\r\n";

fn envelope(code: &str, dependency: Option<&str>) -> String {
    let details = match dependency {
        Some(dependency) => json!({ "dependency": dependency }),
        None => json!({}),
    };
    json!({ "error": {
        "code": code, "message": "so it is", "details": details, "retryable": false,
        "request_id": "r1",
    }})
    .to_string()
}

fn unavailable(dependency: &str) -> String {
    envelope("DEPENDENCY_UNAVAILABLE", Some(dependency))
}

fn signed() -> String {
    json!({ "signature": "QUJD", "key_id": "k", "algorithm": "a", "receipt_id": "r" }).to_string()
}

/// A desk without an approval, in front of something.
fn desk(service: &FakeService) -> Desk {
    Desk::new(service.address()).without("KMS_CLIENT_APPROVAL")
}

#[test]
fn each_answer_has_its_exit_code() {
    for (status, code) in [
        (400, 4),
        (401, 4),
        (403, 4),
        (404, 4),
        (409, 4),
        (413, 4),
        (429, 5),
        (500, 1),
        (502, 1),
        // It may stand behind a change that was kept.
        (503, 1),
        (302, 1),
    ] {
        let body = envelope("SOME_CODE", None);
        let service = FakeService::always(status, "location: http://127.0.0.1:9/\r\n", body);
        let desk = desk(&service);
        for command in [&SIGN[..], &["key", "list"], &GENERATE] {
            let code = match (status, command == GENERATE) {
                (503, false) => 5,
                _ => code,
            };
            let done = desk.run(&[command, &["--wait", "0s"]].concat());
            done.failed(
                code,
                &format!("SOME_CODE: so it is ({status})\n  request id: r1"),
            );
        }
        assert_eq!(
            service.heard().len(),
            3,
            "{status}: asked again, or redirected"
        );
    }
}

#[test]
fn an_answer_that_is_none_is_a_failure() {
    for body in [
        "",
        "<html>",
        "[]",
        r#"{"signature":"\u001b[2J"}"#,
        r#"{"signature":7}"#,
    ] {
        let service = FakeService::always(200, "", body);
        desk(&service)
            .run(&SIGN)
            .failed(1, "the service's answer is no signature");
    }
    // Nor is a step taken because somebody answers 200.
    let revoke = ["key", "revoke", "alias/a", "--reason", "compromised"];
    for body in [
        "",
        "{}",
        "[]",
        "<html>",
        r#"{"status":"ok"}"#,
        r#"{"key_id":null}"#,
    ] {
        let service = FakeService::always(200, "", body);
        for command in [&GENERATE[..], &revoke] {
            let done = desk(&service).run(command);
            done.failed(1, "the service's answer is no step in a key's life");
            done.failed(1, "whether it was done is not known");
        }
    }
    let service = FakeService::always(502, "", "<html>bad gateway</html>");
    desk(&service)
        .run(&SIGN)
        .failed(1, "the service answers 502");
}

#[test]
fn a_service_that_is_away_is_told_from_one_that_hangs_up() {
    let nobody = Desk::new("http://127.0.0.1:9");
    nobody.run(&SIGN).failed(5, "Connection refused");
    nobody.run(&GENERATE).failed(5, "Connection refused");

    let service = FakeService::new(|_, _| Reply::HangUp);
    let desk = desk(&service);
    // Again does no harm.
    desk.run(&SIGN).failed(5, "cannot ask");
    desk.run(&["key", "list"]).failed(5, "cannot get");
    // Again may make another key, or meet a spent approval.
    desk.run(&GENERATE)
        .failed(1, "whether it was done is not known");
    let approved = Desk::new(service.address()).with("KMS_CLIENT_APPROVAL", "approval-token-123");
    approved
        .run(&SIGN)
        .failed(1, "and the approval spent, is not known");
    assert_eq!(service.heard().len(), 4, "sent again without a word");
}

#[test]
fn patience_is_had_where_it_does_no_harm() {
    let is_busy_once = |status: u16, body: String| {
        FakeService::new(move |_, before| match before {
            0 => Reply::Answer(status, SOON, body.clone()),
            _ => Reply::Answer(200, "", signed()),
        })
    };
    for (status, body, of_sign, of_generate) in [
        (429, envelope("RATE_LIMITED", None), 2, 2),
        (503, unavailable("load"), 2, 2),
        // A key may be made all the same.
        (503, unavailable("deadline"), 2, 1),
        (503, unavailable("store"), 2, 1),
        (500, envelope("INTERNAL_ERROR", None), 1, 1),
    ] {
        for (command, times) in [(&SIGN[..], of_sign), (&GENERATE, of_generate)] {
            let service = is_busy_once(status, body.clone());
            let done = desk(&service).run(command);
            assert_eq!(service.heard().len(), times, "{status} {body} {command:?}");
            assert_eq!(done.code == Some(0), times == 2, "{done:?}");
            let is_known = !(status >= 500 && times == 1 && command == GENERATE);
            assert_eq!(!done.stderr.contains("is not known"), is_known, "{done:?}");
        }
    }
    // An approval works once: its second try would be refused, whatever became of the
    // first.
    let service = is_busy_once(503, unavailable("store"));
    let approved = desk(&service).with("KMS_CLIENT_APPROVAL", "approval-token-123");
    approved.run(&SIGN).failed(5, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(service.heard().len(), 1);
}

#[test]
fn patience_ends_with_wait() {
    let busy = envelope("RATE_LIMITED", None);
    let service = FakeService::always(429, "retry-after: 3\r\n", busy.clone());
    let began = std::time::Instant::now();
    let done = desk(&service).run(&["sign", "alias/a", "--wait", "2s"]);
    done.failed(5, "the service asks for 3 s of patience");
    assert_eq!(service.heard().len(), 1);
    assert!(began.elapsed().as_secs() < 3, "it waited for nothing");

    let service = FakeService::always(429, "retry-after: 1\r\n", busy);
    desk(&service)
        .run(&["sign", "alias/a", "--wait", "2500ms"])
        .failed(5, "1 s of patience");
    assert_eq!(service.heard().len(), 3);
}

#[test]
fn nothing_that_a_service_says_steers_a_terminal() {
    let steering = "x\u{1b}[2J\u{9b}1m\u{202e}\u{7}y";
    let key = json!({
        "key_id": steering, "key_type": "AES-256", "key_alias": steering, "public_key": steering,
        "access_policy": { "allowed_modules": [steering] },
    });
    let page = json!({ "keys": [key], "next_cursor": null }).to_string();
    let service = FakeService::new(move |request, _| match request.line.contains("/keys?") {
        true => Reply::Answer(200, "", page.clone()),
        false => Reply::Answer(200, "", key.to_string()),
    });
    let error = json!({ "error": {
        "code": steering, "message": steering, "request_id": steering,
        "details": {
            "errors": [{ "field": steering, "problem": steering, "expected": steering }],
            "successor_key_id": steering,
        },
    }});
    let refusing = FakeService::always(409, "", error.to_string());
    for service in [&service, &refusing] {
        for command in [
            &["key", "list"][..],
            &["key", "list", "--json"],
            &["key", "show", "alias/a"],
            &["key", "show", "alias/a", "--json"],
            &GENERATE,
        ] {
            let done = desk(service).run(command);
            let all = format!("{}{}", done.stdout, done.stderr);
            assert!(all.contains("[2J"), "{all}");
            let steers = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!all.contains(steers), "{command:?}: {all:?}");
        }
    }
}

#[test]
fn a_list_that_leads_nowhere_ends() {
    let page = json!({ "keys": [], "next_cursor": "c" }).to_string();
    let service = FakeService::always(200, "", page);
    let done = desk(&service).run(&["key", "list"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("leads back"), "{done:?}");
    assert_eq!(service.heard().len(), 2);
    assert!(service.heard()[1].line.contains("cursor=c"));
    // In a circle too.
    let service = FakeService::new(|_, before| {
        let cursor = ["a", "b"][before % 2];
        let page = json!({ "keys": [], "next_cursor": cursor });
        Reply::Answer(200, "", page.to_string())
    });
    let done = desk(&service).run(&["key", "list"]);
    assert!(done.stderr.contains("leads back"), "{done:?}");
    assert_eq!(service.heard().len(), 3);
}

#[test]
fn a_page_that_is_longer_than_asked_for_is_cut() {
    let keys = vec![json!({ "key_id": "k" }); 3];
    let page = json!({ "keys": keys, "next_cursor": "c" }).to_string();
    let service = FakeService::always(200, "", page);
    let done = desk(&service).run(&["key", "list", "--json", "--limit", "2"]);
    assert_eq!(done.ok().lines().count(), 2);
}
