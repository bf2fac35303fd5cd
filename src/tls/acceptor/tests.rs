use std::time::Instant;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
};
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;

use super::super::material::TlsFiles;
use super::super::testing::{
    Authority as Ca, FakeTrustPlane, FixedClock, Issued, Leaf, client_name, folder_with, metrics,
    with_mode,
};
use super::*;
use crate::ports::material::Material as _;

/// An acceptor with its files, and the authority that made them.
struct Server {
    ca: Ca,
    folder: tempfile::TempDir,
    metrics: Arc<Metrics>,
    trust_plane: Arc<FakeTrustPlane>,
    acceptor: Acceptor,
}

impl Server {
    fn new() -> Self {
        Self::with_anchors(&[])
    }

    fn with_anchors(anchors: &[(&str, &Ca)]) -> Self {
        let ca = Ca::new("ca");
        let folder = folder_with(&[("ca.pem", &ca.pem()), ("ca.crl", &ca.crl(&[]))]);
        lay_out(&folder, &ca.issue(&Leaf::server("localhost")));
        let clock: Arc<dyn Clock> = FixedClock::usual();
        let metrics = metrics();
        let file = |name: &str| folder.path().join(name);
        let files = TlsFiles {
            certificate: file("tls.crt"),
            private_key: file("tls.key"),
            client_ca: file("ca.pem"),
            crl: Some(file("ca.crl")),
        };
        let material = TlsMaterial::load(files, &clock, &metrics).expect("good");
        let trust_plane = FakeTrustPlane::of(anchors);
        let plane = Arc::clone(&trust_plane);
        let acceptor = Acceptor::new(material, plane, clock, Arc::clone(&metrics));
        Self {
            ca,
            folder,
            metrics,
            trust_plane,
            acceptor,
        }
    }

    async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: IO,
    ) -> Result<Admitted<IO>, Refusal> {
        let address = SocketAddr::from(([192, 0, 2, 7], 4711));
        self.acceptor.establish(stream, address).await
    }

    /// A handshake with this client, seen from both ends. The client asks for a
    /// byte, since in TLS 1.3 it is done before the server has judged it.
    async fn meet(&self, client: ClientConfig) -> (Result<Admitted<DuplexStream>, Refusal>, Seen) {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let asking = async {
            let host = ServerName::try_from("localhost").expect("a name");
            let mut stream = match TlsConnector::from(Arc::new(client))
                .connect(host, near)
                .await
            {
                Ok(stream) => stream,
                Err(error) => return Seen::of(&error),
            };
            // Sent at once, as a client does that trusts its certificate.
            if let Err(error) = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await {
                return Seen::of(&error);
            }
            match stream.read_u8().await {
                Ok(_) => Seen::Answer(Box::new(stream)),
                Err(error) => Seen::of(&error),
            }
        };
        let serving = async {
            let mut admitted = self.serve(far).await?;
            admitted.stream.write_all(b"x").await.expect("written");
            admitted.stream.flush().await.expect("written");
            Ok(admitted)
        };
        tokio::join!(serving, asking)
    }

    fn count(&self, series: &str) -> u64 {
        let text = self.metrics.render().expect("renders");
        let text = String::from_utf8(text).expect("text");
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{series} in {text}"))
    }

    fn refused(&self, reason: &str) -> u64 {
        self.count(&format!(
            "kms_tls_handshakes_refused_total{{reason=\"{reason}\"}}"
        ))
    }
}

fn lay_out(folder: &tempfile::TempDir, identity: &Issued) {
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("tls.crt", identity.pem());
    write("tls.key", identity.key().serialize_pem());
    with_mode(&folder.path().join("tls.key"), 0o600);
}

/// What a client saw.
enum Seen {
    Answer(Box<tokio_rustls::client::TlsStream<DuplexStream>>),
    Alert(AlertDescription),
    Broken(String),
}

