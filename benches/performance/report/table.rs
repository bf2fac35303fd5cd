//! The table of lines, in Markdown.

use std::fmt::Write as _;

use super::Line;

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
    ];
    let mut text = format!("| {} |\n", columns.join(" | "));
    text.push_str("| --- | --- ");
    text.push_str(&"| ---: ".repeat(columns.len() - 2));
    text.push_str("|\n");
    text
}

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
