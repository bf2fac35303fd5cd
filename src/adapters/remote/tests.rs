use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

/// A service that answers with these statuses and bodies in turn, the last one for ever;
/// its address, and how often it was asked.
fn service(answers: &[(u16, &str, &str)]) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let answers: Vec<String> = answers
        .iter()
        .map(|(status, headers, body)| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}"
            )
        })
        .collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).expect("a line") == 0 {
                    break;
                }
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).expect("a body");
            let number = count.fetch_add(1, Ordering::SeqCst) as usize;
            let answer = &answers[number.min(answers.len() - 1)];
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

fn refusal_of(dependency: &str) -> String {
    format!(
        r#"{{"error":{{"code":"DEPENDENCY_UNAVAILABLE","message":"m","request_id":"r",
            "details":{{"dependency":"{dependency}"}}}}}}"#
    )
}

fn ask(
    address: &str,
    repeat: Repeat,
    in_all: Duration,
) -> Result<Result<SecretBytes, Refusal>, RemoteFault> {
    let service = RemoteService::new(address, &RemoteOptions::default()).expect("a client");
    let body = SecretBytes::new(b"{}".to_vec());
    let question = Question {
        verb: Verb::Post,
        body: Some(&body),
        repeat,
        ..Question::get("x", 16)
    };
    service.ask(&question, Patience::new(5, Duration::MAX, in_all))
}

const SOON: &str = "retry-after: 0\r\n";
const WAIT: Duration = Duration::from_secs(10);

#[test]
fn what_does_no_harm_is_sent_again_after_any_wish_for_patience() {
    for dependency in ["load", "deadline", "store"] {
        let (address, asked) = service(&[(503, SOON, &refusal_of(dependency)), (200, "", "ok")]);
        let answer = ask(&address, Repeat::Harmless, WAIT).expect("an answer");
        assert_eq!(answer.map(|body| body.len()).ok(), Some(2), "{dependency}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{dependency}");
    }
}

#[test]
fn what_may_have_been_done_is_not_sent_again() {
    for (status, body, times) in [
        (429, String::new(), 2),
        (503, refusal_of("load"), 2),
        (503, refusal_of("deadline"), 1),
        (503, refusal_of("store"), 1),
        (503, refusal_of("hsm"), 1),
        (503, String::new(), 1),
        (500, String::new(), 1),
    ] {
        let (address, asked) = service(&[(status, SOON, &body), (200, "", "ok")]);
        let answer = ask(&address, Repeat::OnlyUntouched, WAIT).expect("an answer");
        assert_eq!(answer.is_ok(), times == 2, "{status} {body}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{status} {body}");
    }
}

#[test]
fn patience_has_an_end_by_number_and_by_time() {
    let (address, asked) = service(&[(429, SOON, "")]);
    let answer = ask(&address, Repeat::Harmless, WAIT).expect("an answer");
    assert_eq!(answer.err().map(|refusal| refusal.status), Some(429));
    assert_eq!(asked.load(Ordering::SeqCst), 5);

    // A rest that would last longer is not begun.
    let (address, asked) = service(&[(429, "retry-after: 11\r\n", "")]);
    let refusal = ask(&address, Repeat::Harmless, WAIT)
        .expect("an answer")
        .err();
    let rest = refusal.expect("refused").retry_after;
    assert_eq!(rest, Some(Duration::from_secs(11)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_that_is_not_made_is_told_from_one_that_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let losing = std::thread::spawn(move || drop(listener.accept()));
    let kind = |address: &str| {
        let fault = ask(address, Repeat::Harmless, WAIT)
            .err()
            .expect("no answer");
        fault.kind
    };
    assert_eq!(kind(&address), RemoteFaultKind::Lost);
    losing.join().expect("no panic");
    assert_eq!(kind(&address), RemoteFaultKind::Away);
    let (long, _) = service(&[(200, "", "more than sixteen bytes")]);
    assert_eq!(kind(&long), RemoteFaultKind::Malformed);
}

#[test]
fn an_address_with_a_password_is_refused_and_not_repeated() {
    let fault = RemoteService::new("http://me:s3cret@127.0.0.1", &RemoteOptions::default());
    let fault = fault.err().expect("refused");
    assert_eq!(fault.kind, RemoteFaultKind::Address);
    assert!(!fault.what.contains("s3cret"), "{}", fault.what);
}

#[test]
fn a_token_that_is_none_is_not_repeated() {
    let options = RemoteOptions {
        token: Some(SecretBytes::new(b"s3cret\n".to_vec())),
        ..RemoteOptions::default()
    };
    let fault = RemoteService::new("http://127.0.0.1", &options).err();
    let fault = fault.expect("refused");
    assert_eq!(fault.kind, RemoteFaultKind::Options);
    assert!(!format!("{fault:?}").contains("s3cret"), "{fault:?}");
}

#[test]
fn a_refusal_is_read_whole_and_shown_escaped() {
    let body =
        br#"{"error":{"code":"INVALID_REQUEST","message":"bad \u001b[1m\u202e's","request_id":"r1",
        "details":{"errors":[{"field":"a\u0007b","problem":"missing","expected":"one of x"},7],
                   "limit_bytes":1024,"successor_key_id":"k"}}}"#;
    let refusal = Refusal::read(400, None, body);
    assert_eq!(
        refusal.to_string(),
        "INVALID_REQUEST, bad \\u{1b}[1m\\u{202e}'s"
    );
    assert_eq!(refusal.fields, ["a\\u{7}b (missing): one of x", "a field"]);
    assert_eq!(refusal.request_id.as_deref(), Some("r1"));
    assert_eq!(refusal.limit_bytes, Some(1024));
    assert_eq!(refusal.successor_key_id.as_deref(), Some("k"));
    let bare = Refusal::read(502, None, b"<html>");
    assert_eq!(bare.to_string(), "status 502");
}