impl Seen {
    fn of(error: &std::io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            _ => Self::Broken(error.to_string()),
        }
    }

    #[track_caller]
    fn answered(self) -> tokio_rustls::client::TlsStream<DuplexStream> {
        match self {
            Self::Answer(stream) => *stream,
            Self::Alert(alert) => panic!("{alert:?}"),
            Self::Broken(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn alert(self) -> AlertDescription {
        match self {
            Self::Alert(alert) => alert,
            Self::Answer(_) => panic!("answered"),
            Self::Broken(error) => panic!("{error}"),
        }
    }
}

/// A client that takes any server: here the server judges.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::HandshakeNotComplete)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A client with this certificate, and these above it; or with none.
fn client(identity: Option<(&Issued, &[&Ca])>) -> ClientConfig {
    let provider = super::super::testing::provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(algorithms)));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((leaf, above)) => {
            let mut chain = vec![leaf.der().clone()];
            chain.extend(above.iter().map(|ca| ca.der().clone()));
            let key = PrivateKeyDer::from_pem_slice(leaf.key().serialize_pem().as_bytes());
            builder
                .with_client_auth_cert(chain, key.expect("a key"))
                .expect("they match")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn acme() -> Leaf {
    Leaf::client("acme", "M27")
}

#[tokio::test]
async fn a_client_with_a_good_certificate_is_admitted_by_its_name() {
    let server = Server::new();
    let leaf = server.ca.issue(&acme());
    let (admitted, seen) = server.meet(client(Some((&leaf, &[])))).await;
    let admitted = admitted.expect("admitted");
    assert_eq!(admitted.peer.spiffe_id.as_str(), client_name("acme", "M27"));
    assert!(admitted.in_force.is_none());
    let stream = seen.answered();
    let (_, session) = stream.get_ref();
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        server.count("kms_tls_handshakes_total{outcome=\"established\"}"),
        1
    );
    assert_eq!(
        server.count("kms_tls_handshakes_total{outcome=\"refused\"}"),
        0
    );
}

#[tokio::test]
async fn what_is_refused_is_told_by_an_alert_and_counted_by_its_reason() {
    let server = Server::new();
    let other = Ca::new("other");
    let ca = &server.ca;
    for (leaf, refusal, alert) in [
        (
            other.issue(&acme()),
            Refusal::UnknownAuthority,
            AlertDescription::UnknownCA,
        ),
        (
            ca.issue(&acme().valid((2026, 1, 1), (2026, 2, 1))),
            Refusal::Expired,
            AlertDescription::CertificateExpired,
        ),
        (
            ca.issue(&acme().uris(&[])),
            Refusal::NoName,
            AlertDescription::AccessDenied,
        ),
        (
            ca.issue(&Leaf::server("localhost").uris(&[&client_name("acme", "M27")])),
            Refusal::WrongUsage,
            AlertDescription::UnsupportedCertificate,
        ),
    ] {
        let (admitted, seen) = server.meet(client(Some((&leaf, &[])))).await;
        assert_eq!(admitted.err(), Some(refusal));
        assert_eq!(seen.alert(), alert, "{refusal:?}");
        assert_eq!(server.refused(refusal.as_str()), 1);
    }
    let (admitted, seen) = server.meet(client(None)).await;
    assert_eq!(admitted.err(), Some(Refusal::NoCertificate));
    assert_eq!(seen.alert(), AlertDescription::CertificateRequired);
    assert_eq!(server.refused("no_certificate"), 1);
    assert_eq!(
        server.count("kms_tls_handshakes_total{outcome=\"refused\"}"),
        5
    );
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_gets_its_alert_all_the_same() {
    let server = Server::new();
    let leaf = Ca::new("other").issue(&acme());
    let connector = TlsConnector::from(Arc::new(client(Some((&leaf, &[])))));
    let (near, far) = tokio::io::duplex(4 * 1024);
    let asking = async {
        let host = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(host, near).await.expect("its half");
        // More than rustls holds back by itself: somebody has to take it.
        let sent = stream.write_all(&[7; 96 * 1024]).await;
        sent.expect("taken");
        Seen::of(&stream.read_u8().await.expect_err("refused"))
    };
    let (admitted, seen) = tokio::join!(server.serve(far), asking);
    assert_eq!(admitted.err(), Some(Refusal::UnknownAuthority));
    assert_eq!(seen.alert(), AlertDescription::UnknownCA);
}

#[tokio::test]
async fn a_certificate_without_its_key_admits_nobody() {
    let server = Server::new();
    let (leaf, own) = (server.ca.issue(&acme()), server.ca.issue(&acme()));
    // Somebody else's certificate, and a key of one's own.
    let provider = super::super::testing::provider();
    let key = PrivateKeyDer::from_pem_slice(own.key().serialize_pem().as_bytes());
    let key = provider.key_provider.load_private_key(key.expect("a key"));
    let stolen = rustls::sign::CertifiedKey::new(vec![leaf.der().clone()], key.expect("a key"));
    let mut config = client(None);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen));
    let (admitted, seen) = server.meet(config).await;
    assert_eq!(admitted.err(), Some(Refusal::BadSignature));
    assert_eq!(seen.alert(), AlertDescription::DecryptError);
}

