//! A start on a disk that fails ends with a message that says where, and a later
//! start finds everything.

use crate::support::{Ended, FaultyDisk, KmsProcess, MixedLoad, SmallDisk, UNTHROTTLED};

/// A start that failed as it should: with exit code 1 and a message that names
/// something in this folder.
#[track_caller]
fn failed_in(folder: &std::path::Path, ended: &Ended) {
    let output = ended.output();
    assert_eq!(ended.code, Some(1), "{output}");
    let message = output
        .lines()
        .find(|line| line.contains("cannot start"))
        .unwrap_or_else(|| panic!("no message: {output}"));
    let folder = folder.to_str().expect("a path of ours");
    assert!(message.contains(folder), "{message}");
    assert!(!output.contains("panicked"), "{output}");
}

/// Starts, does a little, and is killed, so that there is a log to recover.
async fn used(folder: &std::path::Path) -> MixedLoad {
    let kms = KmsProcess::start(folder, &UNTHROTTLED);
    let load = MixedLoad::new(&kms).await;
    load.until_acknowledged(&kms, 20).await;
    kms.kill();
    load
}

async fn works_with(folder: &std::path::Path, load: Option<MixedLoad>) {
    let kms = KmsProcess::start(folder, &UNTHROTTLED);
    let load = match load {
        Some(load) => load,
        None => MixedLoad::new(&kms).await,
    };
    load.check_with(&kms).await;
    load.until_acknowledged(&kms, 4).await;
    kms.stop();
    load.check_in(folder);
}

#[tokio::test]
async fn a_read_only_data_folder_is_named_and_stays_as_it_was() {
    for is_used in [false, true] {
        let disk = SmallDisk::of_kib(16 * 1_024);
        let load = match is_used {
            true => Some(used(disk.folder()).await),
            false => None,
        };
        disk.set_read_only(true);
        failed_in(disk.folder(), &KmsProcess::run(disk.folder(), &[], &[]));
        disk.set_read_only(false);
        works_with(disk.folder(), load).await;
    }
}

#[tokio::test]
async fn a_start_without_enough_room_names_the_file_and_leaves_nothing_in_the_way() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    for is_used in [false, true] {
        let disk = SmallDisk::of_kib(16 * 1_024);
        let load = match is_used {
            true => Some(used(disk.folder()).await),
            false => None,
        };
        let mut has_failed = false;
        for free_kib in (0..200).step_by(4) {
            disk.fill_but(free_kib);
            let listen = [("KMS__SERVER__LISTEN", taken.as_str())];
            let ended = KmsProcess::run(disk.folder(), &[], &listen);
            // With enough room it gets as far as an address that somebody has.
            if !ended.output().contains("cannot listen on") {
                failed_in(disk.folder(), &ended);
                has_failed = true;
            }
            disk.empty();
        }
        assert!(has_failed, "there was always room");
        works_with(disk.folder(), load).await;
    }
}

#[tokio::test]
async fn a_start_on_a_failing_disk_names_the_file_and_a_later_one_succeeds() {
    for is_used in [false, true] {
        for fault in [
            "write EIO",
            "write tear",
            "sync EIO",
            "read EIO",
            "write EROFS",
        ] {
            let disk = FaultyDisk::new();
            let load = match is_used {
                true => Some(used(disk.folder()).await),
                false => None,
            };
            disk.fail(fault);
            let ended = KmsProcess::run(disk.folder(), &[], &disk.settings());
            failed_in(disk.folder(), &ended);
            disk.heal();
            works_with(disk.folder(), load).await;
        }
    }
}
