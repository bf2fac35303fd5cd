//! Authorities and certificates made for one run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use reqwest::{Client, Identity};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

/// The name of a module in a scope, as a client certificate bears it.
pub(crate) fn spiffe_name(tenant: &str, environment: &str, plane: &str, module: &str) -> String {
    format!("spiffe://test.example/tenant/{tenant}/env/{environment}/plane/{plane}/module/{module}")
}

/// A service's files and the authority behind them, in a folder of their own.
pub(crate) struct Pki {
    authority: TestAuthority,
    folder: TempDir,
}

impl Pki {
    /// An authority, a server for `127.0.0.1` and `localhost`, and an empty
    /// revocation list.
    pub(crate) fn new() -> Self {
        let authority = TestAuthority::new("configured CA");
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Self { authority, folder };
        pki.renew_server();
        pki.write("ca.pem", &pki.authority.pem());
        pki.revoke(&[]);
        pki
    }

    /// Puts a new server certificate and its key in the place of the old ones.
    pub(crate) fn renew_server(&self) {
        let mut params = leaf("kms", ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("localhost".try_into().expect("ASCII")),
        ];
        let key = KeyPair::generate().expect("a key");
        let server = self.authority.sign(&params, &key);
        self.write("server.pem", &server.pem());
        self.write("server.key", &key.serialize_pem());
    }

    /// The settings that make a service speak TLS with these files.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        [
            ("KMS__TLS__CERTIFICATE", "server.pem"),
            ("KMS__TLS__PRIVATE_KEY", "server.key"),
            ("KMS__TLS__CLIENT_CA", "ca.pem"),
            ("KMS__TLS__CRL", "ca.crl"),
        ]
        .map(|(setting, file)| (setting, self.path(file).display().to_string()))
        .to_vec()
    }

    /// A module's certificate from the configured authority, in the environment
    /// and plane of the usual scope.
    pub(crate) fn client(&self, tenant: &str, module: &str) -> ClientCertificate {
        self.authority.client(tenant, module)
    }

    /// The configured authority.
    pub(crate) fn authority(&self) -> &TestAuthority {
        &self.authority
    }

    /// Revokes exactly these: what the service reads from its next look on.
    pub(crate) fn revoke(&self, revoked: &[&ClientCertificate]) {
        self.write("ca.crl", &self.authority.revocation_list(revoked));
    }

    /// Puts something else in a file of the service: `server.pem`, `server.key`,
    /// `ca.pem` or `ca.crl`.
    pub(crate) fn write(&self, file: &str, content: &str) {
        // In one step, as whoever renews a file does it.
        let (new, path) = (self.path("new"), self.path(file));
        std::fs::write(&new, content).expect("written");
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&new, permissions).expect("set");
        std::fs::rename(new, path).expect("renamed");
    }

    /// The path of a file of the service.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// An HTTP client that trusts the service and shows this certificate. It has
    /// connections of its own.
    pub(crate) fn connector(&self, certificate: &ClientCertificate) -> Client {
        let identity = Identity::from_pem(certificate.pem.as_bytes()).expect("a key and a chain");
        self.builder().identity(identity).build().expect("a client")
    }

    /// An HTTP client that trusts the service and has no certificate.
    pub(crate) fn nameless(&self) -> Client {
        self.builder().build().expect("a client")
    }

    /// TLS for bytes that no HTTP client would write, with this certificate.
    pub(crate) fn raw_connector(&self, certificate: &ClientCertificate) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from(self.authority.der().to_vec());
        roots.add(authority).expect("an authority");
        let pem = certificate.pem.as_bytes();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let key = PrivateKeyDer::from_pem_slice(pem).expect("a key");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.expect("a chain"), key)
            .expect("a key that fits");
        TlsConnector::from(Arc::new(config))
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).expect("PEM");
        Client::builder().tls_certs_only([ca])
    }
}

/// A client's certificate, its key and what stands above it.
pub(crate) struct ClientCertificate {
    pem: String,
    serial: SerialNumber,
}

impl ClientCertificate {
    /// The same with another certificate sent along.
    pub(crate) fn with_above(mut self, authority: &TestAuthority) -> Self {
        self.pem.push_str(&authority.pem());
        self
    }

    /// Key and chain, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }
}

/// An authority.
pub(crate) struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl TestAuthority {
    /// A root of this name.
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().expect("a key"));
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().expect("a key"));
        let certificate = self.sign(&params, &key);
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Its certificate.
    pub(crate) fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The same in PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A module's certificate in the environment and plane of the usual scope.
    pub(crate) fn client(&self, tenant: &str, module: &str) -> ClientCertificate {
        self.client_named(&spiffe_name(tenant, "prod", "laptop", module))
    }

    /// A client's certificate with this URI name.
    pub(crate) fn client_named(&self, uri: &str) -> ClientCertificate {
        self.client_with(uri, |_| {})
    }

    /// A client's certificate that differs from the usual.
    pub(crate) fn client_with(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ClientCertificate {
        let key = KeyPair::generate().expect("a key");
        self.certify(uri, &key, change)
    }

    /// A client's certificate with this URI name of this key, in PKCS#8.
    pub(crate) fn client_with_key(&self, uri: &str, pkcs8: &[u8]) -> ClientCertificate {
        let key = KeyPair::try_from(pkcs8).expect("a private key");
        self.certify(uri, &key, |_| {})
    }

    fn certify(
        &self,
        uri: &str,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ClientCertificate {
        let serial = SerialNumber::from(uuid::Uuid::new_v4().as_u64_pair().0 >> 1);
        let mut params = leaf("client", ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let certificate = self.sign(&params, key);
        ClientCertificate {
            pem: format!("{}{}", key.serialize_pem(), certificate.pem()),
            serial,
        }
    }

    /// A revocation list of these, in PEM.
    pub(crate) fn revocation_list(&self, revoked: &[&ClientCertificate]) -> String {
        let revoked_certs = revoked
            .iter()
            .map(|certificate| RevokedCertParams {
                serial_number: certificate.serial.clone(),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).expect("a certificate")
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params
}
