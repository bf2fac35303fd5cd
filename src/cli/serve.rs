//! `kms serve`: runs the service until SIGTERM or SIGINT.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;

use super::FAULTY_CONFIGURATION;
use super::service_manager::ServiceManager;
use crate::app::App;
use crate::config::{ApprovalMode, Config, Log, LogFormat, LogLevel, Source};
use crate::telemetry::log;

/// Runs the service. Exits with 0 after an orderly shutdown, 64 for a faulty
/// configuration and 1 when it cannot start.
pub(super) fn run(config_dir: Option<PathBuf>) -> ExitCode {
    let source = Source::from_process(config_dir);
    let loaded = match Config::load(&source) {
        Ok(loaded) => loaded,
        Err(faults) => {
            // Before there is a log there is standard error; if even that is
            // gone, the exit code is left.
            let _ = writeln!(io::stderr(), "{faults}");
            return ExitCode::from(FAULTY_CONFIGURATION);
        }
    };
    let config = loaded.config;
    let _flushed_when_dropped = start_log(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(serve(&config, source)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

/// How long the service manager is told that material is being read again, at most.
const LONGEST_RELOAD: Duration = Duration::from_secs(30);

/// Only the composition root and what calls it may box any error.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn serve(config: &Config, source: Source) -> Result<(), AnyError> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut hangup = signal(SignalKind::hangup())?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = development_warning(config) {
        tracing::warn!("{warning}");
    }
    let manager = ServiceManager::of_this_process();
    let mut app = App::start_from(config, source).await?;
    let operations = app.operations_address()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        environment = %config.environment,
        api = %app.api_address()?,
        operations = operations.map(tracing::field::display),
        "listening"
    );
    let reload = app.reload_handle();
    let (serving, is_serving) = watch::channel(false);
    app.when_serving(move || {
        serving.send_replace(true);
        manager.say_ready();
    });
    let alive = manager.keep_alive();
    let stop = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: reading certificates, key sets, anchors and the token's PIN again");
                    manager.say_reloading();
                    reload.reload();
                    let (reload, mut is_serving) = (reload.clone(), is_serving.clone());
                    tokio::spawn(async move {
                        // Ready means both: it has read everything, and it answers.
                        let _ = is_serving.wait_for(|is_so| *is_so).await;
                        // What takes longer goes on, and says itself how it ended.
                        let _ = tokio::time::timeout(LONGEST_RELOAD, reload.settled()).await;
                        manager.say_ready();
                    });
                }
            }
        }
        manager.say_stopping();
    };
    app.run(stop).await;
    alive.abort();
    Ok(())
}

/// The one loud line about what is taken on faith.
fn development_warning(config: &Config) -> Option<String> {
    let faith: Vec<&str> = [
        (
            config.believes_unidentified_callers(),
            "every caller is believed to be whom it says",
        ),
        (
            config.approvals.mode == ApprovalMode::Development,
            "any approval of ten characters counts",
        ),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then_some(what))
    .collect();
    if faith.is_empty() {
        return None;
    }
    Some(format!(
        "DEVELOPMENT MODE: {}; never expose this to a network",
        faith.join(", and ")
    ))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tracing::error!(error, "cannot start");
    ExitCode::FAILURE
}

fn start_log(config: &Config) -> impl Drop {
    let Log { format, level } = config.log;
    let format = match format {
        LogFormat::Text => log::LogFormat::Text,
        LogFormat::Json => log::LogFormat::Json,
    };
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let service = log::ServiceIdentity {
        version: env!("CARGO_PKG_VERSION"),
        environment: config.environment.to_string(),
        host: host_name(),
    };
    log::start(format, level, service)
}

fn host_name() -> String {
    // Not from /proc/sys, which a hardened unit does not show.
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
