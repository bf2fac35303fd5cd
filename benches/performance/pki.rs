//! Certificates for both ends, made by `kms dev-pki`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::requests::TENANT;

/// A folder of certificates.
#[derive(Clone)]
pub(crate) struct Pki(PathBuf);

impl Pki {
    /// Makes one.
    pub(crate) fn make(folder: &Path) -> Self {
        let folder = folder.join("pki");
        let made = Command::new(env!("CARGO_BIN_EXE_kms"))
            .args(["dev-pki", "--tenant", TENANT, "--environment", "dev"])
            .args(["--plane", "tenant", "--out"])
            .arg(&folder)
            .stdout(Stdio::null())
            .status()
            .expect("it starts");
        assert!(made.success(), "kms dev-pki: {made}");
        Self(folder)
    }

    /// The one that is in this folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// What the service is told of it.
    pub(crate) fn settings(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("KMS__TLS__CERTIFICATE", self.0.join("server.pem")),
            ("KMS__TLS__PRIVATE_KEY", self.0.join("server.key")),
            ("KMS__TLS__CLIENT_CA", self.0.join("ca.pem")),
        ]
    }

    /// For the load generator: the module M21 of the benchmark's tenant.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let (chain, key) = self.identity("client-M21");
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.authority())
            .with_client_auth_cert(chain, key)
            .expect("a key of that certificate");
        Arc::new(config)
    }

    /// For the bare server: TLS 1.3, and a client certificate is compulsory.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let authority = Arc::new(self.authority());
        let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider())
            .build()
            .expect("an authority");
        let (chain, key) = self.identity("server");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("a key of that certificate");
        Arc::new(config)
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let path = |kind: &str| self.0.join(format!("{name}.{kind}"));
        let chain = CertificateDer::pem_file_iter(path("pem"))
            .expect("a file")
            .collect::<Result<_, _>>()
            .expect("certificates");
        let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
        (chain, key)
    }

    fn authority(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.0.join("ca.pem"));
        roots.add(authority.expect("a certificate")).expect("a CA");
        roots
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
