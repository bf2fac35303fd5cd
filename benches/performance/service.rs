//! The use cases without HTTP under load: so many tasks, each with its next call when
//! the last is answered, in a process of their own that prints a line for each.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kms::adapters::backlog::Backlog;
use kms::adapters::hsm::pkcs11::{Pkcs11Hsm, Pkcs11Settings, TokenName};
use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::ids::KeyRef;
use kms::domain::key::KeyRecord;
use kms::domain::scope::Scope;
use kms::domain::secret::SecretBytes;
use kms::ports::hsm::{HsmBackend, Nonce};
use kms::service::{Ciphertext, KeyChoice};

use crate::in_process::{InProcess, context, scope};
use crate::primitives::{Primitive, Primitives};
use crate::process::Process;
use crate::report::{Line, QUANTILES};
use crate::requests::{KIBIBYTE, MESSAGE, TENANT};
use crate::settings::Settings;
use crate::token::{LABEL, PIN, TokenFolder, in_words};

/// The arguments with which this program starts itself.
pub(crate) const ON_SOFTWARE: &str = "--service";
pub(crate) const ON_TOKEN: &str = "--service-on-token";

/// Calls at once.
const TASKS: usize = 32;

/// One operation, ready to be called.
enum Call {
    Sign(KeyChoice<SigningAlgorithm>),
    Verify(KeyChoice<SigningAlgorithm>, Bytes),
    Encrypt(KeyChoice<AeadAlgorithm>),
    Decrypt(KeyChoice<AeadAlgorithm>, Nonce, Bytes),
    Get(KeyRef),
    Generate(KeyType),
}

impl Call {
    async fn make(&self, on: &InProcess, scope: &Scope) {
        let (service, context) = (&on.service, context());
        let message = Bytes::from_static(&MESSAGE);
        match self {
            Self::Sign(choice) => {
                let signed = service.sign(&context, choice, message).await;
                signed.expect("a signature");
            }
            Self::Verify(choice, signature) => {
                let verified = service
                    .verify(&context, choice, message, signature.clone())
                    .await;
                assert!(verified.expect("an answer").output, "it is valid");
            }
            Self::Encrypt(choice) => {
                let plaintext = Bytes::from_static(&KIBIBYTE);
                let sealed = service.encrypt(&context, choice, plaintext, Bytes::new());
                sealed.await.expect("a ciphertext");
            }
            Self::Decrypt(choice, nonce, ciphertext) => {
                let sealed = Ciphertext {
                    ciphertext: ciphertext.clone(),
                    nonce: *nonce,
                    aad: Bytes::new(),
                };
                let opened = service.decrypt(&context, choice, sealed).await;
                let opened = opened.expect("a plaintext").output;
                assert!(opened.expose() == KIBIBYTE, "it is the plaintext");
            }
            Self::Get(key) => {
                let got = service.get_key(&context, scope, key).await;
                got.expect("a key");
            }
            Self::Generate(key_type) => {
                on.make_key(scope, *key_type).await;
            }
        }
    }
}

fn choice<A>(record: &KeyRecord, algorithm: A) -> KeyChoice<A> {
    KeyChoice {
        scope: record.scope.clone(),
        key: KeyRef::Id(record.key_id),
        algorithm: Some(algorithm),
    }
}

async fn calls(on: &InProcess, scope: &Scope, names: &[Primitive]) -> Vec<(Primitive, Call)> {
    let rsa = on.make_key(scope, KeyType::Rsa2048).await;
    let ed25519 = on.make_key(scope, KeyType::Ed25519).await;
    let aes = on.make_key(scope, KeyType::Aes256).await;
    let mut calls = Vec::new();
    for primitive in names {
        calls.push((
            *primitive,
            call(on, *primitive, [&rsa, &ed25519, &aes]).await,
        ));
    }
    calls
}

async fn call(on: &InProcess, primitive: Primitive, keys: [&KeyRecord; 3]) -> Call {
    use Primitive as P;
    let [rsa, ed25519, aes] = keys;
    let verify = async |record, algorithm| {
        let message = Bytes::from_static(&MESSAGE);
        let signed = on
            .service
            .sign(&context(), &choice(record, algorithm), message)
            .await;
        let signature = signed.expect("a signature").output;
        Call::Verify(choice(record, algorithm), signature.into())
    };
    let open = async |algorithm| {
        let plaintext = Bytes::from_static(&KIBIBYTE);
        let sealed = on
            .service
            .encrypt(&context(), &choice(aes, algorithm), plaintext, Bytes::new())
            .await;
        let sealed = sealed.expect("a ciphertext").output;
        Call::Decrypt(
            choice(aes, algorithm),
            sealed.nonce,
            sealed.ciphertext.into(),
        )
    };
    match primitive {
        P::SignEd25519 => Call::Sign(choice(ed25519, SigningAlgorithm::Ed25519)),
        P::SignRsaPss => Call::Sign(choice(rsa, SigningAlgorithm::RsaPssSha256)),
        P::SignRsaPkcs1v15 => Call::Sign(choice(rsa, SigningAlgorithm::RsaPkcs1v15Sha256)),
        P::VerifyEd25519 => verify(ed25519, SigningAlgorithm::Ed25519).await,
        P::VerifyRsaPss => verify(rsa, SigningAlgorithm::RsaPssSha256).await,
        P::SealAesGcm => Call::Encrypt(choice(aes, AeadAlgorithm::Aes256Gcm)),
        P::SealChaCha => Call::Encrypt(choice(aes, AeadAlgorithm::ChaCha20Poly1305)),
        P::OpenAesGcm => open(AeadAlgorithm::Aes256Gcm).await,
        P::OpenChaCha => open(AeadAlgorithm::ChaCha20Poly1305).await,
        P::GenerateEd25519 => Call::Generate(KeyType::Ed25519),
        P::GenerateAes => Call::Generate(KeyType::Aes256),
        P::GenerateRsa => Call::Generate(KeyType::Rsa2048),
    }
}

