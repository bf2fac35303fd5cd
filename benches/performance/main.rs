//! What the service costs, beside what it costs at least.
//!
//! `cargo bench --bench performance` (`make bench`) measures the primitives alone, the use
//! cases without HTTP, the whole HTTP path, and a bare handler in the same run, and writes
//! a table with pictures. With `-- soak` it holds the mixed load to its budgets, with
//! `-- growth` it compares a store that has grown with a fresh one, with `-- instructions`
//! it counts those of each operation. Absolute figures are
//! the machine's; the ratios are what to compare. `settings` says what can be chosen.

mod bare;
mod contention;
mod dice;
mod growth;
mod in_process;
mod instructions;
mod load;
mod matrix;
mod operations;
mod pki;
mod primitives;
mod process;
mod report;
mod requests;
mod servers;
mod service;
mod settings;
mod soak;
mod token;

use std::io::{self, Write as _};

use tokio::task::LocalSet;

use self::pki::Pki;
use self::primitives::Primitives;
use self::process::Machine;
use self::report::{Line, pictures, table};
use self::settings::Settings;

/// The service's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The argument with which this program starts itself as the bare server.
const BARE: &str = "--bare-server";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        // Cargo's own, to every benchmark.
        .filter(|argument| *argument != "--bench")
        .collect();
    let settings = Settings::read();
    match arguments[..] {
        [BARE, address] => bare::serve(address, None),
        [BARE, address, pki] => bare::serve(address, Some(pki)),
        [service::ON_SOFTWARE] => service::measure_on_software(&settings),
        [service::ON_TOKEN, sessions] => {
            service::measure_on_token(&settings, sessions.parse().expect("a number"));
        }
        [token::BARE_TOKEN, sessions] => {
            token::measure_bare(&settings, sessions.parse().expect("a number"));
        }
        [] => alone(measure(&settings)),
        ["soak"] => alone(soak::run(&settings, say)),
        ["growth"] => {
            let folder = tempfile::tempdir().expect("a folder");
            let grown = growth::prepare(&settings, folder.path(), say);
            alone(growth::run(&settings, folder.path(), grown, say));
        }
        [instructions::COUNTED, data_dir, name, times] => {
            instructions::do_counted(data_dir, name, times);
        }
        ["instructions"] => {
            if !instructions::run(say) {
                std::process::exit(1);
            }
        }
        _ => panic!("{arguments:?} is none of: nothing, soak, growth, instructions"),
    }
}

/// On one thread: what the generator takes, the server does not have.
fn alone(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(work));
}

async fn measure(settings: &Settings) {
    let before = Machine::now();
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::make(folder.path());
    let mut lines = Vec::new();
    say(&table::heading());
    let mut emit = |line: Line| {
        say(&line.row());
        lines.push(line);
    };
    let primitives = Primitives::measure(settings.line / 10);
    primitives.lines().for_each(&mut emit);
    service::run(settings, &primitives, &mut emit);
    let without_batches = matrix::run(settings, &pki, &primitives, &mut emit).await;
    contention::run(settings, &mut emit).await;
    let without_token = token::run(settings, &mut emit).await;
    let without = [without_batches, without_token].into_iter().flatten();
    let mut notes: Vec<String> = without.map(str::to_owned).collect();
    notes.push(Machine::disturbance_since(&before));
    notes.iter().for_each(|note| say(note));
    if let Some(out) = &settings.out {
        std::fs::create_dir_all(out).expect("a folder");
        let text = table::whole(&lines, &notes);
        std::fs::write(out.join("results.md"), text).expect("written");
        for (name, picture) in pictures::pictures(&lines) {
            std::fs::write(out.join(name), picture).expect("written");
        }
    }
}

fn say(text: &str) {
    write!(io::stdout(), "{text}").expect("written");
}
