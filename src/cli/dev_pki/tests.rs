use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use clap::Parser;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::adapters::trust_plane::X509TrustPlane;
use crate::ports::clock::Clock;
use crate::ports::material::Standing;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Acceptor, TlsFiles, TlsMaterial};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    wanted: DevPki,
}

fn wanted(folder: &Path, more: &[&str]) -> DevPki {
    let out = folder.display().to_string();
    let arguments = ["dev-pki", "--out", &out].into_iter();
    Arguments::parse_from(arguments.chain(more.iter().copied())).wanted
}

fn make_in(folder: &Path, more: &[&str]) -> Result<(), Fault> {
    let files = make(&wanted(folder, more), folder, SystemClock.now())?;
    lay_out(folder, &files)
}

fn material(folder: &Path) -> TlsMaterial {
    let files = TlsFiles {
        certificate: folder.join("server.pem"),
        private_key: folder.join("server.key"),
        client_ca: folder.join("ca.pem"),
        crl: Some(folder.join("ca.crl")),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    TlsMaterial::load(files, &clock, &metrics()).expect("good")
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("1").expect("metrics"))
}

/// The name that the service sees when this client of these files calls.
async fn name_of(folder: &Path, client: &str) -> String {
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let file = folder.join(name);
        let found = CertificateDer::pem_file_iter(file).expect("a file");
        found.collect::<Result<_, _>>().expect("PEM")
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificates("ca.pem").remove(0)).expect("added");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates(&format!("{client}.pem")),
            PrivateKeyDer::from_pem_file(folder.join(format!("{client}.key"))).expect("a key"),
        )
        .expect("they match");
    let acceptor = Acceptor::new(
        material(folder),
        Arc::new(X509TrustPlane::new()),
        Arc::new(SystemClock),
        metrics(),
    );
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = async {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut admitted = acceptor.establish(far, address).await.expect("admitted");
        admitted.stream.write_all(b"x").await.expect("written");
        admitted.stream.flush().await.expect("written");
        admitted.peer.spiffe_id.as_str().to_owned()
    };
    let asking = async {
        let host = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector
            .connect(host, near)
            .await
            .expect("the server is good");
        assert_eq!(stream.read_u8().await.expect("a byte"), b'x');
    };
    tokio::join!(serving, asking).0
}

#[tokio::test]
async fn what_is_made_serves_and_identifies_every_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("pki");
    make_in(&folder, &["--tenant", "t1", "--modules", "M27,EPC-1"]).expect("made");
    for unit in material(&folder).units() {
        let standing = unit.standing(SystemClock.now());
        assert!(matches!(standing, Standing::Good(_)), "{standing:?}");
    }
    for (client, tenant, module) in [
        ("client-M27", "t1", "M27"),
        ("client-M21", "t1", "M21"),
        ("client-GLOBAL-M32", "GLOBAL", "M32"),
    ] {
        assert_eq!(
            name_of(&folder, client).await,
            format!(
                "spiffe://dev.zeroui.local/tenant/{tenant}/env/prod/plane/tenant/module/{module}"
            )
        );
    }
}

#[test]
fn keys_are_for_their_owner_and_the_folder_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("pki");
    make_in(&folder, &[]).expect("made");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in [
        "ca.key",
        "server.key",
        "client-M21.key",
        "client-M35.key",
        "client-GLOBAL-M32.key",
        "approver-alice.pem",
        "approver-bob.pem",
        "m21.pem",
        "kek",
    ] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read(folder.join("kek")).expect("there").len(), 32);
}

#[test]
fn nothing_is_overwritten_and_what_is_in_the_way_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kek"), "precious").expect("written");
    let fault = make_in(folder.path(), &[])
        .expect_err("refused")
        .to_string();
    assert!(fault.contains("has kek already"), "{fault}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let kept = std::fs::read(folder.path().join("kek")).expect("there");
    assert_eq!(kept, b"precious");
}

#[test]
fn approvers_are_in_the_key_set_by_name_and_thumbprint() {
    let folder = tempfile::tempdir().expect("a folder");
    make_in(folder.path(), &[]).expect("made");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("there");
    let set: Value = serde_json::from_str(&read("approvers.jwks")).expect("JSON");
    let keys = set["keys"].as_array().expect("a list");
    let owners: Vec<_> = keys.iter().map(|key| key["sub"].as_str()).collect();
    assert_eq!(owners, [Some("alice"), Some("bob")]);
    for (key, owner) in keys.iter().zip(APPROVERS) {
        let pair = KeyPair::from_pem(&read(&format!("approver-{owner}.pem"))).expect("a key");
        assert_eq!(key["x"], URL_SAFE_NO_PAD.encode(pair.public_key_raw()));
        assert_eq!(key["alg"], "EdDSA");
    }
    assert_ne!(keys[0]["kid"], keys[1]["kid"]);
    let m21: Value = serde_json::from_str(&read("m21.jwks")).expect("JSON");
    assert_eq!(m21["keys"][0]["sub"], Value::Null);
}

#[test]
fn a_thumbprint_is_that_of_rfc_8037() {
    // Its appendix A.1 and A.3.
    assert_eq!(
        thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn the_settings_are_what_a_shell_reads_even_from_an_odd_folder() {
    let text = environment_file(Path::new("/tmp/it's here"));
    let script = format!("{text}printf %s \"$KMS__TLS__CERTIFICATE|$ENVIRONMENT\"");
    let shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    let said = String::from_utf8(shell.stdout).expect("text");
    assert_eq!(said, "/tmp/it's here/server.pem|production");
}

#[test]
fn it_says_loudly_what_it_is_for() {
    let folder = Path::new("/x");
    let mut out = Vec::new();
    guide::print(&wanted(folder, &["--modules", "M29"]), folder, &mut out).expect("written");
    let said = String::from_utf8(out).expect("text");
    assert!(said.starts_with("FOR TRYING OUT ONLY"));
    assert!(
        said.contains("--cert '/x/client-M29.pem' --key '/x/client-M29.key'"),
        "{said}"
    );
}
