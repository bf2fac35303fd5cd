//! `hsm.*`: which HSM holds the keys, and how to reach it.
//!
//! It knows names and paths, and opens nothing.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::value::{choice, flag, path, period, secret, text, up_to, whole};
use crate::domain::secret::SecretBytes;
use crate::domain::time::Period;

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
    /// How many RSA pairs are kept ready; 0 makes each when it is asked for.
    pub rsa_stock: usize,
}

/// A PKCS#11 token.
pub struct Pkcs11 {
    /// The vendor's library.
    pub module: Option<PathBuf>,
    /// The label of the token.
    pub token_label: Option<String>,
    /// The serial number of the token, where the label alone does not tell it.
    pub token_serial: Option<String>,
    /// The user's PIN.
    pub pin: Option<SecretBytes>,
    /// How many sessions are kept open; 8 where it is not set.
    pub sessions: Option<NonZeroU16>,
    /// How long one call to the token may take.
    pub deadline: Period,
}

/// How many sessions are kept open with a token.
pub(super) const DEFAULT_SESSIONS: u16 = 8;

/// How many RSA pairs may be kept ready: about 2 KiB of memory and 60 ms of CPU each.
const LARGEST_STOCK: usize = 1024;

/// A token that can be reached: all that has to be said is said.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// The vendor's library.
    pub module: &'a Path,
    /// The label of the token.
    pub label: &'a str,
    /// The serial number of the token, where it is given.
    pub serial: Option<&'a str>,
    /// The user's PIN.
    pub pin: &'a SecretBytes,
}

impl Pkcs11 {
    /// The token, if module, label and PIN are set; its names without the blanks that
    /// tokens fill them up with.
    pub fn token(&self) -> Option<Token<'_>> {
        Some(Token {
            module: self.module.as_deref()?,
            label: self.token_label.as_deref()?.trim(),
            serial: self.token_serial.as_deref().map(str::trim),
            pin: self.pin.as_ref()?,
        })
    }

    /// How many sessions are kept open.
    pub fn sessions(&self) -> usize {
        usize::from(self.sessions.map_or(DEFAULT_SESSIONS, NonZeroU16::get))
    }
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
                rsa_stock: reader.take("hsm.software.rsa_stock", up_to(LARGEST_STOCK)),
            },
            pkcs11: Pkcs11 {
                module: reader.take_optional("hsm.pkcs11.module", path),
                token_label: reader.take_optional("hsm.pkcs11.token_label", text),
                token_serial: reader.take_optional("hsm.pkcs11.token_serial", text),
                pin: reader.take_optional("hsm.pkcs11.pin", secret),
                sessions: reader.take_optional("hsm.pkcs11.sessions", whole(1..=1024)),
                deadline: reader.take("hsm.pkcs11.deadline", period),
            },
        }
    }
}
