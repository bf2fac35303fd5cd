//! A public key infrastructure for the tests of this room, at a time of its own.
//!
//! Everything is made in January 2026 and valid until January 2027; the usual
//! clock stands at the first of June.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::domain::error::CertificateFault;
use crate::domain::ids::{TenantId, TrustAnchorId};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts, TrustAnchor};
use crate::ports::clock::Clock;
use crate::ports::trust_plane::{TrustPlane, Voucher};
use crate::telemetry::metrics::Metrics;

pub(super) fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

pub(super) struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    pub(super) fn usual() -> Arc<Self> {
        Self::at("2026-06-01T00:00:00Z")
    }

    pub(super) fn at(time: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(at(time))))
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no panic")
    }
}

pub(super) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("1").expect("metrics"))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(super) fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

pub(super) fn with_mode(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("set");
}

/// The name of a module of a tenant.
pub(super) fn client_name(tenant: &str, module: &str) -> String {
    format!("spiffe://test.example/tenant/{tenant}/env/prod/plane/tenant/module/{module}")
}

/// What is to be put into a certificate that is no authority's.
#[derive(Clone)]
pub(super) struct Leaf(CertificateParams);

impl Leaf {
    pub(super) fn client(tenant: &str, module: &str) -> Self {
        let mut params = params(module);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self(params)
            .uris(&[&client_name(tenant, module)])
            .dns(&["client.example"])
    }

    pub(super) fn server(host: &str) -> Self {
        Self::client("acme", "M33")
            .uris(&[])
            .dns(&[host])
            .with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.0);
        self
    }

    fn with_names(mut self, replaced: impl Fn(&SanType) -> bool, names: Vec<SanType>) -> Self {
        self.0.subject_alt_names.retain(|name| !replaced(name));
        self.0.subject_alt_names.extend(names);
        self
    }

    pub(super) fn uris(self, uris: &[&str]) -> Self {
        let name = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
        self.with_names(
            |name| matches!(name, SanType::URI(_)),
            uris.iter().map(name).collect(),
        )
    }

    pub(super) fn dns(self, hosts: &[&str]) -> Self {
        let name = |host: &&str| SanType::DnsName((*host).try_into().expect("ASCII"));
        self.with_names(
            |name| matches!(name, SanType::DnsName(_)),
            hosts.iter().map(name).collect(),
        )
    }

    pub(super) fn valid(self, from: (i32, u8, u8), until: (i32, u8, u8)) -> Self {
        self.with(|params| {
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(until.0, until.1, until.2);
        })
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

/// A certificate with its key.
pub(super) struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Issued {
    pub(super) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn serial(&self) -> Vec<u8> {
        serial_of(self.der())
    }
}

fn serial_of(der: &[u8]) -> Vec<u8> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).expect("reads");
    certificate.raw_serial().to_vec()
}

/// An authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A root that differs from the usual.
    pub(super) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::prepare(name, change);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// An authority below this one.
    pub(super) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::prepare(name, change);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn prepare(
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateParams, KeyPair) {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        (params, KeyPair::generate().expect("a key"))
    }

    pub(super) fn issue(&self, leaf: &Leaf) -> Issued {
        self.issue_for(leaf, KeyPair::generate().expect("a key"))
    }

    pub(super) fn issue_for(&self, leaf: &Leaf, key: KeyPair) -> Issued {
        let certificate = leaf.0.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate, key }
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn serial(&self) -> Vec<u8> {
        serial_of(self.der())
    }

    /// A revocation list of May and June, in PEM.
    pub(super) fn crl(&self, revoked: &[Vec<u8>]) -> String {
        self.list(revoked).pem().expect("PEM")
    }

    /// The same in DER.
    pub(super) fn crl_der(&self, revoked: &[Vec<u8>]) -> Vec<u8> {
        self.list(revoked).der().to_vec()
    }

    fn list(&self, revoked: &[Vec<u8>]) -> rcgen::CertificateRevocationList {
        let revoked_certs = revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: date_time_ymd(2026, 5, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 5, 1),
            next_update: date_time_ymd(2026, 7, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .expect("a list")
    }
}

