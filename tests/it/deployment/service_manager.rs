//! What systemd is told over its socket, and when.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{DEADLINE, KmsProcess, eventually};

/// The end of the socket that systemd has.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _folder: TempDir,
}

impl Manager {
    fn listening() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set");
        Self {
            socket,
            address: path.to_str().expect("UTF-8").to_owned(),
            _folder: folder,
        }
    }

    fn settings(&self) -> [(&str, &str); 2] {
        [
            ("NOTIFY_SOCKET", &self.address),
            ("WATCHDOG_USEC", "600000"),
        ]
    }

    /// The next thing that was said, if anything was within a moment.
    fn heard(&self) -> Option<String> {
        let mut buffer = [0; 512];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) => {
                assert!(matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut
                ));
                None
            }
        }
    }

    /// Waits for this line; what was said before, but for the signs of life.
    fn wait_for(&self, wanted: &str) -> Vec<String> {
        let start = Instant::now();
        let mut said = Vec::new();
        loop {
            assert!(start.elapsed() < DEADLINE, "{wanted}, but {said:?}");
            match self.heard() {
                Some(message) if message.lines().any(|line| line == wanted) => return said,
                Some(message) if message.trim() != "WATCHDOG=1" => said.push(message),
                _ => {}
            }
        }
    }
}

/// How many signs of life came within this time.
fn signs_of_life(manager: &Manager, time: Duration) -> usize {
    let start = Instant::now();
    let mut signs = 0;
    while start.elapsed() < time {
        signs += usize::from(
            manager
                .heard()
                .is_some_and(|said| said.trim() == "WATCHDOG=1"),
        );
    }
    signs
}

async fn reloads(kms: &KmsProcess, outcome: &str) -> u64 {
    let series =
        format!("kms_material_reloads_total{{material=\"trust_anchors\",outcome=\"{outcome}\"}} ");
    let metrics = kms.get_operations("/kms/v1/metrics").await.text;
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.expect("a series").parse().expect("a number")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn it_says_that_it_is_ready_once_it_answers_and_that_it_stops_while_it_drains() {
    let (folder, manager) = (folder(), Manager::listening());
    let mut kms = KmsProcess::begin(folder.path(), &manager.settings());
    assert_eq!(manager.wait_for("READY=1"), Vec::<String>::new());
    kms.note_addresses();
    kms.get_operations("/kms/v1/health").await.ok();
    kms.get("/kms/v1/config").await.ok();

    kms.signal("TERM");
    assert_eq!(manager.wait_for("STOPPING=1"), Vec::<String>::new());
    let (status, output) = kms.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[tokio::test]
async fn it_is_ready_without_what_it_stands_on_and_says_so_in_its_health() {
    let (folder, manager) = (folder(), Manager::listening());
    let mut settings = manager.settings().to_vec();
    settings.extend([
        ("KMS__HSM__BACKEND", "pkcs11"),
        ("KMS__HSM__PKCS11__TOKEN_LABEL", "away"),
        ("HSM_ENDPOINT", "/nowhere/module.so"),
        ("HSM_CREDENTIALS", "1234"),
    ]);
    let mut kms = KmsProcess::begin(folder.path(), &settings);
    manager.wait_for("READY=1");
    kms.note_addresses();
    assert_eq!(kms.get_operations("/kms/v1/health").await.status, 503);
    kms.stop();
}

#[tokio::test]
async fn a_reload_is_over_when_everything_was_read() {
    let (folder, manager) = (folder(), Manager::listening());
    let kms = KmsProcess::start(folder.path(), &manager.settings());
    manager.wait_for("READY=1");
    for times in 1..=3 {
        kms.signal("HUP");
        let said = manager.wait_for("RELOADING=1");
        assert_eq!(said, Vec::<String>::new());
        manager.wait_for("READY=1");
        assert_eq!(reloads(&kms, "taken").await, times);
    }
    kms.stop();
}

#[tokio::test]
async fn a_reload_says_when_it_began() {
    let (folder, manager) = (folder(), Manager::listening());
    let kms = KmsProcess::start(folder.path(), &manager.settings());
    manager.wait_for("READY=1");
    kms.signal("HUP");
    let began = eventually("a reload", || async {
        manager.heard().filter(|said| said.contains("RELOADING=1"))
    })
    .await;
    let time = began
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let time: u64 = time.expect("a time").parse().expect("a number");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = u64::try_from(now.tv_sec).expect("positive") * 1_000_000;
    assert!(now.abs_diff(time) < 60_000_000, "{time} {now}");
    kms.stop();
}

#[test]
fn signs_of_life_come_in_time_and_end_with_the_process() {
    let (folder, manager) = (folder(), Manager::listening());
    let kms = KmsProcess::start(folder.path(), &manager.settings());
    manager.wait_for("READY=1");
    // One every 0.2 s, where one every 0.6 s is asked for.
    let signs = signs_of_life(&manager, Duration::from_secs(3));
    assert!((6..=17).contains(&signs), "{signs}");
    // A process that stands still gives none, which is when systemd ends it.
    kms.signal("STOP");
    signs_of_life(&manager, Duration::from_millis(300));
    assert_eq!(signs_of_life(&manager, Duration::from_secs(1)), 0);
    kms.signal("CONT");
    assert!(signs_of_life(&manager, Duration::from_secs(1)) > 0);
    kms.stop();
}

#[test]
fn a_start_that_fails_never_was_ready() {
    let (folder, manager) = (folder(), Manager::listening());
    let key = folder.path().join("ledger.key");
    std::fs::write(&key, b"short").expect("written");
    let ended = KmsProcess::run(folder.path(), &["serve"], &manager.settings());
    assert_eq!(ended.code, Some(1), "{}", ended.output());
    while let Some(said) = manager.heard() {
        assert_eq!(said.trim(), "WATCHDOG=1");
    }
}

#[test]
fn a_socket_that_is_gone_holds_nothing_up() {
    let folder = folder();
    let gone = [
        ("NOTIFY_SOCKET", "/nowhere/notify"),
        ("WATCHDOG_USEC", "1000"),
    ];
    KmsProcess::start(Path::new(folder.path()), &gone).stop();
}
