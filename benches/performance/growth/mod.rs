//! What a store costs that has grown, beside a fresh one in the same run.

mod compare;
mod fill;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use self::compare::{Figure, few_keys, pages, rotations, throughput};
use self::fill::{Made, Size, fill};
use crate::servers::Server;
use crate::settings::Settings;

/// Distinct keys of each type that a fresh store is loaded with, and a grown one for
/// comparison: all of them are in the caches of both.
const FEW: usize = 100;

/// How often the start is measured.
const STARTS: usize = 3;

/// One column of the table.
struct Column {
    title: &'static str,
    figures: Vec<Figure>,
}

/// Fills a store; to be called outside of any runtime.
pub(crate) fn prepare(settings: &Settings, data_dir: &Path, say: impl Fn(&str)) -> Grown {
    let keys = settings.keys.max(10 * FEW);
    let size = Size {
        keys,
        tenants: keys / 10,
        keys_of_the_first: keys / 20,
        anchors: keys / 2,
        receipts: keys * 10,
    };
    Grown {
        keys: fill(data_dir, size, say),
        size,
    }
}

/// A store that was filled.
pub(crate) struct Grown {
    keys: Vec<Made>,
    size: Size,
}

/// Measures both, and writes what it comes to.
pub(crate) async fn run(settings: &Settings, data_dir: &Path, grown: Grown, say: impl Fn(&str)) {
    let line = settings.line;
    let rotated = grown.size.keys / 100;
    let fresh = tempfile::tempdir().expect("a folder");
    let mut columns = Vec::new();

    let kms = start(fresh.path()).await;
    let few = few_keys(&kms, FEW).await;
    kms.stop();
    let (kms, mut figures) = starts(fresh.path()).await;
    let all: Vec<&Made> = few.iter().collect();
    figures.extend(throughput(&kms, &all, line).await);
    figures.push(resident(&kms, "RSS after that load"));
    figures.extend(pages(&kms, line).await);
    figures.extend(rotations(&kms, rotated, line).await);
    drop(kms);
    columns.push(Column {
        title: "fresh",
        figures,
    });

    let (kms, mut figures) = starts(data_dir).await;
    let some = some_of(&grown.keys);
    figures.extend(throughput(&kms, &some, line).await);
    figures.push(resident(&kms, "RSS after that load"));
    columns.push(Column {
        title: "grown, as many keys in use",
        figures,
    });

    let all: Vec<&Made> = grown.keys.iter().collect();
    // Long enough that many of them are met.
    let mut figures = throughput(&kms, &all, line * 3).await;
    figures.push(resident(&kms, "RSS after that load"));
    figures.extend(pages(&kms, line).await);
    figures.extend(rotations(&kms, rotated, line).await);
    columns.push(Column {
        title: "grown, all keys in use",
        figures,
    });

    let text = page(grown.size, &columns);
    say(&text);
    if let Some(out) = &settings.out {
        std::fs::create_dir_all(out).expect("a folder");
        std::fs::write(out.join("growth.md"), text).expect("written");
    }
}

async fn start(data_dir: &Path) -> Server {
    Server::kms_in(data_dir, None, None, &[]).await
}

/// A service that was started a few times, with what its start takes.
async fn starts(data_dir: &Path) -> (Server, Vec<Figure>) {
    let mut took = Vec::new();
    let mut kms = start(data_dir).await;
    took.push(kms.ready_after);
    while took.len() < STARTS {
        kms.stop();
        kms = start(data_dir).await;
        took.push(kms.ready_after);
    }
    took.sort_unstable();
    let median = took.get(STARTS / 2).map_or(0.0, Duration::as_secs_f64);
    let ready = Figure {
        name: "start until ready".to_owned(),
        value: format!("{median:.2} s"),
    };
    let figures = vec![ready, resident(&kms, "RSS after the start")];
    (kms, figures)
}

fn resident(kms: &Server, name: &str) -> Figure {
    Figure {
        name: name.to_owned(),
        value: format!("{:.0} MiB", kms.process().resident_mib()),
    }
}

/// As many of each type as the fresh store has, from all over the store.
fn some_of(keys: &[Made]) -> Vec<&Made> {
    use kms::domain::algorithm::KeyType;
    let mut some = Vec::new();
    for key_type in [KeyType::Ed25519, KeyType::Aes256] {
        let of_type: Vec<&Made> = keys.iter().filter(|key| key.key_type == key_type).collect();
        let step = (of_type.len() / FEW).max(1);
        some.extend(of_type.into_iter().step_by(step).take(FEW));
    }
    some
}

fn page(size: Size, columns: &[Column]) -> String {
    let Size {
        keys,
        tenants,
        keys_of_the_first,
        anchors,
        receipts,
    } = size;
    let mut text = format!(
        "# A store that has grown\n\n\
         Written by `make growth`: a store of {keys} keys (1 % RSA-2048, 55 % Ed25519, 44 % AES-256) of {tenants} tenants, \
         {keys_of_the_first} of\nthem the first tenant's, {anchors} trust anchors and at least {receipts} receipts, beside a fresh one in the same run. \
         Throughput: 32 connections in\na closed loop, which also is what its p99 is of, and the service's CPU of one answer; \
         the number of distinct keys is in brackets. Everything else: one connection. A start is\n\
         from the process's begin to the first answer that it is ready, the median of {STARTS}.\n\n"
    );
    let titles: String = columns
        .iter()
        .map(|column| format!(" {} |", column.title))
        .collect();
    let _ = writeln!(
        text,
        "| |{titles}\n| --- |{}",
        " --- |".repeat(columns.len())
    );
    let mut names: Vec<&str> = Vec::new();
    for figure in columns.iter().flat_map(|column| &column.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for name in names {
        let cells: String = columns
            .iter()
            .map(|column| {
                let found = column.figures.iter().find(|figure| figure.name == name);
                format!(" {} |", found.map_or("", |figure| &figure.value))
            })
            .collect();
        let _ = writeln!(text, "| {name} |{cells}");
    }
    text
}
