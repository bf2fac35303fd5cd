//! What the machine gives the process: the time, randomness, and open files.

use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use rustix::rand::{GetRandomFlags, getrandom};

use super::processes::OpenFiles;
use super::report::Report;
use super::service::Service;
use super::store::Newest;
use crate::adapters::clock::SystemClock;
use crate::config::Config;
use crate::domain::time::Period;
use crate::ports::clock::Clock as _;

/// How far the newest receipt may be ahead of this clock, which may have been set since.
const AHEAD: Period = Period::seconds(5);

/// Connections that each of the two listeners takes at once, as the service has it.
const CONNECTIONS: u64 = 16_384;

/// What the service has open beside connections: the store, its readers, the listeners,
/// files that are read again, fetches of key sets, and the log.
const BESIDE_CONNECTIONS: u64 = 128;

/// Holds the clock to the newest receipt. Whether the kernel knows of a synchronization
/// is not asked.
pub(super) fn clock(newest_receipt: Option<Newest>, report: &mut Report) {
    match newest_receipt {
        Some(Newest { made, read }) if made > read.plus(AHEAD) => report.bad(
            "clock",
            format_args!("it is {read} here, and the newest receipt is of {made}"),
            "set the clock right, and keep it by NTP: keys expire, and approvals and certificates \
             are judged, by this clock",
        ),
        Some(Newest { made, read }) => report.good(
            "clock",
            format_args!("it is {read} here, and the newest receipt is of {made}"),
        ),
        None => report.good("clock", format_args!("it is {} here", SystemClock.now())),
    }
}

/// Whether the kernel's generator answers without being waited for.
pub(super) fn entropy(report: &mut Report) {
    let mut bytes = [0; 32];
    let asked = Instant::now();
    match getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK) {
        Ok(32) => report.good(
            "entropy",
            format_args!(
                "the kernel gives random bytes at once ({:?})",
                asked.elapsed()
            ),
        ),
        Ok(_) => report.note(
            "entropy",
            "the kernel gave fewer random bytes than it was asked for",
        ),
        Err(error) => report.bad(
            "entropy",
            format_args!("the kernel has no random bytes yet: {error}"),
            "wait until its generator is seeded; in a virtual machine add a virtio-rng device",
        ),
    }
}

/// Holds the limit of open files to the requests and the connections that there may be.
pub(super) fn limits(config: &Config, service: &Service, report: &mut Report) {
    let unseen = "how many files the service may have open cannot be seen from here";
    let (limit, whose) = match service {
        Service::Runs(process) | Service::Answers(process) => {
            let limit = match process.open_files_limit() {
                OpenFiles::AtMost(limit) => Some(limit),
                OpenFiles::Unlimited => None,
                OpenFiles::Unseen => {
                    report.note("open_files", unseen);
                    return;
                }
            };
            (limit, format!("the service (process {})", process.id))
        }
        Service::Unseen => {
            report.note("open_files", unseen);
            return;
        }
        Service::None => (
            getrlimit(Resource::Nofile).current,
            "a service that is started from here".to_owned(),
        ),
    };
    let in_flight = config.server.max_in_flight.get() as u64;
    let enough = 2 * CONNECTIONS + BESIDE_CONNECTIONS;
    match judge(limit, in_flight) {
        EnoughFor::All => {
            let limit = limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string());
            report.good(
                "open_files",
                format_args!("{whose} may have {limit} files open"),
            );
        }
        EnoughFor::Requests(limit) => report.note(
            "open_files",
            format_args!(
                "{whose} may have {limit} files open: connections past that wait. {enough} are \
                 enough for all that both listeners take (ulimit -n, LimitNOFILE=)"
            ),
        ),
        EnoughFor::Neither(limit) => report.bad(
            "open_files",
            format_args!(
                "{whose} may have {limit} files open, which is too few for server.max_in_flight \
                 ({in_flight}) requests, each on a connection of its own, and {BESIDE_CONNECTIONS} \
                 other files"
            ),
            format_args!(
                "raise the limit (ulimit -n, LimitNOFILE=) to {enough}, or lower \
                 server.max_in_flight"
            ),
        ),
    }
}

/// What so many open files are enough for.
#[derive(Debug, PartialEq, Eq)]
enum EnoughFor {
    All,
    Requests(u64),
    Neither(u64),
}

fn judge(limit: Option<u64>, in_flight: u64) -> EnoughFor {
    match limit {
        Some(limit) if limit < in_flight + BESIDE_CONNECTIONS => EnoughFor::Neither(limit),
        Some(limit) if limit < 2 * CONNECTIONS + BESIDE_CONNECTIONS => EnoughFor::Requests(limit),
        Some(_) | None => EnoughFor::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_newest_receipt_is_wrong() {
        let at = |time: &str| time.parse().expect("a time");
        let is_well = |now: &str, newest: Option<&str>| {
            let mut report = Report::default();
            let newest = newest.map(|made| Newest {
                made: at(made),
                read: at(now),
            });
            clock(newest, &mut report);
            report.is_well()
        };
        let now = "2026-06-01T00:00:00Z";
        assert!(is_well(now, None));
        assert!(is_well(now, Some("2026-05-31T00:00:00Z")));
        assert!(is_well(now, Some("2026-06-01T00:00:05Z")));
        assert!(!is_well(now, Some("2026-06-01T00:00:06Z")));
    }

    #[test]
    fn open_files_are_held_to_requests_and_connections() {
        assert_eq!(judge(Some(1_151), 1_024), EnoughFor::Neither(1_151));
        assert_eq!(judge(Some(1_152), 1_024), EnoughFor::Requests(1_152));
        assert_eq!(judge(Some(32_895), 1_024), EnoughFor::Requests(32_895));
        assert_eq!(judge(Some(32_896), 1_024), EnoughFor::All);
        assert_eq!(judge(None, 1_024), EnoughFor::All);
    }
}
