//! The flags that every command of a client has, and what they come to together with
//! variables and a profile.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;

use super::data;
use crate::adapters::remote::RemoteOptions;
use crate::cli::fault::Fault;
use crate::config::{ClientIdentity, ClientSettings, ClientSource, Given};
use crate::domain::secret::SecretBytes;

/// The longest certificate, key or token that is read, in bytes.
const LONGEST_FILE: usize = 1 << 20;

/// Where the service is, who calls, and in which scope.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The service's address [default: http://127.0.0.1:8002].
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The authorities of the service's certificate, in PEM; the machine's where they
    /// are not named.
    #[arg(long, value_name = "FILE")]
    cacert: Option<String>,

    /// The client's certificate with its chain, in PEM.
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,

    /// The private key of the certificate, in PEM; in the certificate's file where it is
    /// not named.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,

    /// The file with the token of the identity service (a JWT).
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,

    /// The module to call as, where a service in development believes it.
    #[arg(long, value_name = "ID")]
    module: Option<String>,

    /// The tenant of the keys.
    #[arg(long, value_name = "TENANT_ID")]
    tenant: Option<String>,

    /// The environment of the keys: dev, staging or prod.
    #[arg(long)]
    environment: Option<String>,

    /// The plane of the keys: laptop, tenant, product or shared.
    #[arg(long)]
    plane: Option<String>,

    /// The file with a second person's approval (what kms approve printed); - is
    /// standard input.
    #[arg(long, value_name = "FILE")]
    approval_file: Option<String>,

    /// How long a service that is busy is waited for, in all [default: 10s].
    #[arg(long, value_name = "DURATION")]
    wait: Option<String>,

    /// The profile to take these from, in the file of profiles
    /// ($XDG_CONFIG_HOME/kms/profiles.toml, or KMS_CLIENT_PROFILES).
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Prints what the service answers, as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Connection {
    /// What these flags, the variables and the profile come to.
    pub(super) fn settings(&self) -> Result<ClientSettings, Fault> {
        let given = [
            ("url", &self.url),
            ("cacert", &self.cacert),
            ("cert", &self.cert),
            ("key", &self.key),
            ("token_file", &self.token_file),
            ("module", &self.module),
            ("tenant", &self.tenant),
            ("environment", &self.environment),
            ("plane", &self.plane),
            ("approval_file", &self.approval_file),
            ("wait", &self.wait),
        ];
        let flags: BTreeMap<_, _> = given
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.clone()?)))
            .collect();
        let source = ClientSource::from_process(flags, self.profile.clone());
        ClientSettings::load(&source).map_err(Fault::arguments)
    }
}

/// How to speak with the service, with what is in the files.
pub(super) fn options(settings: &ClientSettings) -> Result<RemoteOptions, Fault> {
    let read = |path: &Path| data::read_file(path, LONGEST_FILE);
    let authorities = settings.cacert.as_deref().map(read).transpose()?;
    Ok(RemoteOptions {
        identity: settings.identity.as_ref().map(identity).transpose()?,
        authorities: authorities.map(|pem| pem.expose().to_vec()),
        module: settings.module.as_ref().map(ToString::to_string),
        token: settings.token.as_ref().map(secret).transpose()?,
        deadline: None,
    })
}

fn identity(identity: &ClientIdentity) -> Result<SecretBytes, Fault> {
    let certificate = data::read_file(&identity.cert, LONGEST_FILE)?;
    let Some(key) = &identity.key else {
        return Ok(certificate);
    };
    let key = data::read_file(key, LONGEST_FILE)?;
    Ok(data::joined(&[certificate.expose(), b"\n", key.expose()]))
}

/// A secret, from wherever it is given, without white space around it.
pub(super) fn secret(given: &Given) -> Result<SecretBytes, Fault> {
    let read = match given {
        Given::StandardInput => data::read_standard_input(LONGEST_FILE)?,
        Given::File(path) => data::read_file(path, LONGEST_FILE)?,
        Given::Text(text) => SecretBytes::new(text.expose().to_vec()),
    };
    Ok(SecretBytes::new(read.expose().trim_ascii().to_vec()))
}
