//! Keeping renewable material fresh: reads it again when its files change, when
//! it asks, when its time has come, and on SIGHUP.
//!
//! Each piece has a task of its own, so that an address that hangs keeps no
//! certificate from being renewed. Files are looked at rather than watched by the
//! kernel: Kubernetes swaps a link several folders up, which a watch of the file
//! itself does not see.

mod handle;

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::handle::ReloadHandle;

use crate::ports::material::Material;
use crate::service::KmsService;
use crate::telemetry::metrics::Metrics;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How soon an address that failed is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Files as they were before they were read for the first time: what changes while
/// the service starts is noticed like every other change.
pub(super) struct FirstLook(BTreeMap<PathBuf, Look>);

impl FirstLook {
    /// Looks at these files and folders.
    pub(super) fn at(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(
            paths
                .into_iter()
                .map(|path| {
                    let look = look_now(std::slice::from_ref(&path));
                    (path, look)
                })
                .collect(),
        )
    }

    /// What was seen of these of them.
    fn of(&self, paths: &[PathBuf]) -> Look {
        let seen = paths.iter().filter_map(|path| self.0.get(path));
        Look(seen.flat_map(|look| look.0.iter().cloned()).collect())
    }
}

/// What the tasks share.
pub(super) struct Keeper {
    pub(super) service: Arc<KmsService>,
    pub(super) metrics: Arc<Metrics>,
    /// From before anybody could ask: a SIGHUP can come before the tasks are there.
    pub(super) asked: watch::Receiver<u64>,
    pub(super) first_look: FirstLook,
    /// Where it is said that a reading is done.
    pub(super) handle: ReloadHandle,
}

impl Keeper {
    /// Starts the task that keeps one piece of material fresh until `stop`.
    pub(super) fn keep(
        &self,
        material: Arc<dyn Material>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (service, metrics) = (Arc::clone(&self.service), Arc::clone(&self.metrics));
        metrics.expect_reloads(material.name());
        let (asked, answering) = (self.asked.clone(), self.handle.answering());
        let first_look = self.first_look.of(&material.files());
        tokio::spawn(async move {
            let keeping = keep_fresh(
                material,
                first_look,
                asked,
                &answering,
                &metrics,
                || async {
                    service.probe_health().await;
                },
            );
            tokio::select! {
                () = keeping => {}
                () = stop => {}
            }
        })
    }
}

/// Never returns. Calls `afterwards` after every attempt, whatever came of it.
async fn keep_fresh<F: Future<Output = ()>>(
    material: Arc<dyn Material>,
    first_look: Look,
    mut asked: watch::Receiver<u64>,
    answering: &watch::Sender<u64>,
    metrics: &Metrics,
    afterwards: impl Fn() -> F,
) {
    let mut in_force = first_look;
    let mut last_look = in_force.clone();
    let mut due = due(material.as_ref(), false);
    loop {
        let reason = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {
                let now = look(material.files()).await;
                // Only once it has stood still for one look: a certificate and
                // its key are two files, and neither is written in an instant.
                let is_settled = now == last_look;
                last_look = now;
                if !is_settled || last_look == in_force {
                    continue;
                }
                "its files changed"
            }
            Ok(()) = asked.changed() => "asked by SIGHUP",
            () = material.wanted() => "something is missing in it",
            () = reached(due) => "its time has come",
        };
        // Whatever the reason was, it is an answer to whoever asked before.
        let answers = *asked.borrow_and_update();
        let before = look(material.files()).await;
        let outcome = material.reload().await;
        // As it was before reading: what changes meanwhile is read again.
        in_force = before;
        due = self::due(material.as_ref(), outcome.is_err());
        metrics.count_reload(material.name(), outcome.is_ok());
        match outcome {
            Ok(()) => tracing::info!(material = material.name(), reason, "reloaded"),
            Err(fault) => tracing::error!(
                material = material.name(),
                reason,
                error = &fault as &dyn std::error::Error,
                "not reloaded; what was in force stays in force"
            ),
        }
        afterwards().await;
        answering.send_replace(answers);
    }
}

