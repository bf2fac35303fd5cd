//! `kms dev-pki`: everything that production mode wants to be laid out, for trying
//! it at home.
//!
//! The authority's key lies beside what it signed, which no real one may. It knows
//! files and their forms, and nothing of what the service makes of them.

mod guide;

use std::ffi::OsStr;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::adapters::clock::SystemClock;
use crate::domain::ids::{ModuleId, TenantId};
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock as _;

/// The trust domain of every name it gives.
const TRUST_DOMAIN: &str = "dev.zeroui.local";

/// The platform's tenant, and its module for trust anchors.
const PLATFORM: (&str, &str) = ("GLOBAL", "M32");

/// Those who approve.
const APPROVERS: [&str; 2] = ["alice", "bob"];

/// Certificates begin a little before they are made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// What to make.
#[derive(Args)]
pub(super) struct DevPki {
    /// The folder to make it in; nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The tenant of the clients.
    #[arg(long, default_value = "acme")]
    tenant: TenantId,
    /// Their environment: dev, staging or prod.
    #[arg(long, default_value = "prod")]
    environment: Environment,
    /// Their plane: laptop, tenant, product or shared.
    #[arg(long, default_value = "tenant")]
    plane: Plane,
    /// The modules that get a certificate each.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "M21,M22,M23,M27,M29,M32,M34,M35"
    )]
    modules: Vec<ModuleId>,
    /// How long everything is valid, in days.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,
    /// The server's host name, beside 127.0.0.1 and ::1.
    #[arg(long, default_value = "localhost")]
    server_name: String,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(
        "{folder} has {} already, and nothing is overwritten; name another folder, or remove \
         them", files.join(", ")
    )]
    InTheWay { folder: String, files: Vec<String> },
    #[error("{path} cannot be written: {source}")]
    Unwritable { path: String, source: io::Error },
    #[error("{0} is not a host name")]
    HostName(String),
    #[error("the certificates cannot be made: {0}")]
    Certificates(#[from] rcgen::Error),
}

/// Makes everything and says what to do with it. Exits with 1 where it cannot.
pub(super) fn run(wanted: &DevPki) -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    // Relative paths in kms.env would depend on where the service is started.
    let folder = std::path::absolute(&wanted.out).unwrap_or_else(|_| wanted.out.clone());
    let made = make(wanted, &folder, SystemClock.now()).and_then(|files| lay_out(&folder, &files));
    let said = match &made {
        Ok(()) => guide::print(wanted, &folder, &mut stdout),
        Err(fault) => writeln!(stderr, "{fault}"),
    };
    if made.is_ok() && said.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A file to be written.
struct NewFile {
    name: String,
    content: Zeroizing<Vec<u8>>,
    mode: u32,
}

impl NewFile {
    fn public(name: impl Into<String>, content: String) -> Self {
        Self {
            name: name.into(),
            content: Zeroizing::new(content.into_bytes()),
            mode: 0o644,
        }
    }

    fn secret(name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            content: Zeroizing::new(content.into()),
            mode: 0o600,
        }
    }
}

fn make(wanted: &DevPki, folder: &Path, now: Timestamp) -> Result<Vec<NewFile>, Fault> {
    let validity = Validity::of(now, wanted.days);
    let (ca_params, ca_key) = (authority(&validity), KeyPair::generate()?);
    let ca_certificate = ca_params.self_signed(&ca_key)?;
    let mut files = vec![
        NewFile::public("ca.pem", ca_certificate.pem()),
        NewFile::secret("ca.key", ca_key.serialize_pem()),
    ];
    let ca = Issuer::new(ca_params, ca_key);
    files.push(NewFile::public("ca.crl", revocation_list(&ca, &validity)?));

    let mut issue = |name: &str, params: &CertificateParams| -> Result<(), Fault> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        files.push(NewFile::public(format!("{name}.pem"), certificate.pem()));
        files.push(NewFile::secret(format!("{name}.key"), key.serialize_pem()));
        Ok(())
    };
    issue("server", &server(wanted, &validity)?)?;
    for module in &wanted.modules {
        let params = client(wanted, wanted.tenant.as_str(), module.as_str(), &validity)?;
        issue(&format!("client-{}", module.as_str()), &params)?;
    }
    let (tenant, module) = PLATFORM;
    let params = client(wanted, tenant, module, &validity)?;
    issue(&format!("client-{tenant}-{module}"), &params)?;

    let mut approvers = Vec::new();
    for name in APPROVERS {
        let key = SigningKey::generate()?;
        approvers.push(key.public_jwk(Some(name)));
        files.push(NewFile::secret(format!("approver-{name}.pem"), key.pem()?));
    }
    files.push(NewFile::public("approvers.jwks", key_set(&approvers)));
    let m21 = SigningKey::generate()?;
    files.push(NewFile::public(
        "m21.jwks",
        key_set(&[m21.public_jwk(None)]),
    ));
    files.push(NewFile::secret("m21.pem", m21.pem()?));
    files.push(NewFile::secret("kek", random_bytes()?));
    files.push(NewFile::public("kms.env", environment_file(folder)));
    Ok(files)
}

/// From when until when.
struct Validity {
    not_before: i64,
    now: i64,
    not_after: i64,
}

impl Validity {
    fn of(now: Timestamp, days: u32) -> Self {
        let now = now.microseconds() / 1_000_000;
        Self {
            not_before: now - BACKDATED.as_secs().cast_signed(),
            now,
            not_after: now + i64::from(days) * 86_400,
        }
    }

