//! Keys in a token: SoftHSM's own loop, the service on it without HTTP, and the whole
//! path. Only where SoftHSM is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use tempfile::TempDir;

use crate::matrix;
use crate::operations::operations_on_token;
use crate::primitives::Primitive;
use crate::process::{self, Process};
use crate::report::Line;
use crate::requests::{KIBIBYTE, MESSAGE};
use crate::servers::Server;
use crate::service::{self, lines_of};
use crate::settings::Settings;

/// The argument with which this program starts itself for the token's own loop.
pub(crate) const BARE_TOKEN: &str = "--bare-token";

/// The token that is made for the run.
pub(crate) const LABEL: &str = "kms-benchmark";
pub(crate) const PIN: &str = "4711-0815";

/// Sessions at work at once.
const SESSIONS: [usize; 3] = [1, 2, 8];

/// Connections at once, of the whole path.
const CONNECTIONS: usize = 32;

/// What is measured on it.
pub(crate) const MEASURED: [Primitive; 3] = [
    Primitive::SignRsaPss,
    Primitive::SignEd25519,
    Primitive::SealAesGcm,
];

/// A folder with a token of SoftHSM.
pub(crate) struct TokenFolder(TempDir);

impl TokenFolder {
    /// Where Debian's SoftHSM is.
    pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

    /// A new token; `None` where SoftHSM is not installed.
    fn make() -> Option<Self> {
        if !Path::new(Self::MODULE).exists() {
            return None;
        }
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let tokens = folder.0.path().join("tokens");
        fs::create_dir(&tokens).expect("a folder");
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(folder.settings(), settings).expect("written");
        let made = Command::new("softhsm2-util")
            .env("SOFTHSM2_CONF", folder.settings())
            .args(["--init-token", "--free", "--label", LABEL])
            .args(["--pin", PIN, "--so-pin", "12345678"])
            .output()
            .ok()?;
        assert!(made.status.success(), "softhsm2-util: {made:?}");
        Some(folder)
    }

    fn settings(&self) -> PathBuf {
        self.0.path().join("softhsm2.conf")
    }
}

/// Every line of the token; none, and why, where there is no SoftHSM.
pub(crate) async fn run(settings: &Settings, emit: &mut impl FnMut(Line)) -> Option<&'static str> {
    if !settings.wants("token") {
        return None;
    }
    if TokenFolder::make().is_none() {
        return Some("SoftHSM is not installed, so there are no lines of a token.\n");
    }
    for sessions in SESSIONS {
        for argument in [BARE_TOKEN, service::ON_TOKEN] {
            let folder = TokenFolder::make().expect("it was there");
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command
                .env("SOFTHSM2_CONF", folder.settings())
                .args([argument, &sessions.to_string()]);
            lines_of(command).into_iter().for_each(&mut *emit);
        }
        let folder = TokenFolder::make().expect("it was there");
        over_http(settings, &folder, sessions, emit).await;
    }
    None
}

/// So many sessions.
pub(crate) fn in_words(sessions: usize) -> String {
    match sessions {
        1 => "1 session".to_owned(),
        _ => format!("{sessions} sessions"),
    }
}

async fn over_http(
    settings: &Settings,
    folder: &TokenFolder,
    sessions: usize,
    emit: &mut impl FnMut(Line),
) {
    let on_token = [
        ("SOFTHSM2_CONF", folder.settings().display().to_string()),
        ("KMS__HSM__BACKEND", "pkcs11".to_owned()),
        ("KMS__HSM__PKCS11__MODULE", TokenFolder::MODULE.to_owned()),
        ("KMS__HSM__PKCS11__TOKEN_LABEL", LABEL.to_owned()),
        ("KMS__HSM__PKCS11__PIN", PIN.to_owned()),
        ("KMS__HSM__PKCS11__SESSIONS", sessions.to_string()),
    ];
    let kms = Server::kms(None, &on_token).await;
    for operation in operations_on_token(&kms).await {
        let (mut line, answers) =
            matrix::measure(&kms, &operation.request, CONNECTIONS, settings.line).await;
        operation.check.hold(operation.name, &kms, &answers).await;
        line.name = operation.name.to_owned();
        line.through = format!("HTTP on the token, {}", in_words(sessions));
        emit(line);
    }
}