/// When the next regular reading is due, if there is one.
fn due(material: &dyn Material, has_failed: bool) -> Option<Instant> {
    let period = material.refresh_every()?;
    Some(Instant::now() + if has_failed { RETRY_AFTER } else { period })
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What can be seen of files without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look(Vec<(PathBuf, Option<Seen>)>);

/// One file behind all links.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Seen {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

async fn look(paths: Vec<PathBuf>) -> Look {
    // A file system can be far away, and slow.
    tokio::task::spawn_blocking(move || look_now(&paths))
        .await
        .unwrap_or(Look(Vec::new()))
}

fn look_now(paths: &[PathBuf]) -> Look {
    let mut seen = Vec::new();
    for path in paths {
        seen.push((path.clone(), std::fs::metadata(path).ok().map(Seen::from)));
        let mut inside = entries(path).unwrap_or_default();
        inside.sort();
        seen.extend(inside.into_iter().map(|entry| {
            let metadata = std::fs::metadata(&entry).ok();
            (entry, metadata.map(Seen::from))
        }));
    }
    Look(seen)
}

/// What is in a folder; nothing for a file.
fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::domain::time::Timestamp;
    use crate::ports::material::{MaterialFault, Standing};

    /// Material that counts how often it is read, and can be made to fail.
    struct Counted {
        files: Vec<PathBuf>,
        refresh_every: Option<Duration>,
        reads: AtomicUsize,
        fails: Mutex<bool>,
        missed: Notify,
    }

    impl Counted {
        fn new(files: Vec<PathBuf>) -> Self {
            Self {
                files,
                refresh_every: None,
                reads: AtomicUsize::new(0),
                fails: Mutex::new(false),
                missed: Notify::new(),
            }
        }
    }

    #[async_trait]
    impl Material for Counted {
        fn name(&self) -> &'static str {
            "counted"
        }

        fn files(&self) -> Vec<PathBuf> {
            self.files.clone()
        }

        fn refresh_every(&self) -> Option<Duration> {
            self.refresh_every
        }

        async fn wanted(&self) {
            self.missed.notified().await;
        }

        async fn reload(&self) -> Result<(), MaterialFault> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            if *self.fails.lock().unwrap() {
                return Err(MaterialFault::new("made to fail"));
            }
            Ok(())
        }

        fn standing(&self, _: Timestamp) -> Standing {
            Standing::Good(String::new())
        }
    }

    /// Runs the loop for so much paused time, and answers how often it read.
    async fn reads_within(
        material: &Arc<Counted>,
        handle: &ReloadHandle,
        time: Duration,
        meanwhile: impl FnOnce(),
    ) -> usize {
        let metrics = Metrics::new("test").expect("names are unique");
        let before = material.reads.load(Ordering::SeqCst);
        let answering = handle.answering();
        let keeping = keep_fresh(
            Arc::clone(material) as Arc<dyn Material>,
            FirstLook::at(material.files()).of(&material.files()),
            handle.listen(),
            &answering,
            &metrics,
            || async {},
        );
        tokio::select! {
            () = keeping => {}
            () = async {
                // After the first look, which is what is in force.
                tokio::time::sleep(LOOK_EVERY / 2).await;
                meanwhile();
                tokio::time::sleep(time).await;
            } => {}
        }
        material.reads.load(Ordering::SeqCst) - before
    }

    const A_WHILE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "one").expect("written");
        let material = Arc::new(Counted::new(vec![file.clone()]));
        let handle = ReloadHandle::new();
        let reads = reads_within(&material, &handle, A_WHILE, || {
            std::fs::write(&file, "other").expect("written");
        });
        assert_eq!(reads.await, 1);
    }

    #[test]
    fn a_swapped_link_and_a_new_file_in_a_folder_are_changes() {
        // As Kubernetes does it: file -> ..data/file, ..data -> a dated folder.
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for (name, content) in [("..1", "one"), ("..2", "two")] {
            std::fs::create_dir(root.join(name)).expect("made");
            std::fs::write(root.join(name).join("file"), content).expect("written");
        }
        let link = |target: &str, name: &str| {
            let _ = std::fs::remove_file(root.join("..new"));
            std::os::unix::fs::symlink(target, root.join("..new")).expect("linked");
            std::fs::rename(root.join("..new"), root.join(name)).expect("renamed");
        };
        link("..1", "..data");
        link("..data/file", "file");
        let by_file = look_now(&[root.join("file")]);
        let by_folder = look_now(&[root.to_owned()]);
        link("..2", "..data");
        assert_ne!(look_now(&[root.join("file")]), by_file);
        assert_ne!(look_now(&[root.to_owned()]), by_folder);

        let before = look_now(&[root.to_owned()]);
        assert_eq!(look_now(&[root.to_owned()]), before);
        std::fs::write(root.join("another"), "x").expect("written");
        assert_ne!(look_now(&[root.to_owned()]), before);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_without_a_reason() {
        let material = Arc::new(Counted::new(Vec::new()));
        let handle = ReloadHandle::new();
        let reads = reads_within(&material, &handle, A_WHILE, || {}).await;
        assert_eq!(reads, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_and_something_missing_are_reasons() {
        let material = Arc::new(Counted::new(Vec::new()));
        let handle = ReloadHandle::new();
        assert_eq!(
            reads_within(&material, &handle, A_WHILE, || handle.reload()).await,
            1
        );
        assert_eq!(
            reads_within(&material, &handle, A_WHILE, || material.missed.notify_one()).await,
            1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_is_settled_once_it_was_read_or_refused() {
        let material = Arc::new(Counted::new(Vec::new()));
        *material.fails.lock().unwrap() = true;
        let handle = ReloadHandle::new();
        // Nobody reads anything.
        handle.reload();
        handle.settled().await;
        let asking = handle.clone();
        let settled = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&settled);
        let reads = Arc::clone(&material);
        reads_within(&material, &handle, A_WHILE, move || {
            asking.reload();
            asking.reload();
            tokio::spawn(async move {
                asking.settled().await;
                *noted.lock().unwrap() = Some(reads.reads.load(Ordering::SeqCst));
            });
        })
        .await;
        assert_eq!(*settled.lock().unwrap(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_read_in_its_time_and_sooner_after_a_failure() {
        let mut material = Counted::new(Vec::new());
        material.refresh_every = Some(Duration::from_secs(300));
        let material = Arc::new(material);
        let handle = ReloadHandle::new();
        let an_hour = Duration::from_secs(3_600);
        let reads = reads_within(&material, &handle, an_hour, || {}).await;
        assert!((11..=12).contains(&reads), "{reads}");
        *material.fails.lock().unwrap() = true;
        let reads = reads_within(&material, &handle, an_hour, || {}).await;
        assert!(reads > 300, "{reads}");
    }
}
