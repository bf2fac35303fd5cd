//! How much room the store has left on its disk, for the metrics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::config::{Config, StoreUrl};
use crate::telemetry::metrics::Metrics;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks until it is dropped. A thread of its own that nobody waits for: a disk that
/// hangs keeps whoever asks it, and a runtime would wait for its threads at the end.
pub(super) struct DiskSpaceWatch {
    _until_dropped: Sender<()>,
}

impl DiskSpaceWatch {
    /// Begins to look, at once and then every ten seconds. Where there can be no thread
    /// there are no metrics of it.
    pub(super) fn begin(config: &Config, metrics: Arc<Metrics>) -> Self {
        let (until_dropped, dropped) = mpsc::channel();
        let folder = folder_of_store(config);
        let looking = move || {
            let mut could_look = true;
            loop {
                let space = space(&folder);
                match &space {
                    Ok((free, size)) => metrics.set_disk_space(*free, *size),
                    Err(error) if could_look => tracing::warn!(
                        error = error as &dyn std::error::Error,
                        folder = %folder.display(),
                        "cannot tell how much room the store has left"
                    ),
                    Err(_) => {}
                }
                could_look = space.is_ok();
                match dropped.recv_timeout(LOOK_EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("disk-space".to_owned());
        if let Err(error) = thread.spawn(looking) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the room on the store's disk is not looked at"
            );
        }
        Self {
            _until_dropped: until_dropped,
        }
    }
}

fn folder_of_store(config: &Config) -> PathBuf {
    match &config.store.url {
        StoreUrl::Sqlite(path) => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        },
        StoreUrl::Memory | StoreUrl::Postgres(_) => config.data_dir.clone(),
    }
}

/// Free and all bytes of the file system of this folder (statvfs(3)); free are those
/// that the service may write, without what is set aside for root.
fn space(folder: &Path) -> std::io::Result<(u64, u64)> {
    let space = rustix::fs::statvfs(folder)?;
    Ok((
        space.f_bavail.saturating_mul(space.f_frsize),
        space.f_blocks.saturating_mul(space.f_frsize),
    ))
}
