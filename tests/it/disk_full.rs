//! A disk that is really full: nothing is lost, and room is all that it takes.

use crate::support::{KmsProcess, MixedLoad, SmallDisk, UNTHROTTLED};

#[tokio::test]
async fn a_full_disk_makes_the_service_unready_until_there_is_room_and_loses_nothing() {
    let disk = SmallDisk::of_kib(16 * 1_024);
    let kms = KmsProcess::start(disk.folder(), &UNTHROTTLED);
    let load = MixedLoad::new(&kms).await;
    load.until_readiness_is(&kms, 200).await;
    load.until_acknowledged(&kms, 20).await;
    disk.fill_but(0);
    let unready = load.until_readiness_is(&kms, 503).await;
    assert_eq!(unready.body["status"], "unhealthy");
    kms.get_operations("/health").await.ok();
    kms.get_scoped("/kms/v1/keys").await.ok();
    for what in ["sign", "verify", "encrypt", "generate"] {
        assert!(load.refused(what) > 0, "{what}");
    }
    for what in ["list", "receipt"] {
        assert_eq!(load.refused(what), 0, "{what}");
    }
    disk.empty();
    load.until_readiness_is(&kms, 200).await;
    load.until_acknowledged(&kms, 20).await;
    load.check_with(&kms).await;

    // Again, and this time it ends with the process.
    disk.fill_but(0);
    let before = load.refused("sign");
    load.until(&kms, "a refusal", || async {
        load.refused("sign") > before
    })
    .await;
    kms.kill();
    disk.empty();
    let kms = KmsProcess::start(disk.folder(), &UNTHROTTLED);
    load.check_with(&kms).await;
    load.until_acknowledged(&kms, 20).await;
    kms.stop();
    load.check_in(disk.folder());
}
