//! A change of the key while the service runs.

use std::sync::Arc;
use std::time::Duration;

use super::{LONGEST_REQUEST, Scene, id, is_resealing, keep_until, kek, lay, standing};
use crate::adapters::hsm::software::SoftwareHsm;
use crate::adapters::hsm::software::seal::{SecretBinding, seal};
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyRef;
use crate::domain::key::tests::active_key;
use crate::domain::key::{HsmBackendName, KeyHandle, StoredKey};
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::lifecycle_permit::{Consent, permit_generation};
use crate::domain::secret::SecretBytes;
use crate::ports::data_plane::DataPlane as _;
use crate::ports::hsm::HsmBackend as _;
use crate::ports::material::{Material, Standing};

/// Whether the HSM still opens what the store had before.
async fn opens(hsm: &SoftwareHsm, key: &StoredKey) -> bool {
    let handle = key.handle.clone().expect("a handle");
    let asked = vec![(SecretBinding::of(&key.record), handle)];
    hsm.reseal(asked).await.expect("it runs")[0].is_ok()
}

async fn reload(material: &Arc<dyn Material>) -> Result<(), String> {
    material.reload().await.map_err(|fault| fault.what)
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_laid_down_takes_over_and_the_old_one_opens_until_no_request_needs_it() {
    let scene = Scene::new(&[("", 'A')], ['A', 'A']).await;
    let mut keys = Vec::new();
    for _ in 0..250 {
        keys.push(scene.insert('A').await);
    }
    let (keeper, material, hsm) = scene.keeper().await;
    let good = Standing::Good(format!("secrets are sealed under {}", id('A')));
    assert_eq!(standing(&material), good);
    lay(&scene.files.next(), 'B');
    let finished = async {
        assert_eq!(reload(&material).await, Ok(()));
        assert_eq!(hsm.sealing_id(), id('B'));
        let Standing::NeedsCare(words) = standing(&material) else {
            panic!("a change is under way");
        };
        assert!(words.contains(&id('B')), "{words}");
        while scene.file("") != Some('B') {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(scene.sealed().await, [('B', 250)].into());
        assert_eq!(scene.pins().await, [id('B'), id('B')]);
        assert_eq!((scene.file(".next"), scene.file(".old")), (None, Some('A')));
        let good = Standing::Good(format!("secrets are sealed under {}", id('B')));
        assert_eq!(standing(&material), good);
        // A request that has read the old secret is still at work.
        tokio::time::sleep(LONGEST_REQUEST - Duration::from_secs(1)).await;
        assert!(opens(&hsm, &keys[0]).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!opens(&hsm, &keys[0]).await, "the old key is forgotten");
        let name = KeyRef::Id(keys[0].record.key_id);
        let now = scene.store.find_key(&keys[0].record.scope, &name);
        let now = now.await.expect("memory").expect("found");
        assert!(opens(&hsm, &now).await);
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        () = finished => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_before_and_is_stored_late_is_not_lost() {
    let scene = Scene::new(&[("", 'A')], ['A', 'A']).await;
    scene.insert('A').await;
    let (keeper, material, hsm) = scene.keeper().await;
    let record = active_key();
    let usage = KeyUsageSet::of([KeyUsage::Sign]).expect("not empty");
    let permit = permit_generation(
        &record.scope,
        KeyType::Ed25519,
        usage,
        &Consent::NotRequired,
    );
    let permit = permit.unwrap_or_else(|fault| panic!("{fault}"));
    let made = hsm.generate(&permit, record.key_id).await.expect("made");
    lay(&scene.files.next(), 'B');
    let stored_late = async {
        assert_eq!(reload(&material).await, Ok(()));
        // All that is stored is sealed anew by then, and it does not end.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.sealed().await, [('B', 1)].into());
        assert_eq!(scene.pins().await, [id('A'), id('B')]);
        scene.insert_with(made.handle.clone(), record).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.pins().await, [id('A'), id('B')]);
        drop(made);
        while scene.pins().await != [id('B'), id('B')] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(scene.sealed().await, [('B', 2)].into());
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        () = stored_late => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_does_not_open_keeps_the_old_key_and_is_said() {
    let scene = Scene::new(&[("", 'A'), (".next", 'B')], ['A', 'A']).await;
    scene.insert('A').await;
    let broken = seal(
        &kek('A'),
        &SecretBinding::of(&active_key()),
        &SecretBytes::new(vec![1; 32]),
    );
    let record = active_key();
    let broken = scene.insert_with(broken.expect("seals"), record).await;
    let (keeper, material, _) = scene.keeper().await;
    let ended = async {
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(scene.sealed().await, [('A', 1), ('B', 1)].into());
        assert_eq!(scene.pins().await, [id('A'), id('B')]);
        assert_eq!(scene.file(""), Some('A'));
        let Standing::NeedsCare(words) = standing(&material) else {
            panic!("somebody has to look after it");
        };
        assert!(words.contains("1 to go"), "{words}");
        assert!(words.contains("1 do not open"), "{words}");
        // Once the key is revoked nothing is in the way.
        let revoked = broken.record.revoked(
            crate::domain::key::RevocationReason::Retired,
            "2026-03-01T12:00:00Z".parse().expect("valid"),
            None,
        );
        let revocation = crate::ports::data_plane::Transaction {
            changes: vec![crate::ports::data_plane::Change::UpdateKey(
                revoked.expect("active"),
            )],
            ..Default::default()
        };
        scene.store.commit(revocation).await.expect("no conflict");
        while scene.file("") != Some('B') {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        () = ended => {}
    }
}

#[tokio::test(start_paused = true)]
async fn handles_of_other_backends_are_left_alone() {
    let scene = Scene::new(&[("", 'A'), (".next", 'B')], ['A', 'A']).await;
    let mut record = active_key();
    record.backend = HsmBackendName::Pkcs11;
    let handle = KeyHandle::from_bytes(vec![9; 16]);
    let key = scene.insert_with(handle, record).await;
    scene.insert('A').await;
    let (keeper, _, _) = scene.keeper().await;
    keep_until(keeper, async || scene.file("") == Some('B')).await;
    let name = KeyRef::Id(key.record.key_id);
    let found = scene.store.find_key(&key.record.scope, &name).await;
    assert_eq!(found.expect("memory").as_deref(), Some(&key));
}

#[tokio::test(start_paused = true)]
async fn a_next_key_that_is_no_next_key_is_refused_in_words() {
    // The same as in force.
    let scene = Scene::new(&[("", 'A'), (".next", 'A')], ['A', 'A']).await;
    scene.insert('A').await;
    let (keeper, material, _) = scene.keeper().await;
    assert!(!is_resealing(&keeper));
    let words = format!("{:?}", standing(&material));
    assert!(words.contains("in force already: take it away"), "{words}");

    // Another one than that under way.
    let scene = Scene::new(&[("", 'A'), (".next", 'B')], ['A', 'A']).await;
    for _ in 0..300 {
        scene.insert('A').await;
    }
    let (keeper, material, hsm) = scene.keeper().await;
    assert!(is_resealing(&keeper));
    lay(&scene.files.next(), 'C');
    let refused = async {
        let refused = reload(&material).await.expect_err("it is refused");
        assert!(refused.contains("another key-encryption key"), "{refused}");
        assert_eq!(hsm.sealing_id(), id('B'));
        lay(&scene.files.next(), 'B');
        assert_eq!(reload(&material).await, Ok(()));
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        () = refused => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_while_the_last_one_retires_waits_for_its_turn() {
    let scene = Scene::new(&[("", 'A'), (".next", 'B')], ['A', 'A']).await;
    let key = scene.insert('A').await;
    let (keeper, material, hsm) = scene.keeper().await;
    let both = async {
        while scene.file("") != Some('B') {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lay(&scene.files.next(), 'C');
        assert_eq!(reload(&material).await, Ok(()));
        assert_eq!(hsm.sealing_id(), id('B'));
        assert!(opens(&hsm, &key).await);
        while scene.file("") != Some('C') {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(scene.sealed().await, [('C', 1)].into());
        assert_eq!(scene.file(".old"), Some('A'));
        assert_eq!(scene.file(".old.1"), Some('B'));
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        () = both => {}
    }
}
