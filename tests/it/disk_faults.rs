//! No fault of the disk, whenever it comes, loses what was acknowledged, and none
//! needs anybody: the service says that it is away, and recovers by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Answer, FaultyDisk, KmsProcess, LATEST, MixedLoad, UNKNOWN, UNTHROTTLED, base64, in_scope,
};

/// How the checks of a health report went that did not pass.
fn failing(health: &Answer) -> Vec<&str> {
    let checks = health.body["checks"].as_array().expect("a list of checks");
    checks
        .iter()
        .filter(|check| check["status"] == "fail")
        .map(|check| check["name"].as_str().expect("a name"))
        .collect()
}

/// Starts a service, lets the disk fail in the middle of its work, and looks at
/// it before, meanwhile and after.
async fn live_through(fault: &str, meanwhile: impl AsyncFnOnce(&KmsProcess, &MixedLoad)) {
    let disk = FaultyDisk::new();
    let kms = KmsProcess::start(disk.folder(), &disk.settings());
    let load = MixedLoad::new(&kms).await;
    load.until_readiness_is(&kms, 200).await;
    load.until_acknowledged(&kms, 20).await;
    for what in EVERYTHING {
        assert_eq!(load.refused(what), 0, "{what} before the fault");
    }
    // While requests are under way.
    tokio::join!(load.wave(&kms), load.wave(&kms), async { disk.fail(fault) });
    meanwhile(&kms, &load).await;
    // Once more, and back again.
    tokio::join!(load.wave(&kms), load.wave(&kms), async { disk.heal() });
    load.until_readiness_is(&kms, 200).await;
    load.until_acknowledged(&kms, 20).await;
    load.check_with(&kms).await;
    let log = kms.stop();
    assert!(!log.contains("panic"), "{}", without_requests(&log));
    load.check_in(disk.folder());

    let kms = KmsProcess::start(disk.folder(), &UNTHROTTLED);
    load.check_with(&kms).await;
    load.until_acknowledged(&kms, 4).await;
    let log = kms.stop();
    assert!(!log.contains("cut off"), "{}", without_requests(&log));
    load.check_in(disk.folder());
}

const EVERYTHING: [&str; 6] = ["sign", "verify", "encrypt", "generate", "list", "receipt"];
const WRITES: [&str; 4] = ["sign", "verify", "encrypt", "generate"];

/// Nothing is acknowledged any more, the service says that its store is away, and
/// what only reads goes on.
async fn nothing_can_be_written(kms: &KmsProcess, load: &MixedLoad) {
    load.wave(kms).await;
    let acknowledged = load.acknowledged();
    let unready = load.until_readiness_is(kms, 503).await;
    assert_eq!(unready.body["status"], "unhealthy");
    assert_eq!(failing(&unready), ["store"]);
    kms.get_operations("/health").await.ok();
    kms.get("/health").await.ok();
    load.wave(kms).await;
    assert_eq!(load.acknowledged(), acknowledged);
    for what in EVERYTHING {
        let is_written = WRITES.contains(&what);
        assert_eq!(load.refused(what) > 0, is_written, "{what}");
    }
}

async fn nothing_can_be_read(kms: &KmsProcess, load: &MixedLoad) {
    let unready = load.until_readiness_is(kms, 503).await;
    let failing = failing(&unready);
    assert!(failing.contains(&"ledger"), "{failing:?}");
    kms.get_operations("/health").await.ok();
    for what in ["list", "receipt"] {
        assert!(load.refused(what) > 0, "{what}");
    }
}

/// Each fault in a thread of its own, which bears its name: mostly they wait.
fn each(faults: &[&'static str], live: impl AsyncFn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        let running = faults.iter().map(|fault| {
            let thread = std::thread::Builder::new().name((*fault).to_owned());
            let run = || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(live(fault));
            };
            thread.spawn_scoped(scope, run).expect("a thread")
        });
        for thread in running.collect::<Vec<_>>() {
            thread
                .join()
                .expect("the fault's thread says what went wrong");
        }
    });
}

#[test]
fn a_disk_that_fails_loses_nothing() {
    let writes = [
        "write ENOSPC",
        "write EIO",
        "write EROFS",
        "write tear",
        "sync EIO",
    ];
    let faults: Vec<_> = writes.into_iter().chain(["read EIO"]).collect();
    each(&faults, async |fault| match fault {
        "read EIO" => live_through(fault, nothing_can_be_read).await,
        _ => live_through(fault, nothing_can_be_written).await,
    });
}

