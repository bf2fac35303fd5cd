//! `kms health` says in one word and one exit code how a running service is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Ended, KmsProcess};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Asks whoever listens there.
fn ask(folder: &TempDir, operations: &str, arguments: &[&str]) -> Ended {
    let mut all = vec!["health"];
    all.extend(arguments);
    let settings = [("KMS__SERVER__OPS_LISTEN", operations)];
    KmsProcess::run(folder.path(), &all, &settings)
}

fn operations(kms: &KmsProcess) -> String {
    kms.operations()
        .expect("an operations listener")
        .to_string()
}

#[tokio::test]
async fn a_fit_service_is_healthy() {
    let folder = folder();
    let kms = KmsProcess::start(folder.path(), &[]);
    kms.get_operations("/kms/v1/health").await.ok();
    for arguments in [&[][..], &["--live"]] {
        let ended = ask(&folder, &operations(&kms), arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "healthy\n"));
        assert_eq!(ended.stderr, "");
    }
    kms.stop();
}

#[tokio::test]
async fn one_whose_hsm_is_away_lives_and_is_not_fit() {
    let folder = folder();
    let settings = [
        ("KMS__HSM__BACKEND", "pkcs11"),
        ("KMS__HSM__PKCS11__TOKEN_LABEL", "away"),
        ("HSM_ENDPOINT", "/nowhere/module.so"),
        ("HSM_CREDENTIALS", "1234"),
    ];
    let kms = KmsProcess::start(folder.path(), &settings);
    assert_eq!(kms.get_operations("/kms/v1/health").await.status, 503);
    let ended = ask(&folder, &operations(&kms), &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("unhealthy\nfail hsm: "),
        "{ended:?}"
    );
    assert_eq!(ask(&folder, &operations(&kms), &["--live"]).code, Some(0));
    kms.stop();
}

#[test]
fn where_nobody_listens_there_is_no_answer() {
    let folder = folder();
    let ended = ask(&folder, "127.0.0.1:1", &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended.stderr.contains("no answer from 127.0.0.1:1"),
        "{ended:?}"
    );
    let off = ask(&folder, "", &[]);
    assert_eq!(off.code, Some(64), "{off:?}");
    assert!(off.stderr.contains("server.ops_listen"), "{off:?}");
    let faulty = ask(&folder, "nowhere", &[]);
    assert_eq!(faulty.code, Some(64), "{faulty:?}");
}

#[test]
fn who_never_finishes_an_answer_is_waited_for_three_seconds() {
    let folder = folder();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let dripping = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let _ = stream.read(&mut [0; 1_024]);
        // Until the other side has had enough.
        while stream.write_all(b"H").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let start = Instant::now();
    let ended = ask(&folder, &address, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let took = start.elapsed();
    assert!((2..15).contains(&took.as_secs()), "{took:?}");
    dripping.join().expect("no panic");
}
