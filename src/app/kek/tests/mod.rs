//! The key-encryption keys over a store in memory: what a start makes of whatever
//! lies there, and how a change of the key comes to its end.

mod changing;
mod starting;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::at_start::{KeksAtStart, keks_at_start};
use super::keeper::{KekKeeper, KekKeeperPorts, Stage};
use super::{KEK_PIN, KekFiles, NEXT_KEK_PIN, count_by_kek};
use crate::adapters::data_plane::memory::MemoryDataPlane;
use crate::adapters::hsm::software::kek::KeyEncryptionKey;
use crate::adapters::hsm::software::seal::{SecretBinding, seal};
use crate::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use crate::adapters::ledger::LedgerSigner;
use crate::adapters::secret_file::LaidOutBy;
use crate::app::StartError;
use crate::domain::key::tests::active_key;
use crate::domain::key::{KeyHandle, StoredKey};
use crate::domain::secret::SecretBytes;
use crate::ports::data_plane::{Change, DataPlane, Transaction};
use crate::ports::material::{Material, Standing};
use crate::ports::upkeep_store::{KeyIntent, UpkeepStore as _};
use crate::telemetry::metrics::Metrics;

/// How long a request may take here.
const LONGEST_REQUEST: Duration = Duration::from_secs(35);

/// A data folder and a store.
struct Scene {
    folder: tempfile::TempDir,
    files: KekFiles,
    store: Arc<MemoryDataPlane>,
}

impl Scene {
    /// Files by their endings, each with the key of a letter, and the store's two pins.
    async fn new(files: &[(&str, char)], pins: [char; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (ending, letter) in files {
            lay(&folder.path().join(format!("kek{ending}")), *letter);
        }
        let signer = LedgerSigner::from_seed(&[7; 32]).expect("32 bytes");
        let store = Arc::new(MemoryDataPlane::with_ledger(Arc::new(signer)));
        for (name, letter) in [KEK_PIN, NEXT_KEK_PIN].into_iter().zip(pins) {
            let id = id(letter);
            store.pin(name, id.as_bytes()).await.expect("memory");
        }
        Self {
            files: KekFiles::at(folder.path().join("kek"), LaidOutBy::Service),
            folder,
            store,
        }
    }

    /// Stores a key whose secret is sealed under the key of this letter.
    async fn insert(&self, letter: char) -> StoredKey {
        let record = active_key();
        let secret = SecretBytes::new(vec![42; 32]);
        let handle = seal(&kek(letter), &SecretBinding::of(&record), &secret).expect("seals");
        self.insert_with(handle, record).await
    }

    async fn insert_with(
        &self,
        handle: KeyHandle,
        record: crate::domain::key::KeyRecord,
    ) -> StoredKey {
        let key = StoredKey {
            record,
            handle: Some(handle),
        };
        if key.record.backend.keeps_keys() {
            let intent = KeyIntent {
                key_id: key.record.key_id,
                backend: key.record.backend,
                begun_at: key.record.created_at,
            };
            self.store.begin_key(intent).await.expect("memory");
        }
        let inserting = Transaction {
            changes: vec![Change::InsertKey(key.clone())],
            ..Transaction::default()
        };
        self.store.commit(inserting).await.expect("no conflict");
        key
    }

    async fn start(&self) -> Result<KeksAtStart, StartError> {
        keks_at_start(&self.files, &*self.store).await
    }

    /// A keeper as the service starts one, what asks it, and the HSM.
    async fn keeper(&self) -> (KekKeeper, Arc<dyn Material>, Arc<SoftwareHsm>) {
        let keks = self.start().await.unwrap_or_else(|fault| panic!("{fault}"));
        let hsm = SoftwareHsm::with_ring(keks.ring, SoftwareHsmSettings::default());
        let hsm = Arc::new(hsm);
        let ports = KekKeeperPorts {
            hsm: Arc::clone(&hsm),
            data_plane: Arc::clone(&self.store) as _,
            metrics: Arc::new(Metrics::new("test").expect("names are unique")),
            files: self.files.clone(),
            longest_request: LONGEST_REQUEST,
        };
        let (keeper, material) = KekKeeper::start(ports, keks.ids).await;
        (keeper, material, hsm)
    }

    /// The letter of the key in a file.
    fn file(&self, ending: &str) -> Option<char> {
        let path = self.folder.path().join(format!("kek{ending}"));
        fs::read(path).ok().map(|content| char::from(content[0]))
    }

    /// How many secrets are sealed under the key of each letter.
    async fn sealed(&self) -> BTreeMap<char, u64> {
        let counts = count_by_kek(&*self.store).await.expect("memory");
        let letter = |id: Option<String>| {
            ('A'..='Z')
                .find(|letter| id.as_deref() == Some(&self::id(*letter)))
                .unwrap_or('?')
        };
        let counts = counts.into_iter();
        counts.map(|(id, number)| (letter(id), number)).collect()
    }

    async fn pins(&self) -> [String; 2] {
        let mut pins = [String::new(), String::new()];
        for (name, pin) in [KEK_PIN, NEXT_KEK_PIN].into_iter().zip(&mut pins) {
            let value = self.store.pin(name, b"none").await.expect("memory");
            *pin = String::from_utf8(value).expect("text");
        }
        pins
    }
}

fn kek(letter: char) -> KeyEncryptionKey {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kek");
    lay(&path, letter);
    KeyEncryptionKey::load(&path, LaidOutBy::Service)
        .expect("loads")
        .expect("is there")
}

fn id(letter: char) -> String {
    kek(letter).id()
}

fn lay(path: &Path, letter: char) {
    fs::write(path, [letter as u8; 32]).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

fn standing(material: &Arc<dyn Material>) -> Standing {
    material.standing("2026-03-01T12:00:00Z".parse().expect("valid"))
}

/// Lets the keeper work until this comes true.
async fn keep_until(keeper: KekKeeper, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = keeper.keep() => unreachable!("it never ends"),
        waited = tokio::time::timeout(Duration::from_secs(200), waiting) => {
            waited.expect("it did not come true");
        }
    }
}

fn is_resealing(keeper: &KekKeeper) -> bool {
    matches!(keeper.stage, Stage::Resealing { .. })
}