/// The tenant that took an anchor in, and the anchor's being in force.
type Held = (String, watch::Sender<()>);

/// A trust plane of a handful of anchors.
#[derive(Default)]
pub(super) struct FakeTrustPlane {
    anchors: Mutex<BTreeMap<Vec<u8>, Held>>,
}

impl FakeTrustPlane {
    pub(super) fn of(anchors: &[(&str, &Authority)]) -> Arc<Self> {
        let plane = Self::default();
        for (tenant, anchor) in anchors {
            let (sender, _) = watch::channel(());
            let held = ((*tenant).to_owned(), sender);
            plane
                .anchors
                .lock()
                .expect("no panic")
                .insert(anchor.der().to_vec(), held);
        }
        Arc::new(plane)
    }

    pub(super) fn remove(&self, anchor: &Authority) {
        let mut anchors = self.anchors.lock().expect("no panic");
        anchors.remove(anchor.der().as_ref()).expect("an anchor");
    }
}

impl TrustPlane for FakeTrustPlane {
    fn inspect(
        &self,
        _: &[u8],
        _: AnchorType,
        _: Timestamp,
    ) -> Result<CertificateFacts, CertificateFault> {
        Err(CertificateFault::Malformed)
    }

    fn admit(&self, _: &TrustAnchor) {}

    fn dismiss(&self, _: TrustAnchorId) {}

    fn replace(&self, _: &[TrustAnchor]) {}

    fn vouchers(&self, subject: &[u8], scope: &Scope, _: Timestamp) -> Vec<Voucher> {
        let global: TenantId = "GLOBAL".parse().expect("a tenant");
        self.anchors
            .lock()
            .expect("no panic")
            .iter()
            .filter(|(der, (tenant, _))| {
                let (_, certificate) = x509_parser::parse_x509_certificate(der).expect("reads");
                certificate.subject().as_raw() == subject
                    && (tenant == scope.tenant_id.as_str() || tenant == global.as_str())
            })
            .map(|(der, (_, sender))| Voucher {
                by: crate::domain::peer::VouchedBy::Tenant,
                trust_anchor_id: "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e"
                    .parse()
                    .expect("an id"),
                der: der.as_slice().into(),
                in_force: sender.subscribe(),
            })
            .collect()
    }
}

/// A client's certificate of RSA with 1024 bits, which no library of ours makes.
pub(super) const WEAK_CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIICSjCCAbOgAwIBAgIUBPu2TTI/eveGILe3mZ8R3zk4tVswDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEd2VhazAgFw0yNjExMjQxODU1MzRaGA8yMTI2MTAzMTE4
NTUzNFowDzENMAsGA1UEAwwEd2VhazCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkC
gYEA4Ej3zT1b/KaK35Mx8Yz+iLaP4i7ETU8t2x/kTdqWwxtH/wbCscbcx1QEzjFl
+E4Q99pkzmeRFnaVp0SQYb8bpA9MwLp/N2jyA8hiBQeV7RnL9zuUNr9ipIoeeOwe
iSOCr0ddZKm3X2LlAVR7DV5rbmaeW54Adkdq8CQ3Aw63z4MCAwEAAaOBoDCBnTAd
BgNVHQ4EFgQUBM1sE4w8PQwhyW01L92kpjlNvikwHwYDVR0jBBgwFoAUBM1sE4w8
PQwhyW01L92kpjlNvikwTQYDVR0RBEYwRIZCc3BpZmZlOi8vdGVzdC5leGFtcGxl
L3RlbmFudC9hY21lL2Vudi9wcm9kL3BsYW5lL3RlbmFudC9tb2R1bGUvTTI3MAwG
A1UdEwEB/wQCMAAwDQYJKoZIhvcNAQELBQADgYEAD9Puv6s8GMHyxA5LiDR2h5Gx
hwU3qIVyGMx3qdtgDTwYWlsmHZ7ibwQoAd6wtu8gEKobGy+h33clqLLq1NJP025j
VTKLplZ71xdZNplRNbcq09ftr7EVmZaLejwXuh5U58iP+6QLVnvVTDT8lZYtT0tE
kts0OPZWS9tV1HUXvHE=
-----END CERTIFICATE-----
";