#[tokio::test]
async fn nothing_is_resumed_so_that_every_connection_shows_its_certificate() {
    let server = Server::new();
    let leaf = server.ca.issue(&acme());
    let config = client(Some((&leaf, &[])));
    for _ in 0..3 {
        let (admitted, seen) = server.meet(config.clone()).await;
        admitted.expect("admitted");
        let stream = seen.answered();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_connection_by_an_anchor_hears_of_the_anchors_end() {
    let anchor = Ca::new("anchor");
    let server = Server::with_anchors(&[("acme", &anchor)]);
    let leaf = anchor.issue(&acme());
    let (admitted, _) = server.meet(client(Some((&leaf, &[])))).await;
    let in_force = admitted.expect("admitted").in_force;
    let mut in_force = in_force.expect("lives by an anchor");
    server.trust_plane.remove(&anchor);
    assert!(in_force.changed().await.is_err());
    let (admitted, _) = server.meet(client(Some((&leaf, &[])))).await;
    assert_eq!(admitted.err(), Some(Refusal::UnknownAuthority));
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_open_ones_live_on() {
    let server = Server::new();
    let leaf = server.ca.issue(&acme());
    let shown = |stream: &tokio_rustls::client::TlsStream<DuplexStream>| {
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("shown")[0].clone()
    };
    let (open, seen) = server.meet(client(Some((&leaf, &[])))).await;
    let (mut open, mut near) = (open.expect("admitted"), seen.answered());

    let renewed = server.ca.issue(&Leaf::server("localhost"));
    lay_out(&server.folder, &renewed);
    for unit in server.acceptor.material.units() {
        unit.reload().await.expect("good");
    }
    let (_, seen) = server.meet(client(Some((&leaf, &[])))).await;
    assert_eq!(&shown(&seen.answered()), renewed.der());

    assert_ne!(&shown(&near), renewed.der());
    open.stream.write_all(b"y").await.expect("written");
    open.stream.flush().await.expect("written");
    assert_eq!(near.read_u8().await.expect("alive"), b'y');
}

#[tokio::test]
async fn a_new_revocation_list_counts_from_the_next_handshake_on() {
    let server = Server::new();
    let leaf = server.ca.issue(&acme());
    let (admitted, _) = server.meet(client(Some((&leaf, &[])))).await;
    admitted.expect("admitted");
    let list = server.ca.crl(&[leaf.serial()]);
    std::fs::write(server.folder.path().join("ca.crl"), list).expect("written");
    let lists = server.acceptor.material.revocation.as_ref();
    lists.expect("lists").reload().await.expect("good");
    let (admitted, seen) = server.meet(client(Some((&leaf, &[])))).await;
    assert_eq!(admitted.err(), Some(Refusal::Revoked));
    assert_eq!(seen.alert(), AlertDescription::CertificateRevoked);
}

/// What the acceptor says to these first bytes, and what it sends back.
async fn first_bytes(server: &Server, bytes: &[u8]) -> (Refusal, Vec<u8>) {
    let (mut near, far) = tokio::io::duplex(16 * 1024);
    let saying = async {
        near.write_all(bytes).await.expect("written");
        near.shutdown().await.expect("shut down");
        let mut said = Vec::new();
        near.read_to_end(&mut said).await.expect("read");
        said
    };
    let (admitted, said) = tokio::join!(server.serve(far), saying);
    (admitted.expect_err("refused"), said)
}

#[tokio::test]
async fn what_is_not_tls_is_refused_as_such() {
    let server = Server::new();
    for bytes in [&b"GET /health HTTP/1.1\r\nHost: kms\r\n\r\n"[..], &[0; 64]] {
        let (refusal, said) = first_bytes(&server, bytes).await;
        assert_eq!(refusal, Refusal::NotTls);
        // An alert (21), fatal (2).
        assert_eq!((said[0], said[5]), (21, 2), "{said:?}");
    }
    let (refusal, _) = first_bytes(&server, b"").await;
    assert_eq!(refusal, Refusal::Gone);
}

#[tokio::test]
async fn tls_1_2_is_refused_by_its_version() {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    // ECDHE-ECDSA-AES128-GCM-SHA256, and no compression.
    hello.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    // signature_algorithms and supported_groups, and no supported_versions.
    let extensions = [
        0, 13, 0, 4, 0, 2, 4, 3, //
        0, 10, 0, 4, 0, 2, 0, 23, //
    ];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let length = hello.len() as u8;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let (refusal, said) = first_bytes(&Server::new(), &record).await;
    assert_eq!(refusal, Refusal::ProtocolVersion);
    // protocol_version(70).
    assert_eq!(said.last(), Some(&70), "{said:?}");
}

#[tokio::test]
async fn a_client_without_a_protocol_of_ours_is_refused() {
    let server = Server::new();
    let leaf = server.ca.issue(&acme());
    let mut config = client(Some((&leaf, &[])));
    config.alpn_protocols = vec![b"imap".to_vec()];
    let (admitted, seen) = server.meet(config).await;
    assert_eq!(admitted.err(), Some(Refusal::ApplicationProtocol));
    assert_eq!(seen.alert(), AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn a_client_that_stalls_is_given_up_after_the_deadline() {
    let mut server = Server::new();
    server.acceptor.patience.usually = Duration::from_millis(50);
    let (_near, far) = tokio::io::duplex(1_024);
    let begun = Instant::now();
    assert_eq!(server.serve(far).await.err(), Some(Refusal::Timeout));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(server.refused("timeout"), 1);
}

#[tokio::test]
async fn those_who_stall_get_less_time_once_half_of_the_places_are_taken() {
    let mut server = Server::new();
    server.acceptor.patience.hurried = Duration::from_millis(50);
    let half = PLACES as u32 / 2;
    let taken = server.acceptor.places.acquire_many(half).await;
    let (_near, far) = tokio::io::duplex(1_024);
    let begun = Instant::now();
    assert_eq!(server.serve(far).await.err(), Some(Refusal::Timeout));
    assert!(begun.elapsed() < PATIENT);
    drop(taken);
}

#[tokio::test]
async fn without_a_place_the_next_is_refused_on_the_spot() {
    let server = Server::new();
    let full = server.acceptor.places.acquire_many(PLACES as u32).await;
    let (_near, far) = tokio::io::duplex(1_024);
    let begun = Instant::now();
    assert_eq!(server.serve(far).await.err(), Some(Refusal::Busy));
    assert!(begun.elapsed() < HURRIED);
    assert_eq!(server.refused("busy"), 1);
    drop(full);
}
