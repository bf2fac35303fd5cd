//! `hsm.*`: which HSM holds the keys, and how to reach it.
//!
//! It knows names and paths, and opens nothing.

use std::num::NonZeroU16;
use std::path::PathBuf;

use super::reader::Reader;
use super::value::{choice, flag, path, secret, text, whole};
use crate::domain::secret::SecretBytes;

/// The HSM in use, and the settings of each kind.
pub struct Hsm {
    /// Which one is used.
    pub backend: HsmKind,
    /// Whether production may do without a hardware HSM.
    pub allow_software_in_production: bool,
    /// The settings of the software HSM.
    pub software: SoftwareHsm,
    /// The settings of a PKCS#11 token.
    pub pkcs11: Pkcs11,
}

/// A kind of HSM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HsmKind {
    /// In this process, secrets sealed at rest.
    Software,
    /// A token behind a PKCS#11 library.
    Pkcs11,
}

/// The software HSM.
pub struct SoftwareHsm {
    /// The key-encryption key: 32 bytes, raw or in base64. `None` is `kek` in
    /// the data folder, made on the first start.
    pub kek_file: Option<PathBuf>,
}

/// A PKCS#11 token.
pub struct Pkcs11 {
    /// The vendor's library.
    pub module: Option<PathBuf>,
    /// The label of the token.
    pub token_label: Option<String>,
    /// The user's PIN.
    pub pin: Option<SecretBytes>,
    /// How many sessions are kept open.
    pub sessions: Option<NonZeroU16>,
}

impl Hsm {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let backends = choice(&[
            ("software", HsmKind::Software),
            ("mock", HsmKind::Software),
            ("pkcs11", HsmKind::Pkcs11),
        ]);
        Self {
            backend: reader.take("hsm.backend", backends),
            allow_software_in_production: reader.take("hsm.allow_software_in_production", flag),
            software: SoftwareHsm {
                kek_file: reader.take_optional("hsm.software.kek_file", path),
            },
            pkcs11: Pkcs11 {
                module: reader.take_optional("hsm.pkcs11.module", path),
                token_label: reader.take_optional("hsm.pkcs11.token_label", text),
                pin: reader.take_optional("hsm.pkcs11.pin", secret),
                sessions: reader.take_optional("hsm.pkcs11.sessions", whole(1..=1024)),
            },
        }
    }
}
