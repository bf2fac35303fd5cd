//! What was asked for: the arguments and the environment of a run.

use std::path::PathBuf;
use std::time::Duration;

/// The settings of a run, each with its variable.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long one line lasts, without its warming up (`KMS_BENCH_SECONDS`).
    pub(crate) line: Duration,
    /// Only the lines whose name has this in it (`KMS_BENCH_ONLY`).
    pub(crate) only: Option<String>,
    /// Where tables and pictures go (`KMS_BENCH_OUT`); `None` where a part of the
    /// lines would overwrite all of them.
    pub(crate) out: Option<PathBuf>,
    /// How long a soak lasts, in minutes (`KMS_BENCH_MINUTES`).
    pub(crate) minutes: f64,
    /// How many keys the store grows to (`KMS_BENCH_KEYS`); everything else grows
    /// with them.
    pub(crate) keys: usize,
}

impl Settings {
    /// Reads them.
    pub(crate) fn read() -> Self {
        let only = text("KMS_BENCH_ONLY").filter(|only| !only.is_empty());
        let out = match (text("KMS_BENCH_OUT"), &only) {
            (Some(folder), _) => Some(PathBuf::from(folder)),
            (None, Some(_)) => None,
            (None, None) => {
                Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/performance"))
            }
        };
        Self {
            line: Duration::from_secs_f64(number("KMS_BENCH_SECONDS", 3.0)),
            only,
            out,
            minutes: number("KMS_BENCH_MINUTES", 30.0),
            keys: number("KMS_BENCH_KEYS", 100_000.0) as usize,
        }
    }

    /// Whether a line of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(&only.to_lowercase()))
    }
}

fn number(name: &str, default: f64) -> f64 {
    match text(name).filter(|text| !text.is_empty()) {
        None => default,
        Some(text) => match text.parse() {
            Ok(number) if number > 0.0 => number,
            _ => panic!("{name} is {text}, and a positive number is expected"),
        },
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark is no part of the service and has no configuration"
)]
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
