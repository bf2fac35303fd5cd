//! The table of lines, in Markdown.

use std::fmt::Write as _;

use super::Line;
use crate::matrix::BARE;

/// The heading of the columns.
pub(crate) fn heading() -> String {
    let columns = [
        "operation",
        "through",
        "at once",
        "a second",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs",
        "limit µs",
        "of the limit",
        "RSS MiB",
        "receipts a write",
        "ms a write",
    ];
    let mut text = format!("| {} |\n", columns.join(" | "));
    text.push_str("| --- | --- ");
    text.push_str(&"| ---: ".repeat(columns.len() - 2));
    text.push_str("|\n");
    text
}

/// The whole page: what the columns mean, and every line.
pub(crate) fn whole(lines: &[Line], notes: &[String]) -> String {
    let mut text = String::from(MEANING);
    for note in notes {
        let _ = write!(text, "\n{note}\n");
    }
    let is_bare = |line: &&Line| line.name.starts_with(BARE);
    for (title, lines) in [
        (
            "The service",
            lines
                .iter()
                .filter(|line| !is_bare(line))
                .collect::<Vec<_>>(),
        ),
        ("The bare handler", lines.iter().filter(is_bare).collect()),
    ] {
        let _ = write!(text, "\n## {title}\n\n{}", heading());
        text.extend(lines.iter().map(|line| line.row()));
    }
    text
}

/// What a reader has to know of the columns.
const MEANING: &str = "\
# Results

Written by `make bench`. Absolute figures are the machine's, and the load generator shares its cores with the server:
compare within one run.

- **through**: `library` is aws-lc-rs alone on one core; `service alone` the use cases without HTTP, from 32 tasks;
  `HTTP` and `mTLS` the whole path from kept-alive connections. The service keeps its receipts durably and writes
  its usual log lines (level info, format text) to `/dev/null`. `token alone` is SoftHSM through cryptoki, a thread
  and a session each; `bare handler that works` does the primitive and a receipt's signature and nothing else.
- A line from 32 connections takes the whole time (`KMS_BENCH_SECONDS`), half of it for the peak and half of it for the latencies; one from
  another number takes half as long, and the bare handler half of that. Every answer's status is checked, and the content of some.
- **a second**: the peak, in a closed loop: every connection sends its next request when the last is answered.
- **p50 to p99.9**: over HTTP and mTLS in an open loop at half that peak, with exponentially distributed times between
  requests, each counted from when it was due. Of `service alone` and of operations beside each other: in the closed loop at the peak.
- **CPU**: user and system time of the server for one answer, at the peak; of operations beside each other the mean of
  all their answers.
- **receipts a write**, **ms a write**: how many receipts shared a durable write at the peak, and how long one took.
- **limit**: the CPU of a bare handler with bodies of the same size (in steps of 64 bytes) over as many connections, the primitive alone, and one Ed25519
  signature for each receipt, all of the same run. **of the limit** is limit by CPU: 1.00 is all that can be had.
";

impl Line {
    /// As a row of the table.
    pub(crate) fn row(&self) -> String {
        let mut text = format!("| {} | {} | {}", self.name, self.through, self.at_once);
        let _ = write!(text, " | {}", thousands(self.per_second));
        match self.latency_ms {
            Some(quantiles) => quantiles.iter().for_each(|quantile| {
                let _ = write!(text, " | {quantile:.2}");
            }),
            None => text.push_str(&" | –".repeat(4)),
        }
        let _ = write!(text, " | {:.1}", self.cpu_us);
        let _ = match self.limit_us {
            Some(limit) => write!(text, " | {limit:.1} | {:.2}", limit / self.cpu_us.max(1e-9)),
            None => write!(text, " | – | –"),
        };
        let _ = match self.resident_mib {
            Some(resident) => write!(text, " | {resident:.0} |"),
            None => write!(text, " | – |"),
        };
        let _ = match self.writes {
            Some((receipts, took)) => write!(text, " {receipts:.1} | {took:.2} |"),
            None => write!(text, " – | – |"),
        };
        text.push('\n');
        text
    }
}

/// With a comma between thousands; what is small with a digit more.
pub(crate) fn thousands(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
