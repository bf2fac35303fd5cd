//! The addresses that the service listens on: free, its own, or another program's.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde::Deserialize;

use super::processes::{self, Listener, Process, listener};
use super::report::Report;
use super::service::Service;
use crate::adapters::remote::{Patience, Question, RemoteOptions, RemoteService, escaped};
use crate::cli::fault::with_causes;
use crate::cli::health::reachable;
use crate::config::Config;
use crate::tls::answers_tls;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What the service calls itself.
const SERVICE: &str = "kms";

/// Looks at both.
pub(super) fn look(config: &Config, service: &Service, report: &mut Report) {
    let server = &config.server;
    let is_plain = config.tls.certificate.is_none();
    address("server.listen", server.listen, is_plain, service, report);
    if let Some(operations) = server.ops_listen {
        address("server.ops_listen", operations, true, service, report);
    }
}

fn address(
    setting: &'static str,
    wanted: SocketAddr,
    is_plain: bool,
    service: &Service,
    report: &mut Report,
) {
    // Whether the host is this machine's, without taking a port that anybody listens on.
    if let Err(error) = UdpSocket::bind(SocketAddr::new(wanted.ip(), 0)) {
        report.bad(
            setting,
            format_args!("{} is no address of this machine: {error}", wanted.ip()),
            format_args!("set {setting} to one, or to 0.0.0.0 or [::] for all"),
        );
        return;
    }
    if wanted.port() == 0 {
        report.good(setting, "port 0: a free one is taken");
        return;
    }
    match (listener(wanted), service) {
        (None, Service::None) if !processes::may_listen_on(wanted.port()) => report.bad(
            setting,
            format_args!(
                "{wanted} is free, and this user may not listen on ports as low as {}",
                wanted.port()
            ),
            format_args!(
                "set {setting} to a higher port, or give the service CAP_NET_BIND_SERVICE, and run \
                 this with it"
            ),
        ),
        (None, Service::None) => report.good(setting, format_args!("{wanted} is free")),
        (None, Service::Unseen) => report.note(
            setting,
            format_args!("nobody listens on {wanted} in this container, where the service is not"),
        ),
        (None, Service::Runs(process) | Service::Answers(process)) => report.note(
            setting,
            format_args!(
                "nobody listens on {wanted}: the service (process {}) starts or stops, or was \
                 started with another address",
                process.id
            ),
        ),
        (Some(found), Service::Runs(process) | Service::Answers(process))
            if found.process.as_ref() == Some(process) =>
        {
            own(setting, wanted, is_plain, report);
        }
        // A unit in a namespace of its own hides what it has open, from its own user too.
        (Some(found), Service::Runs(process))
            if found.process.is_none() && process.user() == Some(found.user) =>
        {
            unseen(setting, wanted, is_plain, report);
        }
        (Some(found), Service::Unseen) if found.process.is_none() => {
            unseen(setting, wanted, is_plain, report);
        }
        (Some(found), _) => report.bad(
            setting,
            format_args!("{wanted} is taken by {}", in_words(&found)),
            format_args!("stop that program, or set {setting} to another address"),
        ),
    }
}

fn in_words(found: &Listener) -> String {
    match &found.process {
        Some(process) => format!("process {} ({})", process.id, process.name()),
        None => format!(
            "a program of user {}, which cannot be seen from here",
            found.user
        ),
    }
}

/// The service listens there, and is asked whether it lives.
fn own(setting: &'static str, address: SocketAddr, is_plain: bool, report: &mut Report) {
    let dead = |what: &str, report: &mut Report| {
        report.bad(
            setting,
            format_args!("the service listens on {address}, and does not answer: {what}"),
            "look at the service's log; restart it",
        );
    };
    if !is_plain {
        match answers_tls(reachable(address), DEADLINE) {
            Ok(()) => report.good(
                setting,
                format_args!("the service answers on {address}, with TLS"),
            ),
            Err(error) => dead(&error.to_string(), report),
        }
        return;
    }
    match alive(reachable(address)) {
        Ok(version) if version == env!("CARGO_PKG_VERSION") => {
            report.good(setting, format_args!("the service answers on {address}"));
        }
        Ok(version) => report.note(
            setting,
            format_args!(
                "the service that answers on {address} is of version {version}, and this program \
                 of {}",
                env!("CARGO_PKG_VERSION")
            ),
        ),
        Err(what) => dead(&what, report),
    }
}

/// A program that cannot be seen listens there, most likely the service.
fn unseen(setting: &'static str, address: SocketAddr, is_plain: bool, report: &mut Report) {
    if !is_plain && answers_tls(reachable(address), DEADLINE).is_ok() {
        // A certificate alone does not tell that it is the service.
        report.note(
            setting,
            format_args!(
                "a program answers on {address}, with TLS: the service as it seems, whose open \
                 files cannot be seen from here"
            ),
        );
    } else {
        own(setting, address, is_plain, report);
    }
}

/// The process that answers as the service does where operations are asked for, for a
/// store that has no lock to tell it by.
pub(super) fn answering(config: &Config) -> Option<Process> {
    let operations = config
        .server
        .ops_listen
        .filter(|wanted| wanted.port() != 0)?;
    let process = listener(operations)?.process?;
    (process.name() == SERVICE && alive(reachable(operations)).is_ok()).then_some(process)
}

/// The version of the service that answers there.
fn alive(address: SocketAddr) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Liveness {
        service: String,
        version: String,
    }
    let options = RemoteOptions {
        deadline: Some(DEADLINE),
        ..RemoteOptions::default()
    };
    let asked = RemoteService::new(&format!("http://{address}"), &options).and_then(|service| {
        let patience = Patience::new(1, Duration::ZERO, Duration::ZERO);
        service.ask(&Question::get("health", LONGEST_ANSWER), patience)
    });
    let body = asked
        .map_err(|fault| escaped(&with_causes(&fault)))?
        .map_err(|refusal| refusal.to_string())?;
    match serde_json::from_slice(body.expose()) {
        Ok(Liveness { service, version }) if service == SERVICE => Ok(version),
        Ok(_) | Err(_) => Err("the answer is none of this service".to_owned()),
    }
}
