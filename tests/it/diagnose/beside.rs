//! Beside a service that cannot be seen, and one that starts meanwhile.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Findings, diagnose, pairs, ports};
use crate::support::{Ended, KmsProcess};

/// Diagnoses in a namespace of processes of its own, as in another container.
fn diagnose_elsewhere(folder: &Path, settings: &[(&str, &str)]) -> Findings {
    let ended = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .args([env!("CARGO_BIN_EXE_kms"), "diagnose", "--json"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("KMS__DATA_DIR", folder)
        .env("KMS__SERVER__LISTEN", "127.0.0.1:0")
        .env("KMS__SERVER__OPS_LISTEN", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .current_dir(folder)
        .output()
        .expect("unshare runs");
    Findings::of(Ended {
        code: ended.status.code(),
        stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
        stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
    })
}

/// Lets the service write for as long as this takes.
async fn under_load(
    kms: &KmsProcess,
    look: impl FnOnce() -> Findings + Send + 'static,
) -> Findings {
    let looking = tokio::task::spawn_blocking(look);
    while !looking.is_finished() {
        kms.generate_id("AES-256").await;
    }
    looking.await.expect("it looked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_written_where_it_cannot_be_seen_is_not_called_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    for round in 0..12 {
        let path = folder.path().to_owned();
        let with_ports = round % 2 == 0;
        let ports = ports(&kms);
        let found = under_load(&kms, move || match with_ports {
            true => diagnose_elsewhere(&path, &pairs(&ports)),
            false => diagnose_elsewhere(&path, &[]),
        })
        .await;
        found.well();
        found.says("ok", "service", "in another container");
        found.says("ok", "ledger", "the newest of which verify");
        if with_ports {
            found.says("ok", "server.listen", "the service answers on");
            found.says("ok", "server.ops_listen", "the service answers on");
        }
    }
    kms.stop();
    let found = diagnose_elsewhere(folder.path(), &[]);
    found.well();
    found.says("ok", "service", "does not run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_meanwhile_is_no_fault_and_makes_no_clock_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", listener.local_addr().expect("an address"));
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [api, operations] = free.map(|free| free.local_addr().expect("an address").to_string());
    let ports = [
        ("KMS__SERVER__LISTEN", api),
        ("KMS__SERVER__OPS_LISTEN", operations),
    ];
    // A first life, so that there is a log to be judged.
    let kms = KmsProcess::start(folder.path(), &pairs(&ports));
    kms.generate_id("AES-256").await;
    kms.kill();
    // Each of the two is waited for for five seconds.
    let mut settings = ports.to_vec();
    settings.extend([
        ("KMS__AUTH__JWKS", silent.clone()),
        ("KMS__APPROVALS__MODE", "signed".to_owned()),
        ("KMS__APPROVALS__JWKS", silent),
    ]);
    let path = folder.path().to_owned();
    let looking = tokio::task::spawn_blocking(move || diagnose(&path, &pairs(&settings)));
    // Once it waits: it has asked who serves.
    let accepted = tokio::task::spawn_blocking(move || {
        let connection = listener.accept().expect("a connection");
        (listener, connection)
    });
    let _silent = accepted.await.expect("it asks");
    let kms = KmsProcess::start(folder.path(), &pairs(&ports));
    while !looking.is_finished() {
        kms.generate_id("AES-256").await;
        // Within a caller's share of requests.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = looking.await.expect("it looked");
    let fails = found.of_verdict("fail");
    let of: Vec<&str> = fails.iter().map(|(check, _, _)| *check).collect();
    assert_eq!(of, ["jwks", "approvers_jwks"], "{fails:#?}");
    found.says("note", "service", "since this look began");
    found.says("ok", "clock", "the newest receipt is of");
    found.says("ok", "server.listen", "the service answers on");
}
