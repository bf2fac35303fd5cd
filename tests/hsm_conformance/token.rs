//! The HSM behind a PKCS#11 module: SoftHSM, through the forwarding module. One
//! token serves every test of this process, as one module serves a process.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{
    Attribute, AttributeType, KeyType as TokenKeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use kms::adapters::backlog::Backlog;
use kms::adapters::clock::SystemClock;
use kms::adapters::hsm::pkcs11::{Pkcs11Hsm, Pkcs11Settings, TokenName};
use kms::domain::algorithm::KeyType;
use kms::domain::ids::KeyId;
use kms::domain::scope::Scope;
use kms::domain::secret::SecretBytes;
use kms::ports::hsm::HsmBackend as _;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::harness::scope;
use crate::support::token::{LABEL, PIN, TokenFolder};

/// The token of this process. Its folder stays for as long as the process.
pub(crate) static TOKEN: LazyLock<(TokenFolder, PathBuf)> = LazyLock::new(|| {
    let folder = TokenFolder::new();
    let module = folder.forwarding_module(true);
    (folder, module)
});

/// SoftHSM has it that nobody looks for objects while somebody makes some. Backends
/// take turns among themselves; a test that goes to the token past them is alone.
static TURNS: RwLock<()> = RwLock::const_new(());

/// A backend with sessions of its own.
pub(crate) struct TokenBackend {
    pub(crate) hsm: Pkcs11Hsm,
    _beside_others: RwLockReadGuard<'static, ()>,
}

/// The same, and a way to the token past it.
pub(crate) struct OpenToken {
    pub(crate) hsm: Arc<Pkcs11Hsm>,
    pub(crate) serial: String,
    session: Session,
    _alone: RwLockWriteGuard<'static, ()>,
}

async fn backend(sessions: usize, backlog: Backlog) -> Pkcs11Hsm {
    let settings = Pkcs11Settings {
        module: TOKEN.1.clone(),
        token: TokenName {
            label: LABEL.to_owned(),
            serial: None,
        },
        pin: Arc::new(SecretBytes::from(PIN.to_owned())),
        sessions,
        deadline: Duration::from_secs(20),
        backlog,
    };
    let hsm = Pkcs11Hsm::new(settings, Arc::new(SystemClock));
    hsm.self_test().await.expect("the token is there");
    hsm
}

impl TokenBackend {
    pub(crate) async fn new() -> Self {
        Self {
            _beside_others: TURNS.read().await,
            hsm: backend(4, Backlog::default()).await,
        }
    }
}

impl OpenToken {
    pub(crate) async fn new() -> Self {
        let alone = TURNS.write().await;
        let hsm = Arc::new(backend(8, Backlog::default()).await);
        let pkcs11 = Pkcs11::new(&TOKEN.1).expect("the module loads");
        match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => panic!("{error}"),
        }
        let slots = pkcs11.get_slots_with_initialized_token();
        let [slot] = slots.expect("slots")[..] else {
            panic!("there is one token");
        };
        let info = pkcs11.get_token_info(slot).expect("a token");
        let session = pkcs11.open_rw_session(slot).expect("a session");
        match session.login(UserType::User, Some(&AuthPin::new(PIN.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => panic!("{error}"),
        }
        Self {
            hsm,
            serial: info.serial_number().trim().to_owned(),
            session,
            _alone: alone,
        }
    }

    /// Another backend, which has found nothing yet.
    pub(crate) async fn another_backend(&self) -> Pkcs11Hsm {
        backend(1, Backlog::default()).await
    }

    /// Another backend, with one session, that says here what waits for it.
    pub(crate) async fn backend_with(&self, backlog: &Backlog) -> Pkcs11Hsm {
        backend(1, backlog.clone()).await
    }

    /// Whether the token leaves an attribute as it is.
    pub(crate) fn refuses_to_set(&self, object: ObjectHandle, attribute: &Attribute) -> bool {
        let template = std::slice::from_ref(attribute);
        self.session.update_attributes(object, template).is_err()
    }

    /// Every object of a key.
    pub(crate) fn objects(&self, key_id: KeyId) -> Vec<ObjectHandle> {
        let template = [Attribute::Id(key_id.as_bytes().to_vec())];
        self.session.find_objects(&template).expect("looks")
    }

    /// Destroys every object of a key.
    pub(crate) fn destroy(&self, key_id: KeyId) {
        for object in self.objects(key_id) {
            self.session.destroy_object(object).expect("destroyed");
        }
    }

    /// Attributes of an object, as far as the token shows them.
    pub(crate) fn told(&self, object: ObjectHandle, kinds: &[AttributeType]) -> Vec<Attribute> {
        self.session.get_attributes(object, kinds).expect("told")
    }

    /// Renames every object of a key.
    pub(crate) fn relabel(&self, key_id: KeyId, label: &str) {
        for object in self.objects(key_id) {
            let label = [Attribute::Label(label.as_bytes().to_vec())];
            let renamed = self.session.update_attributes(object, &label);
            renamed.expect("renamed");
        }
    }

    /// Puts a key of this type that nobody knows under this id, as the backend names
    /// its own.
    pub(crate) fn make(&self, key_type: KeyType, key_id: KeyId) {
        let (mechanism, mut public) = match key_type {
            KeyType::Aes256 => return self.import_aes(key_id, &random_key()),
            KeyType::Rsa2048 => (
                Mechanism::RsaPkcsKeyPairGen,
                vec![
                    Attribute::ModulusBits(2048.into()),
                    Attribute::PublicExponent(vec![1, 0, 1]),
                ],
            ),
            KeyType::Ed25519 => (
                Mechanism::EccEdwardsKeyPairGen,
                vec![Attribute::EcParams(vec![6, 3, 0x2b, 0x65, 0x70])],
            ),
        };
        public.extend(named(key_id, &scope()));
        let mut private = vec![Attribute::Sign(true), Attribute::Private(true)];
        private.extend(named(key_id, &scope()));
        let made = self
            .session
            .generate_key_pair(&mechanism, &public, &private);
        made.expect("made");
    }

    /// Puts this AES key under this id, as the backend names its own.
    pub(crate) fn import_aes(&self, key_id: KeyId, value: &[u8; 32]) {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(TokenKeyType::AES),
            Attribute::Value(value.to_vec()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        template.extend(named(key_id, &scope()));
        self.session.create_object(&template).expect("imported");
    }
}

fn random_key() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

fn named(key_id: KeyId, scope: &Scope) -> [Attribute; 3] {
    let label = format!(
        "kms {}/{}/{}",
        scope.tenant_id, scope.environment, scope.plane
    );
    [
        Attribute::Token(true),
        Attribute::Id(key_id.as_bytes().to_vec()),
        Attribute::Label(label.into_bytes()),
    ]
}
