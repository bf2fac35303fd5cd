//! The HSM behind a PKCS#11 module: SoftHSM, through the forwarding module. One
//! token serves every test of this process, as one module serves a process.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kms::adapters::clock::SystemClock;
use kms::adapters::hsm::pkcs11::{Pkcs11Hsm, Pkcs11Settings, TokenName};
use kms::domain::secret::SecretBytes;
use kms::ports::hsm::HsmBackend as _;

use crate::support::token::{LABEL, PIN, TokenFolder};

/// The token of this process. Its folder stays for as long as the process.
pub(crate) static TOKEN: LazyLock<(TokenFolder, std::path::PathBuf)> = LazyLock::new(|| {
    let folder = TokenFolder::new();
    let module = folder.forwarding_module(true);
    (folder, module)
});

/// A backend with sessions of its own.
pub(crate) struct TokenBackend {
    pub(crate) hsm: Pkcs11Hsm,
}

impl TokenBackend {
    pub(crate) async fn new() -> Self {
        let settings = Pkcs11Settings {
            module: TOKEN.1.clone(),
            token: TokenName {
                label: LABEL.to_owned(),
                serial: None,
            },
            pin: Arc::new(SecretBytes::from(PIN.to_owned())),
            sessions: 4,
            deadline: Duration::from_secs(20),
        };
        let hsm = Pkcs11Hsm::new(settings, Arc::new(SystemClock));
        hsm.self_test().await.expect("the token is there");
        Self { hsm }
    }
}