    fn params(&self, common_name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(1970, 1, 1) + seconds(self.not_before);
        params.not_after = date_time_ymd(1970, 1, 1) + seconds(self.not_after);
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// Seconds since 1970, as what rcgen's type of time can be moved by.
fn seconds(since_1970: i64) -> Duration {
    Duration::from_secs(u64::try_from(since_1970).unwrap_or(0))
}

fn authority(validity: &Validity) -> CertificateParams {
    // Two of them on one machine are told apart by their names.
    let mut params = validity.params(&format!("kms dev-pki CA {}", validity.now));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, purpose: ExtendedKeyUsagePurpose, validity: &Validity) -> CertificateParams {
    let mut params = validity.params(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params
}

fn server(wanted: &DevPki, validity: &Validity) -> Result<CertificateParams, Fault> {
    let name = &wanted.server_name;
    let host = name.as_str().try_into();
    let host = host.map_err(|_| Fault::HostName(name.clone()))?;
    let mut params = leaf(name, ExtendedKeyUsagePurpose::ServerAuth, validity);
    params.subject_alt_names = vec![
        SanType::DnsName(host),
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
    ];
    Ok(params)
}

fn client(
    wanted: &DevPki,
    tenant: &str,
    module: &str,
    validity: &Validity,
) -> Result<CertificateParams, Fault> {
    let (environment, plane) = (wanted.environment.as_str(), wanted.plane.as_str());
    let uri = format!(
        "spiffe://{TRUST_DOMAIN}/tenant/{tenant}/env/{environment}/plane/{plane}/module/{module}"
    );
    let name = format!("{module} of {tenant}");
    let mut params = leaf(&name, ExtendedKeyUsagePurpose::ClientAuth, validity);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    Ok(params)
}

fn revocation_list(ca: &Issuer<'_, KeyPair>, validity: &Validity) -> Result<String, Fault> {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(1970, 1, 1) + seconds(validity.not_before),
        next_update: date_time_ymd(1970, 1, 1) + seconds(validity.not_after),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(ca)?.pem()?)
}

/// A key that signs tokens.
struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    fn generate() -> Result<Self, Fault> {
        let key = Ed25519KeyPair::generate().map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(Self(key))
    }

    /// PKCS#8 of version 1 (RFC 5958 §2), without the public key in it: openssl 3.0
    /// does not read a later one.
    fn pem(&self) -> Result<String, Fault> {
        let der = self.0.to_pkcs8v1();
        let der = der.map_err(|_| rcgen::Error::RingUnspecified)?;
        let text = Zeroizing::new(STANDARD.encode(der));
        // One line of base64: these 48 bytes are never more.
        Ok(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            *text
        ))
    }

    /// The public half as an entry of a key set (RFC 8037 §2), named by its
    /// thumbprint (RFC 7638 §3).
    fn public_jwk(&self, owner: Option<&str>) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        let kid = thumbprint(&x);
        let mut jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA",
        });
        if let Some(owner) = owner {
            jwk["sub"] = owner.into();
        }
        jwk
    }
}

/// Of the required members alone, in order and without white space.
fn thumbprint(x: &str) -> String {
    let hashed = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, hashed.as_bytes()))
}

fn key_set(keys: &[Value]) -> String {
    format!("{:#}\n", json!({ "keys": keys }))
}

fn random_bytes() -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(bytes)
}

/// What a shell reads before `kms serve`.
fn environment_file(folder: &Path) -> String {
    let path = |name: &str| quoted(folder.join(name).as_os_str());
    let settings = [
        ("ENVIRONMENT", "production".to_owned()),
        ("CORS_ORIGINS", quoted(OsStr::new("https://localhost:8002"))),
        ("KMS__DATA_DIR", path("data")),
        ("KMS__TLS__CERTIFICATE", path("server.pem")),
        ("KMS__TLS__PRIVATE_KEY", path("server.key")),
        ("KMS__TLS__CLIENT_CA", path("ca.pem")),
        ("KMS__TLS__CRL", path("ca.crl")),
        ("KMS__AUTH__JWKS", path("m21.jwks")),
        ("KMS__AUTH__AUDITORS", "M27".to_owned()),
        ("KMS__APPROVALS__JWKS", path("approvers.jwks")),
        ("KMS__HSM__ALLOW_SOFTWARE_IN_PRODUCTION", "true".to_owned()),
        ("KMS__HSM__SOFTWARE__KEK_FILE", path("kek")),
    ];
    let lines = settings.map(|(name, value)| format!("export {name}={value}\n"));
    format!(
        "# Production mode with the files of `kms dev-pki`. FOR TRYING OUT ONLY: the key of the\n\
         # authority lies beside this file.\n{}",
        lines.concat()
    )
}

/// For a shell (POSIX, 2.2.2: nothing is special between single quotes).
fn quoted(text: &OsStr) -> String {
    format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"))
}

/// Writes all of them, or none where one of them is in the way.
fn lay_out(folder: &Path, files: &[NewFile]) -> Result<(), Fault> {
    let in_the_way: Vec<String> = files
        .iter()
        .filter(|file| folder.join(&file.name).symlink_metadata().is_ok())
        .map(|file| file.name.clone())
        .collect();
    if !in_the_way.is_empty() {
        return Err(Fault::InTheWay {
            folder: folder.display().to_string(),
            files: in_the_way,
        });
    }
    let unwritable = |path: &Path| {
        let path = path.display().to_string();
        |source| Fault::Unwritable { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(unwritable(folder))?;
    for file in files {
        let path = folder.join(&file.name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.mode)
            .open(&path)
            .and_then(|mut opened| opened.write_all(&file.content))
            .map_err(unwritable(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