/// What the started program does: the token's own loop, a thread and a session each.
pub(crate) fn measure_bare(settings: &Settings, sessions: usize) {
    let pkcs11 = Pkcs11::new(TokenFolder::MODULE).expect("a module");
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    pkcs11.initialize(arguments).expect("initialized");
    let slot = slot(&pkcs11);
    let session = pkcs11.open_rw_session(slot).expect("a session");
    let pin = AuthPin::new(PIN.into());
    session
        .login(UserType::User, Some(&pin))
        .expect("logged in");
    for primitive in MEASURED {
        let key = make_key(&session, primitive);
        let started = Instant::now();
        let (done, cpu_seconds) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..sessions)
                .map(|_| scope.spawn(|| work(&pkcs11, slot, key, primitive, settings.line)))
                .collect();
            let done = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            done.fold((0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1))
        });
        let took = started.elapsed();
        let line = Line {
            name: primitive.name().to_owned(),
            through: format!("token alone, {}", in_words(sessions)),
            at_once: sessions,
            per_second: f64::from(done) / took.as_secs_f64(),
            cpu_us: cpu_seconds * 1e6 / f64::from(done),
            resident_mib: Some(Process::own().resident_mib()),
            ..Line::default()
        };
        use std::io::Write as _;
        let text = serde_json::to_string(&line).expect("JSON");
        writeln!(std::io::stdout(), "{text}").expect("written");
    }
}

fn slot(pkcs11: &Pkcs11) -> Slot {
    let slots = pkcs11.get_slots_with_token().expect("slots");
    let is_ours = |slot: &Slot| {
        let token = pkcs11.get_token_info(*slot).expect("a token");
        token.label() == LABEL
    };
    slots.into_iter().find(is_ours).expect("the token")
}

/// What it is done with, kept in the token as those of the service are.
fn make_key(session: &Session, primitive: Primitive) -> ObjectHandle {
    let secret = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
    ];
    let with = |own: Vec<Attribute>| [own, secret.to_vec()].concat();
    let pair = |mechanism: Mechanism<'_>, own: Attribute| {
        let public = [Attribute::Token(true), Attribute::Verify(true), own];
        let private = with(vec![Attribute::Sign(true)]);
        let made = session.generate_key_pair(&mechanism, &public, &private);
        made.expect("a pair").1
    };
    match primitive {
        Primitive::SignRsaPss => pair(
            Mechanism::RsaPkcsKeyPairGen,
            Attribute::ModulusBits(2048.into()),
        ),
        // The object identifier 1.3.101.112 in DER (RFC 8410 §3).
        Primitive::SignEd25519 => pair(
            Mechanism::EccEdwardsKeyPairGen,
            Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]),
        ),
        _ => {
            let template = with(vec![
                Attribute::ValueLen(32.into()),
                Attribute::Encrypt(true),
            ]);
            let made = session.generate_key(&Mechanism::AesKeyGen, &template);
            made.expect("a key")
        }
    }
}

/// How many came about, and the CPU seconds that they took.
fn work(
    pkcs11: &Pkcs11,
    slot: Slot,
    key: ObjectHandle,
    primitive: Primitive,
    lasting: Duration,
) -> (u32, f64) {
    let session = pkcs11.open_rw_session(slot).expect("a session");
    let before = process::thread_seconds();
    let (until, mut done) = (Instant::now() + lasting, 0);
    let pss = PkcsPssParams {
        hash_alg: MechanismType::SHA256,
        mgf: PkcsMgfType::MGF1_SHA256,
        s_len: 32.into(),
    };
    while Instant::now() < until {
        match primitive {
            Primitive::SignRsaPss => {
                let signed = session.sign(&Mechanism::Sha256RsaPkcsPss(pss), key, &MESSAGE);
                signed.expect("a signature");
            }
            Primitive::SignEd25519 => {
                let scheme = EddsaParams::new(EddsaSignatureScheme::Ed25519);
                let signed = session.sign(&Mechanism::Eddsa(scheme), key, &MESSAGE);
                signed.expect("a signature");
            }
            _ => {
                let mut nonce = [0; 12];
                aws_lc_rs::rand::fill(&mut nonce).expect("randomness");
                let parameters = GcmParams::new(&mut nonce, &[], 128.into()).expect("valid");
                let sealed = session.encrypt(&Mechanism::AesGcm(parameters), key, &KIBIBYTE);
                sealed.expect("a ciphertext");
            }
        }
        done += 1;
    }
    (done, process::thread_seconds() - before)
}
