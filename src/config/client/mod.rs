//! How the commands that work with a running service find it, and as whom they call:
//! from flags, variables `KMS_CLIENT_…` and a profile, in this order.
//!
//! It shares nothing with the service's own settings: neither reads the other's.

mod layers;
mod profiles;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use layers::ClientSource;

use self::layers::{Field, Layers};
use super::auth::goes_in_the_clear;
use super::fault::Fault;
use crate::domain::ids::ModuleId;
use crate::domain::scope::Scope;
use crate::domain::secret::SecretBytes;
use crate::domain::time::Period;

/// Where a service listens that nobody configured.
const DEFAULT_URL: &str = "http://127.0.0.1:8002";

/// How long a busy service is waited for where nobody says so.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// How to reach a service, and as whom.
pub struct ClientSettings {
    /// Its address.
    pub url: String,
    /// The authorities of its certificate, in PEM; the machine's where there are none.
    pub cacert: Option<PathBuf>,
    /// The client's certificate.
    pub identity: Option<ClientIdentity>,
    /// The token of the identity service.
    pub token: Option<Given>,
    /// Who calls, where a service in development believes it.
    pub module: Option<ModuleId>,
    /// Where the keys are.
    pub scope: Scope,
    /// A second person's word.
    pub approval: Option<Given>,
    /// How long a service that asks for patience is waited for, in all.
    pub wait: Duration,
}

/// A client's certificate with its chain, and its private key, in PEM.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate.
    pub cert: PathBuf,
    /// The key; in the certificate's file where it is not named.
    pub key: Option<PathBuf>,
}

/// A secret, or the file that it is in. Never a flag, which a list of processes shows.
pub enum Given {
    /// Standard input (`-`).
    StandardInput,
    /// A file.
    File(PathBuf),
    /// The secret itself, from a variable.
    Text(SecretBytes),
}

impl ClientSettings {
    /// Reads and checks them.
    ///
    /// # Errors
    /// Every fault at once, each with the flag, the variable or the profile it is in,
    /// and never with the value.
    pub fn load(source: &ClientSource) -> Result<Self, ClientFaults> {
        let mut faults = Vec::new();
        let layers = source.layers(&mut faults);
        let read = Self::read(&layers, &mut faults);
        match read {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(ClientFaults(faults)),
        }
    }

    fn read(layers: &Layers, faults: &mut Vec<Fault>) -> Option<Self> {
        let url = layers.text(Field::Url);
        let url = url.map_or_else(|| DEFAULT_URL.to_owned(), |value| value.text.to_owned());
        let identity = identity(layers, faults);
        let token = layers.secret(Field::TokenFile, faults);
        let approval = layers.secret(Field::ApprovalFile, faults);
        let module = layers.optional::<ModuleId>(Field::Module, faults);
        if let (Some(_), Some(value)) = (&identity, layers.text(Field::Module)) {
            let what =
                "a client certificate says who calls, so the module cannot be given beside it";
            faults.push(Fault::new(Field::Module.name(), what).from(value.origin.clone()));
        }
        if token.is_some() && goes_in_the_clear(&url) {
            let what = "a token goes over https, or to this machine: on the way over http it could \
                        be read and used";
            faults.push(Fault::new(Field::Url.name(), what));
        }
        if matches!(token, Some(Given::StandardInput)) {
            let what = "expected a file: standard input can be the approval, and no token";
            faults.push(Fault::new(Field::TokenFile.name(), what));
        }
        let wait = layers.optional::<Period>(Field::Wait, faults);
        let tenant_id = layers.required(Field::Tenant, faults);
        let environment = layers.required(Field::Environment, faults);
        let plane = layers.required(Field::Plane, faults);
        Some(Self {
            url,
            cacert: layers.path(Field::Cacert),
            identity,
            token,
            module,
            scope: Scope {
                tenant_id: tenant_id?,
                environment: environment?,
                plane: plane?,
            },
            approval,
            wait: wait.map_or(DEFAULT_WAIT, Period::as_duration),
        })
    }
}

/// Certificate and key belong together, so both come from where the certificate is
/// named.
fn identity(layers: &Layers, faults: &mut Vec<Fault>) -> Option<ClientIdentity> {
    // Also where the empty text unsets it.
    let named_in = layers.named_in(Field::Cert);
    if let Some(key) = layers.text(Field::Key)
        && named_in.is_none_or(|layer| key.layer < layer)
    {
        let what = "names the key of a certificate that is not named beside it: give cert too";
        faults.push(Fault::new(Field::Key.name(), what).from(key.origin.clone()));
    }
    Some(ClientIdentity {
        cert: layers.path(Field::Cert)?,
        key: layers.path_in(named_in?, Field::Key),
    })
}

/// Everything that is wrong with a client's settings.
#[derive(Debug)]
pub struct ClientFaults(Vec<Fault>);

impl fmt::Display for ClientFaults {
    /// One line a fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            let before = if number == 0 { "" } else { "\n  " };
            write!(f, "{before}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ClientFaults {}
