//! What the process takes of its machine, under the names that every Prometheus
//! client library has. Read anew for every scrape, from `/proc/self` (proc(5)).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use prometheus::{Counter, Gauge, IntGauge, Registry};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The metrics of this file.
pub(super) struct Process {
    cpu_seconds: Counter,
    resident_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
    /// When the machine was started. Looked at once: a clock that is set later would
    /// look like another start.
    booted: f64,
    /// Two scrapes at once would count the same seconds twice.
    looking: Mutex<()>,
}

/// What `/proc/self/stat` says.
struct Stat {
    /// CPU seconds in user and system mode.
    cpu: f64,
    threads: i64,
    /// Seconds from boot to this process's start.
    started: f64,
    resident_pages: i64,
}

impl Process {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let process = Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "User and system CPU time spent, in seconds.",
            )?,
            resident_memory: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory, in bytes.",
            )?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: IntGauge::new(
                "process_max_fds",
                "File descriptors that may be open at once.",
            )?,
            threads: IntGauge::new("process_threads", "Threads of the process.")?,
            start_time: Gauge::new(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
            )?,
            booted: booted(),
            looking: Mutex::new(()),
        };
        registry.register(Box::new(process.cpu_seconds.clone()))?;
        registry.register(Box::new(process.resident_memory.clone()))?;
        registry.register(Box::new(process.open_fds.clone()))?;
        registry.register(Box::new(process.max_fds.clone()))?;
        registry.register(Box::new(process.threads.clone()))?;
        registry.register(Box::new(process.start_time.clone()))?;
        Ok(process)
    }

    /// Looks. What cannot be read stays as it was.
    pub(super) fn look(&self) {
        let _alone = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stat) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(parse)
        {
            // A counter only grows.
            self.cpu_seconds
                .inc_by((stat.cpu - self.cpu_seconds.get()).max(0.0));
            self.threads.set(stat.threads);
            let page = i64::try_from(page_size()).unwrap_or(0);
            self.resident_memory.set(stat.resident_pages * page);
            self.start_time.set(self.booted + stat.started);
        }
        if let Ok(open) = entries(Path::new("/proc/self/fd")) {
            // Without the one that the looking itself takes.
            self.open_fds.set(open.saturating_sub(1));
        }
        let most = getrlimit(Resource::Nofile).current;
        self.max_fds
            .set(most.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX)));
    }
}

/// Reads the fields of proc_pid_stat(5), which are counted from behind the name: that
/// may have anything in it.
fn parse(stat: &str) -> Option<Stat> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first one here is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    #[allow(clippy::cast_precision_loss, reason = "ticks of years are below 2^52")]
    let seconds = |ticks: i64| ticks as f64 / clock_ticks_per_second() as f64;
    Some(Stat {
        cpu: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        started: seconds(field(22)?),
        resident_pages: field(24)?,
    })
}

/// When the machine was started, in seconds since 1970. Not from `/proc/stat`, which a
/// hardened unit does not show.
fn booted() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "seconds are below 2^52")]
    let seconds = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    seconds(ClockId::Realtime) - seconds(ClockId::Boottime)
}

fn entries(folder: &Path) -> io::Result<i64> {
    Ok(i64::try_from(fs::read_dir(folder)?.count()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 300 100 0 0 20 0 5 0 900 1000 42 0";
        let stat = parse(stat).expect("reads");
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(stat.cpu, 400.0 / ticks);
        assert_eq!(stat.threads, 5);
        assert_eq!(stat.started, 900.0 / ticks);
        assert_eq!(stat.resident_pages, 42);
        assert!(parse("7 (kms) S 1").is_none());
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let process = Process::register(&Registry::new()).expect("names are unique");
        process.look();
        let before = process.open_fds.get();
        let files: Vec<_> = (0..200)
            .map(|_| fs::File::open("/proc/self/stat"))
            .collect();
        process.look();
        // Other tests open and close some meanwhile.
        let more = process.open_fds.get() - before;
        assert!((100..1_000).contains(&more), "{more}");
        drop(files);
        assert!(process.max_fds.get() >= process.open_fds.get());
        assert!(process.threads.get() >= 1);
        let resident = process.resident_memory.get();
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
        let uptime = fs::read_to_string("/proc/uptime").expect("reads");
        let uptime: f64 = uptime
            .split(' ')
            .next()
            .expect("two")
            .parse()
            .expect("a number");
        let stat = fs::read_to_string("/proc/stat").expect("reads");
        let mut lines = stat.lines();
        let kernels = lines.find_map(|line| line.strip_prefix("btime "));
        let kernels: f64 = kernels.expect("a line").parse().expect("a number");
        let off = (process.booted - kernels).abs();
        assert!(off < 2.0, "{} {kernels}", process.booted);
        let started = process.start_time.get();
        assert!(
            (kernels..kernels + uptime + 2.0).contains(&started),
            "{started}"
        );
        process.look();
        assert_eq!(process.start_time.get(), started);
    }
}