/// Starts this program on the software HSM, and hands its lines over with their limit.
pub(crate) fn run(settings: &Settings, primitives: &Primitives, emit: &mut impl FnMut(Line)) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(ON_SOFTWARE);
    for mut line in lines_of(command) {
        let primitive = Primitive::ALL
            .into_iter()
            .find(|primitive| primitive.name() == line.name);
        let own = primitive.map_or(0.0, |primitive| primitives.of(primitive));
        // What is only read leaves no receipt.
        let receipts = f64::from(u8::from(primitive.is_some()));
        line.limit_us = Some(own + receipts * primitives.of(Primitive::SignEd25519))
            .filter(|limit| *limit > 0.0);
        if settings.wants(&line.name) {
            emit(line);
        }
    }
}

/// What a process prints that measures.
pub(crate) fn lines_of(mut command: Command) -> Vec<Line> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .expect("it starts");
    assert!(done.status.success(), "measuring: {}", done.status);
    String::from_utf8_lossy(&done.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .collect()
}

/// What the started program does on the software HSM.
pub(crate) fn measure_on_software(settings: &Settings) {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let on = InProcess::on_software(folder.path()).await;
        let scope = scope(TENANT);
        for (primitive, call) in calls(&on, &scope, &Primitive::ALL).await {
            if settings.wants(primitive.name()) {
                let line = load(&on, call, settings.line).await;
                print(line, primitive.name(), "service alone");
            }
        }
        let record = on.make_key(&scope, KeyType::Ed25519).await;
        if settings.wants("get key") {
            let line = load(&on, Call::Get(KeyRef::Id(record.key_id)), settings.line).await;
            print(line, "get key", "service alone");
        }
        on.close().await;
    });
}

/// What the started program does on a token, with so many sessions.
pub(crate) fn measure_on_token(settings: &Settings, sessions: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let token = Pkcs11Settings {
        module: TokenFolder::MODULE.into(),
        token: TokenName {
            label: LABEL.to_owned(),
            serial: None,
        },
        pin: Arc::new(SecretBytes::new(PIN.as_bytes().to_vec())),
        sessions,
        deadline: Duration::from_secs(5),
        backlog: Backlog::default(),
    };
    let backlog = token.backlog.clone();
    runtime().block_on(async {
        let clock = Arc::new(kms::adapters::clock::SystemClock);
        let hsm: Arc<dyn HsmBackend> = Arc::new(Pkcs11Hsm::new(token, clock));
        let on = InProcess::open(folder.path(), hsm, backlog).await;
        let scope = scope(TENANT);
        let through = format!("service on the token, {}", in_words(sessions));
        for (primitive, call) in calls(&on, &scope, &crate::token::MEASURED).await {
            let line = load(&on, call, settings.line).await;
            print(line, primitive.name(), &through);
        }
        on.close().await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn print(mut line: Line, name: &str, through: &str) {
    use std::io::Write as _;
    line.name = name.to_owned();
    line.through = through.to_owned();
    let text = serde_json::to_string(&line).expect("JSON");
    writeln!(std::io::stdout(), "{text}").expect("written");
}

async fn load(on: &InProcess, call: Call, lasting: Duration) -> Line {
    let call = Arc::new(call);
    run_tasks(on, &call, lasting / 10).await;
    let before = Process::own().cpu();
    let started = Instant::now();
    let mut latencies = run_tasks(on, &call, lasting).await;
    let took = started.elapsed();
    let cpu_seconds = Process::own().cpu_seconds_since(&before);
    latencies.sort_unstable();
    let quantile = |quantile: f64| {
        let place = ((latencies.len() - 1) as f64 * quantile).ceil() as usize;
        latencies[place].as_secs_f64() * 1e3
    };
    Line {
        at_once: TASKS,
        per_second: latencies.len() as f64 / took.as_secs_f64(),
        latency_ms: Some(QUANTILES.map(quantile)),
        cpu_us: cpu_seconds * 1e6 / latencies.len() as f64,
        resident_mib: Some(Process::own().resident_mib()),
        ..Line::default()
    }
}

async fn run_tasks(on: &InProcess, call: &Arc<Call>, lasting: Duration) -> Vec<Duration> {
    let until = Instant::now() + lasting;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (on, call) = (on.clone(), Arc::clone(call));
            tokio::spawn(async move {
                let scope = scope(TENANT);
                let mut latencies = Vec::new();
                let mut sent = Instant::now();
                while sent < until {
                    call.make(&on, &scope).await;
                    latencies.push(sent.elapsed());
                    sent = Instant::now();
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no panic"));
    }
    latencies
}
