//! The pictures of a run: what the whole path does from 32 connections.

use super::Line;
use super::svg::{Bar, Row, bars};
use super::table::thousands;
use crate::matrix::{BARE, MAIN, MUTUAL_TLS, PLAIN};

/// The pictures, with the names of their files.
pub(crate) fn pictures(lines: &[Line]) -> [(&'static str, String); 3] {
    [
        ("throughput.svg", throughput(lines)),
        ("cpu.svg", cpu(lines)),
        ("latency.svg", latency(lines)),
    ]
}

fn of<'a>(lines: &'a [Line], through: &'a str) -> impl Iterator<Item = &'a Line> {
    lines
        .iter()
        .filter(|line| line.at_once == MAIN && !line.name.starts_with(BARE))
        .filter(move |line| line.through == through && line.limit_us.is_some())
}

fn throughput(lines: &[Line]) -> String {
    let per_second = |line: &Line| Bar {
        value: line.per_second,
        text: thousands(line.per_second),
    };
    let rows: Vec<Row> = of(lines, PLAIN)
        .map(|line| Row {
            label: line.name.clone(),
            bars: [line]
                .into_iter()
                .chain(of(lines, MUTUAL_TLS).filter(|other| other.name == line.name))
                .map(per_second)
                .collect(),
        })
        .collect();
    let title = "Answers a second at the peak, from 32 connections";
    bars(title, &[PLAIN, MUTUAL_TLS], &rows, longest(&rows))
}

/// Each operation by its own measure: they are five orders of magnitude apart.
fn cpu(lines: &[Line]) -> String {
    let rows: Vec<Row> = of(lines, PLAIN)
        .map(|line| {
            let limit = line.limit_us.unwrap_or_default();
            let share = limit / line.cpu_us.max(1e-9);
            Row {
                label: line.name.clone(),
                bars: vec![
                    Bar {
                        value: 1.0,
                        text: format!("{} µs", thousands(line.cpu_us)),
                    },
                    Bar {
                        value: share,
                        text: format!("{} µs, {:.0} %", thousands(limit), share * 100.0),
                    },
                ],
            }
        })
        .collect();
    let title = "CPU of one answer, and what it takes at least, over HTTP from 32 connections";
    bars(title, &["the service", "at least"], &rows, 1.0)
}

fn latency(lines: &[Line]) -> String {
    let rows: Vec<Row> = of(lines, PLAIN)
        .filter_map(|line| {
            let [p50, _, p99, p999] = line.latency_ms?;
            let bar = |value: f64| Bar {
                value,
                text: format!("{value:.2} ms"),
            };
            Some(Row {
                label: line.name.clone(),
                bars: [p50, p99, p999].map(bar).into(),
            })
        })
        .collect();
    let title = "Latency at half the peak, open loop, over HTTP from 32 connections";
    // What is far slower than the rest would leave nothing of it to be seen.
    let mut slowest: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.bars.last().map(|bar| bar.value))
        .collect();
    slowest.sort_by(f64::total_cmp);
    let median = slowest.get(slowest.len() / 2).copied().unwrap_or(1.0);
    let longest = longest(&rows).min(median * 4.0);
    bars(title, &["p50", "p99", "p99.9"], &rows, longest)
}

fn longest(rows: &[Row]) -> f64 {
    let all = rows.iter().flat_map(|row| &row.bars);
    all.map(|bar| bar.value).fold(0.0, f64::max)
}