#[test]
fn a_disk_that_hangs_loses_nothing_and_keeps_nobody_waiting() {
    let faults = ["write hang", "sync hang", "read hang", "all hang"];
    each(&faults, async |fault| match fault {
        "read hang" => live_through(fault, nothing_can_be_read).await,
        "all hang" => live_through(fault, nothing_answers).await,
        _ => {
            let meanwhile = async |kms: &KmsProcess, load: &MixedLoad| {
                nothing_can_be_written(kms, load).await;
                assert!(load.slowest() > Duration::from_secs(4), "nothing hung");
            };
            live_through(fault, meanwhile).await;
        }
    });
}

/// Looking for a key and keeping the receipt of the failure are waited for one
/// after the other; nothing takes longer than that.
async fn nothing_answers(kms: &KmsProcess, load: &MixedLoad) {
    let sign = in_scope(json!({ "key_id": UNKNOWN, "data": base64("data") }));
    let started = Instant::now();
    let (unknown, ()) = tokio::join!(kms.post("/kms/v1/sign", &sign), load.wave(kms));
    let took = started.elapsed();
    unknown.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert!(took < 2 * LATEST, "{took:?}");
    assert!(took > Duration::from_secs(4), "nothing hung: {took:?}");
    let unready = load.until_readiness_is(kms, 503).await;
    assert!(failing(&unready).contains(&"store"));
    kms.get("/health").await.ok();
    for what in WRITES {
        assert!(load.refused(what) > 0, "{what}");
    }
}

#[tokio::test]
async fn a_disk_that_writes_in_small_parts_is_slow_and_no_more() {
    live_through("write short", async |kms, load| {
        load.until_acknowledged(kms, 40).await;
        for what in EVERYTHING {
            assert_eq!(load.refused(what), 0, "{what}");
        }
        kms.get_operations("/kms/v1/health").await.ok();
    })
    .await;
}

#[test]
fn a_process_that_is_killed_on_a_failing_disk_has_lost_nothing() {
    each(
        &["write tear", "write EIO", "sync EIO", "sync hang"],
        async |fault| {
            let disk = FaultyDisk::new();
            let kms = KmsProcess::start(disk.folder(), &disk.settings());
            let load = MixedLoad::new(&kms).await;
            load.until_acknowledged(&kms, 20).await;
            tokio::join!(load.wave(&kms), load.wave(&kms), async { disk.fail(fault) });
            kms.kill();

            disk.heal();
            let kms = KmsProcess::start(disk.folder(), &UNTHROTTLED);
            load.check_with(&kms).await;
            load.until_acknowledged(&kms, 20).await;
            let log = kms.stop();
            // A commit that failed while it became durable may be left over too, and
            // one that was killed then may have been whole.
            if fault == "write tear" {
                let torn = "the store's log ends in a write that was cut off";
                assert!(log.contains(torn), "{}", without_requests(&log));
            }
            load.check_in(disk.folder());
        },
    );
}

/// A fault comes after any number of answers of a wave and goes after any number,
/// over and over, through commits, checkpoints and new beginnings of the log; and
/// in the end the process is killed.
#[tokio::test]
async fn faults_that_come_and_go_at_any_moment_lose_nothing() {
    const FAULTS: [&str; 6] = [
        "sync EIO",
        "write ENOSPC",
        "write tear",
        "read EIO",
        "write short",
        "write EIO",
    ];
    let disk = FaultyDisk::new();
    let mut kms = KmsProcess::start(disk.folder(), &disk.settings());
    let load = MixedLoad::new(&kms).await;
    for (round, last) in FAULTS.into_iter().take(3).enumerate() {
        for (turn, fault) in FAULTS.into_iter().cycle().take(36).enumerate() {
            let come = load.after_answers(turn % 13);
            tokio::join!(load.wave(&kms), load.wave(&kms), async {
                come.await;
                disk.fail(fault);
            });
            let go = load.after_answers((turn + round) * 5 % 13);
            tokio::join!(load.wave(&kms), load.wave(&kms), async {
                go.await;
                disk.heal();
            });
            load.wave(&kms).await;
        }
        disk.fail(last);
        load.wave(&kms).await;
        kms.kill();
        disk.heal();
        kms = KmsProcess::start(disk.folder(), &disk.settings());
        load.check_with(&kms).await;
    }
    for what in WRITES {
        assert!(load.refused(what) > 20, "{what}");
    }
    assert!(load.acknowledged() > 500);
    kms.stop();
    load.check_in(disk.folder());
}

/// A log without the lines of requests.
fn without_requests(log: &str) -> String {
    let lines = log.lines().filter(|line| !line.contains("request."));
    lines.collect::<Vec<_>>().join("\n")
}
