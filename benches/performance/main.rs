//! What the service costs, beside what it costs at least.
//!
//! `cargo bench --bench performance` measures the primitives alone, the whole HTTP path,
//! and a bare handler in the same run, and writes a table. Absolute figures are the
//! machine's; the ratios are what to compare. `settings` says what can be chosen.

mod bare;
mod dice;
mod load;
mod matrix;
mod operations;
mod pki;
mod primitives;
mod process;
mod report;
mod requests;
mod servers;
mod settings;

use std::io::{self, Write as _};

use tokio::task::LocalSet;

use self::pki::Pki;
use self::primitives::{Primitive, Primitives};
use self::report::{Line, table};
use self::settings::Settings;

/// The argument with which this program starts itself as the bare server.
const BARE: &str = "--bare-server";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [BARE, address, pki @ ..] = &arguments[..] {
        return bare::serve(address, pki.first().copied());
    }
    let settings = Settings::read();
    // One thread: what the generator takes, the server does not have.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(measure(&settings)));
}

async fn measure(settings: &Settings) {
    let mut out = io::stdout();
    let mut text = table::heading();
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::make(folder.path());
    write!(out, "{text}").expect("written");
    let mut emit = |line: Line| {
        let row = line.row();
        write!(out, "{row}").expect("written");
        text.push_str(&row);
    };
    let primitives = Primitives::measure(settings.line / 10);
    for primitive in Primitive::ALL {
        let cpu_us = primitives.of(primitive);
        emit(Line {
            name: primitive.name().to_owned(),
            through: "library".to_owned(),
            at_once: 1,
            per_second: 1e6 / cpu_us,
            cpu_us,
            ..Line::default()
        });
    }
    matrix::run(settings, &pki, &primitives, &mut emit).await;
    if let Some(out) = &settings.out {
        std::fs::create_dir_all(out).expect("a folder");
        std::fs::write(out.join("results.md"), text).expect("written");
    }
}
