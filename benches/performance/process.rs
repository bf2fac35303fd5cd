//! What a process costs: its CPU time and its memory (proc(5)).

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

/// The CPU time of each thread of a process, in nanoseconds.
pub(crate) struct CpuTimes(HashMap<String, u64>);

/// A process.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// This one.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// What its threads have used so far, user and system: from
    /// `/proc/PID/task/*/schedstat`, which counts nanoseconds where `/proc/PID/stat`
    /// counts hundredths of a second.
    pub(crate) fn cpu(self) -> CpuTimes {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).expect("a process");
        let times = threads.flatten().filter_map(|thread| {
            // A thread that has just ended is no longer there.
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let used = text.split_whitespace().next()?.parse().ok()?;
            Some((thread.file_name().into_string().ok()?, used))
        });
        CpuTimes(times.collect())
    }

    /// CPU seconds since then. A thread that ended meanwhile is left out: those of
    /// the service end after ten idle seconds, or with it.
    pub(crate) fn cpu_seconds_since(self, before: &CpuTimes) -> f64 {
        let nanoseconds: u64 = self
            .cpu()
            .0
            .iter()
            .map(|(thread, used)| used.saturating_sub(*before.0.get(thread).unwrap_or(&0)))
            .sum();
        nanoseconds as f64 / 1e9
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("a process");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
            .map_or(0.0, |kibibytes| kibibytes / 1024.0)
    }
}

/// CPU seconds of the thread that asks.
pub(crate) fn thread_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("this thread");
    let used = text
        .split_whitespace()
        .next()
        .and_then(|used| used.parse().ok());
    used.map_or(0.0, |nanoseconds: u64| nanoseconds as f64 / 1e9)
}

/// The machine's CPU time, and this program's part in it with its children that have
/// ended, both in seconds.
pub(crate) struct Machine {
    at: Instant,
    busy: f64,
    own: f64,
}

/// What proc(5) counts in, on every Linux that matters.
const TICKS_A_SECOND: f64 = 100.0;

impl Machine {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let ticks = |text: &str, fields: &[usize]| -> f64 {
            let all: Vec<f64> = text
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0.0))
                .collect();
            let sum: f64 = fields.iter().filter_map(|place| all.get(*place)).sum();
            sum / TICKS_A_SECOND
        };
        let machine = fs::read_to_string("/proc/stat").expect("a file");
        let own = fs::read_to_string("/proc/self/stat").expect("this process");
        let after_name = own.rsplit_once(')').map_or("", |(_, after)| after);
        Self {
            at: Instant::now(),
            // user, nice, system, irq, softirq and steal of all cores
            busy: ticks(
                machine.lines().next().unwrap_or_default(),
                &[1, 2, 3, 6, 7, 8],
            ),
            // utime, stime, cutime and cstime
            own: ticks(after_name, &[11, 12, 13, 14]),
        }
    }

    /// What others did since then, which falsifies what was measured.
    pub(crate) fn disturbance_since(before: &Self) -> String {
        let now = Self::now();
        let others = (now.busy - before.busy) - (now.own - before.own);
        let cores = others.max(0.0) / (now.at - before.at).as_secs_f64().max(1e-9);
        format!(
            "While this was measured, everything else on the machine kept {cores:.2} cores busy.\n"
        )
    }
}
