//! `kms health`: asks a running service's operations listener how it is, for a
//! container's health check and for people. Knows the address from the same settings,
//! and only enough of HTTP for one question.

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::FAULTY_CONFIGURATION;
use crate::adapters::remote::escaped;
use crate::config::{Config, Source};

/// How long the whole question may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// More than any answer has, in bytes.
const LONGEST_ANSWER: u64 = 256 * 1024;

/// Asks a running service how it is: exits with 0 if it is fit, 1 if it is not or does
/// not answer within three seconds.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Asks only whether the process lives, and not for what it stands on.
    #[arg(long)]
    live: bool,
}

/// Asks, and prints the answer: the status, and each check that does not pass.
pub(super) fn run(config_dir: Option<PathBuf>, wanted: &Arguments) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    // If even that is gone, the exit code is left.
    let address = match Config::load(&Source::from_process(config_dir)) {
        Ok(loaded) => loaded.config.server.ops_listen,
        Err(faults) => {
            let _ = writeln!(stderr, "{faults}");
            return ExitCode::from(FAULTY_CONFIGURATION);
        }
    };
    let Some(address) = address else {
        let _ = writeln!(
            stderr,
            "server.ops_listen is off, so there is nobody to ask"
        );
        return ExitCode::from(FAULTY_CONFIGURATION);
    };
    let path = match wanted.live {
        true => "/health",
        false => "/kms/v1/health",
    };
    match ask(reachable(address), path) {
        Ok(answer) => {
            let _ = answer.print(&mut stdout);
            match answer.is_fit {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            let _ = writeln!(stderr, "no answer from {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where a listener can be reached from the same machine: one on every address listens
/// on loopback too.
pub(super) fn reachable(listening: SocketAddr) -> SocketAddr {
    let address = match listening.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    SocketAddr::new(address, listening.port())
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    is_fit: bool,
    health: Health,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Health {
    status: String,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Check {
    name: String,
    status: String,
    detail: String,
}

impl Answer {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", escaped(&self.health.status))?;
        let telling = self
            .health
            .checks
            .iter()
            .filter(|check| check.status != "pass");
        for Check {
            name,
            status,
            detail,
        } in telling
        {
            // Whoever answers there may steer a terminal.
            let line = format!("{status} {name}: {detail}");
            writeln!(out, "{}", escaped(&line))?;
        }
        out.flush()
    }
}

/// # Errors
/// The connection's; [`io::ErrorKind::InvalidData`] for what is no answer of the service.
fn ask(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let end = Instant::now() + DEADLINE;
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero())
            .then_some(left)
            .ok_or(io::ErrorKind::TimedOut)
    };
    let mut connection = TcpStream::connect_timeout(&address, DEADLINE)?;
    connection.set_write_timeout(Some(left()?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 8 * 1024];
    loop {
        // Each read anew, so that an answer in drops takes no longer either.
        connection.set_read_timeout(Some(left()?))?;
        match connection.read(&mut piece)? {
            0 => return parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            read if (answer.len() + read) as u64 > LONGEST_ANSWER => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
}

/// An answer of HTTP/1.1 with a body of known length, read to its end.
fn parse(answer: &[u8]) -> Option<Answer> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status: u16 = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer {
        is_fit: status == 200,
        health: serde_json::from_str(body).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:9002"), "127.0.0.1:9002");
        assert_eq!(reached("[::]:9002"), "[::1]:9002");
        assert_eq!(reached("192.0.2.7:1"), "192.0.2.7:1");
    }

    #[test]
    fn only_200_is_fit_and_what_is_no_answer_is_none() {
        let with = |status: &str| {
            let body = r#"{"status":"s","checks":[{"name":"n","status":"fail","detail":"d"}]}"#;
            parse(format!("HTTP/1.1 {status}\r\nA: b\r\n\r\n{body}").as_bytes())
        };
        assert!(with("200 OK").is_some_and(|answer| answer.is_fit));
        assert!(with("503 Service Unavailable").is_some_and(|answer| !answer.is_fit));
        let mut said = Vec::new();
        with("503 x")
            .expect("an answer")
            .print(&mut said)
            .expect("written");
        assert_eq!(said, b"s\nfail n: d\n");
        for nothing in [
            "",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "SSH-2.0-x\r\n\r\n{\"status\":\"s\"}",
        ] {
            assert_eq!(parse(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
