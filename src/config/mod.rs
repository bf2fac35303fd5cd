//! The configuration: read once at the start, every setting a value of its type,
//! and every fault reported in one message.
//!
//! It knows names, layers and rules of settings. It knows nothing of what is
//! built from them, and nobody after it reads a file of settings or a variable.

mod approvals;
mod auth;
mod client;
mod effective;
mod environment;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hsm;
mod keys;
mod limits;
mod log;
mod not_yet;
mod reader;
mod rules;
mod secret;
mod server;
mod source;
mod store;
#[cfg(test)]
mod testing;
mod tls;
mod value;
mod warnings;

use std::path::PathBuf;

pub use approvals::{ApprovalMode, Approvals};
pub use auth::{Auth, KeySetLocation};
pub use client::{ClientFaults, ClientIdentity, ClientSettings, ClientSource, Given};
pub use effective::Effective;
pub use environment::{EnvironmentName, InvalidEnvironmentName};
pub use fault::ConfigFaults;
pub use hsm::{Hsm, HsmKind, Pkcs11, SoftwareHsm};
pub use keys::Keys;
pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use server::{CorsOrigins, LARGEST_BODY, Server};
pub use source::Source;
pub use store::{Store, StoreUrl};
pub use tls::Tls;

use fault::Fault;
use reader::Reader;

/// Every setting, checked.
pub struct Config {
    /// The environment the service runs in.
    pub environment: EnvironmentName,
    /// Where the embedded store, the key-encryption key and the ledger's key live.
    pub data_dir: PathBuf,
    /// The listeners.
    pub server: Server,
    /// The API listener's TLS.
    pub tls: Tls,
    /// Bearer tokens.
    pub auth: Auth,
    /// Dual authorization.
    pub approvals: Approvals,
    /// The HSM.
    pub hsm: Hsm,
    /// The store of metadata.
    pub store: Store,
    /// What holds for keys.
    pub keys: Keys,
    /// What a caller may ask for.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    warnings: Vec<String>,
}

/// A configuration, and how it came about.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The same for people: what is in effect, and where each value comes from.
    pub effective: Effective,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// Later layers win: the built-in defaults, the folder's `default.toml`, its
    /// `<environment>.toml`, the variables under the Python service's names, and
    /// the variables `KMS__SECTION__FIELD`. A list replaces the one below it.
    ///
    /// # Errors
    ///
    /// Every fault at once: values that don't parse, settings that don't exist,
    /// what production refuses, and what this version doesn't do. Where a file
    /// can't be read, the rules across settings wait until it can: what they
    /// would miss may be in that file.
    pub fn load(source: &Source) -> Result<Loaded, ConfigFaults> {
        let (loaded, faults) = resolve(source);
        if faults.is_empty() {
            Ok(loaded)
        } else {
            Err(ConfigFaults::new(faults))
        }
    }

    /// What is allowed and may still not be meant, one line each, for the log of
    /// the start.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The file of the software HSM's key-encryption key: the one that is set, or
    /// `kek` in the data folder.
    pub fn kek_file(&self) -> PathBuf {
        let file = self.hsm.software.kek_file.clone();
        file.unwrap_or_else(|| self.data_dir.join("kek"))
    }

    /// Whether callers without a certificate are believed to be whom they say: on
    /// a developer's own machine over plain HTTP, and nowhere else.
    pub fn believes_unidentified_callers(&self) -> bool {
        self.environment.is_development() && self.tls.certificate.is_none()
    }

    fn read(environment: EnvironmentName, reader: &mut Reader) -> Self {
        let data_dir = reader.take("data_dir", value::path);
        Self {
            environment,
            server: Server::read(reader),
            tls: Tls::read(reader),
            auth: Auth::read(reader),
            approvals: Approvals::read(reader),
            hsm: Hsm::read(reader),
            store: Store::read(reader, &data_dir),
            keys: Keys::read(reader),
            limits: Limits::read(reader),
            log: Log::read(reader),
            data_dir,
            warnings: Vec::new(),
        }
    }
}

/// The configuration with defaults in the place of what is at fault, and the faults.
fn resolve(source: &Source) -> (Loaded, Vec<Fault>) {
    let mut faults = Vec::new();
    let named = source.environment_name(&mut faults);
    let is_named = named.is_some();
    let environment = named.unwrap_or_else(EnvironmentName::development);
    let layers = source.layers(&environment, &mut faults);
    let is_complete = layers.complete && is_named;

    let mut reader = Reader::new(layers);
    let mut config = Config::read(environment, &mut reader);
    let (effective, found) = reader.finish();
    let effective =
        effective.of_environment(config.environment.as_str(), source.environment_origin());
    faults.extend(found);

    if is_complete {
        let mut broken = rules::check(&config);
        broken.extend(not_yet::check(&config));
        // A setting that is itself at fault stands at its default here, which
        // says nothing about what was meant.
        broken.retain(|rule| !faults.iter().any(|fault| fault.setting() == rule.setting()));
        faults.extend(
            broken
                .into_iter()
                .map(|fault| match effective.origin(fault.setting()) {
                    Some(origin) => fault.from(origin),
                    None => fault,
                }),
        );
    }
    config.warnings = warnings::check(&config, &effective);
    (Loaded { config, effective }, faults)
}

#[cfg(test)]
mod tests;
