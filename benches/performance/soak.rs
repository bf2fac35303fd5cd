//! The mixed load of the budgets, for as long as one likes: half of what the service
//! is asked to carry, all at once, in the open loop.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;
use crate::load::connection::Request;
use crate::load::open::{Arrivals, Records, record};
use crate::load::{Outcome, Workload, connect};
use crate::process::Machine;
use crate::report::svg::{Curve, curves};
use crate::requests::{KIBIBYTE, Key, base64, generate};
use crate::servers::Server;
use crate::settings::Settings;

/// Of the rates below, how much is asked for.
const SHARE: f64 = 0.5;

/// Of signatures and verifications, those with RSA-PSS; the others are Ed25519.
const RSA_SHARE: f64 = 0.25;

/// Of the new keys.
const KEY_TYPES: [(&str, f64); 3] = [("RSA-2048", 0.10), ("Ed25519", 0.45), ("AES-256", 0.45)];

const TENANTS: usize = 10;
const KEYS_OF_A_TYPE: usize = 100;

/// Connections of each operation.
const CONNECTIONS: usize = 32;

/// As many requests are made ready of each operation, and sent over and over.
const REQUESTS: usize = 4_096;

/// An operation, how many a second the service is asked to carry, and its budget.
struct Budget {
    name: &'static str,
    per_second: f64,
    p95_ms: f64,
    p99_ms: f64,
}

const fn budget(name: &'static str, per_second: f64, p95_ms: f64, p99_ms: f64) -> Budget {
    Budget {
        name,
        per_second,
        p95_ms,
        p99_ms,
    }
}

const BUDGETS: [Budget; 5] = [
    budget("generate", 100.0, 500.0, 1_000.0),
    budget("sign", 1_000.0, 50.0, 100.0),
    budget("verify", 2_000.0, 20.0, 50.0),
    budget("encrypt", 1_000.0, 30.0, 60.0),
    budget("decrypt", 1_000.0, 30.0, 60.0),
];

/// What one period came to.
struct Period {
    /// p50, p95 and p99 of each operation, in milliseconds.
    quantiles: Vec<[f64; 3]>,
    failed: usize,
    resident_mib: f64,
    /// Cores that the service kept busy.
    cores: f64,
}

/// Loads the service, says each minute how it is, and at the end whether the budgets
/// held.
pub(crate) async fn run(settings: &Settings, say: impl Fn(&str)) {
    let lasting = Duration::from_secs_f64(settings.minutes * 60.0);
    // A trial of seconds has periods too.
    let number = (settings.minutes.round() as u32).max(3);
    let period = lasting / number;
    let machine = Machine::now();
    let kms = Server::kms(None, &[]).await;
    let workloads = workloads(&kms).await;
    let mut loads = Vec::new();
    for (place, (budget, workload)) in BUDGETS.iter().zip(workloads).enumerate() {
        let connections = connect(&kms.target, CONNECTIONS).await;
        let records = Records::new(period);
        let (kept, rate) = (records.clone(), budget.per_second * SHARE);
        let load = spawn_local(async move {
            let arrivals = Arrivals::poisson(rate).of_others(place);
            record(connections, &workload, arrivals, lasting, &kept).await;
        });
        loads.push((records, load));
    }
    let started = Instant::now();
    let (mut rows, mut periods, mut whole) = (heading(), Vec::new(), Vec::new());
    whole.resize_with(BUDGETS.len(), Outcome::default);
    say(&rows);
    for place in 0..number {
        let before = kms.process().cpu();
        sleep_until(started + period * (place + 1)).await;
        let cores = kms.process().cpu_seconds_since(&before) / period.as_secs_f64();
        if place + 1 == number {
            for (_, load) in &mut loads {
                load.await.expect("no panic");
            }
        }
        let mut came_to = Period {
            quantiles: Vec::new(),
            failed: 0,
            resident_mib: kms.process().resident_mib(),
            cores,
        };
        for ((records, _), whole) in loads.iter().zip(&mut whole) {
            let outcome = records.take(place as usize).sorted();
            let quantiles = [0.50, 0.95, 0.99].map(|quantile| outcome.quantile_ms(quantile));
            came_to.quantiles.push(quantiles);
            came_to.failed += outcome.failed;
            whole.absorb(outcome);
        }
        let row = came_to.row(place, period);
        say(&row);
        rows.push_str(&row);
        periods.push(came_to);
    }
    // What was answered when its period had been told.
    for ((records, _), whole) in loads.iter().zip(&mut whole) {
        (0..number).for_each(|place| whole.absorb(records.take(place as usize)));
    }
    let whole: Vec<Outcome> = whole.into_iter().map(Outcome::sorted).collect();
    // Its time counts when it has ended.
    drop(kms);
    let mut verdict = verdict(&whole, &periods);
    let _ = write!(verdict, "\n{}", Machine::disturbance_since(&machine));
    say(&verdict);
    if let Some(out) = &settings.out {
        let text = page(settings.minutes, &verdict, &rows);
        std::fs::create_dir_all(out).expect("a folder");
        std::fs::write(out.join("soak.md"), text).expect("written");
        let step = format!("periods of {:.0} s", period.as_secs_f64());
        for (name, picture) in pictures(&periods, &step) {
            std::fs::write(out.join(name), picture).expect("written");
        }
    }
}

/// What to send, in the order of the budgets.
async fn workloads(kms: &Server) -> [Workload; BUDGETS.len()] {
    let mut dice = Dice::new(0x50a4);
    let (mut rsa, mut ed25519, mut aes) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..KEYS_OF_A_TYPE {
        let tenant = tenant(place);
        rsa.push(Signer::make(kms, &tenant, "RSA-2048", "RSA-PSS-SHA256").await);
        ed25519.push(Signer::make(kms, &tenant, "Ed25519", "Ed25519").await);
        aes.push(Cipher::make(kms, &tenant).await);
    }
    let mut requests: [Vec<Request>; BUDGETS.len()] = Default::default();
    for _ in 0..REQUESTS {
        let new = generate(&tenant(dice.below(TENANTS)), key_type(&mut dice));
        let signers = if dice.fraction() < RSA_SHARE {
            &rsa
        } else {
            &ed25519
        };
        let (signer, cipher) = (dice.pick(signers), dice.pick(&aes));
        for (place, (path, body)) in [
            ("/kms/v1/keys", &new),
            ("/kms/v1/sign", &signer.sign),
            ("/kms/v1/verify", &signer.verify),
            ("/kms/v1/encrypt", &cipher.encrypt),
            ("/kms/v1/decrypt", &cipher.decrypt),
        ]
        .into_iter()
        .enumerate()
        {
            requests[place].push(Request::post(path, body));
        }
    }
    let [generate, sign, verify, encrypt, decrypt] = requests.map(Workload::new);
    [
        generate.saying("\"active\""),
        sign.saying("\"signature\""),
        verify.saying("\"valid\":true"),
        encrypt.saying("\"ciphertext\""),
        // The beginning of what was encrypted.
        decrypt.saying("\"plaintext\":\"BwcHBwcHBwcHBwcH"),
    ]
}

fn tenant(place: usize) -> String {
    format!("tenant-{}", place % TENANTS)
}

fn key_type(dice: &mut Dice) -> &'static str {
    let mut left = dice.fraction();
    for (key_type, share) in KEY_TYPES {
        if left < share {
            return key_type;
        }
        left -= share;
    }
    KEY_TYPES[0].0
}

/// A key that signs, with the bodies that it is used with.
struct Signer {
    sign: Value,
    verify: Value,
}

impl Signer {
    async fn make(kms: &Server, tenant: &str, key_type: &str, algorithm: &str) -> Self {
        let sign = Key::make(kms, tenant, key_type).await.sign(algorithm);
        let mut verify = sign.clone();
        verify["signature"] = kms.post("/kms/v1/sign", &sign).await["signature"].clone();
        Self { sign, verify }
    }
}

/// A key that encrypts, with the bodies that it is used with.
struct Cipher {
    encrypt: Value,
    decrypt: Value,
}

impl Cipher {
    async fn make(kms: &Server, tenant: &str) -> Self {
        let key = Key::make(kms, tenant, "AES-256").await;
        let plain = json!({ "plaintext": base64(&KIBIBYTE) });
        let encrypt = key.one("AES-256-GCM", plain);
        let sealed = kms.post("/kms/v1/encrypt", &encrypt).await;
        let cipher = json!({ "ciphertext": sealed["ciphertext"], "iv": sealed["iv"] });
        let decrypt = key.one("AES-256-GCM", cipher);
        Self { encrypt, decrypt }
    }
}

fn heading() -> String {
    let names: String = BUDGETS
        .iter()
        .map(|budget| format!(" {} p50 / p95 / p99 ms |", budget.name))
        .collect();
    let columns = "| --- ".to_owned() + &"| ---: ".repeat(BUDGETS.len() + 3);
    format!("| until |{names} failed | RSS MiB | cores |\n{columns}|\n")
}

impl Period {
    fn row(&self, place: u32, period: Duration) -> String {
        let until = period.as_secs_f64() * f64::from(place + 1);
        let mut text = format!(
            "| {:.0} min {:.0} s |",
            (until / 60.0).floor(),
            until % 60.0
        );
        for [p50, p95, p99] in &self.quantiles {
            let _ = write!(text, " {p50:.1} / {p95:.1} / {p99:.1} |");
        }
        let Self {
            failed,
            resident_mib,
            cores,
            ..
        } = self;
        let _ = writeln!(text, " {failed} | {resident_mib:.0} | {cores:.2} |");
        text
    }
}

/// Whether each budget held over the whole time.
fn verdict(whole: &[Outcome], periods: &[Period]) -> String {
    let mut text = String::from(
        "\n| operation | requests | failed | p95 ms | budget | p99 ms | budget | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for (budget, outcome) in BUDGETS.iter().zip(whole) {
        let (p95, p99) = (outcome.quantile_ms(0.95), outcome.quantile_ms(0.99));
        let holds = p95 <= budget.p95_ms && p99 <= budget.p99_ms && outcome.failed == 0;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {p95:.1} | {} | {p99:.1} | {} | {} |",
            budget.name,
            outcome.answered(),
            outcome.failed,
            budget.p95_ms,
            budget.p99_ms,
            if holds { "held" } else { "**not held**" },
        );
        if let Some(failure) = &outcome.failure {
            let _ = writeln!(text, "\nThe first {} that failed: {failure}\n", budget.name);
        }
    }
    let resident = |period: Option<&Period>| period.map_or(0.0, |period| period.resident_mib);
    let _ = writeln!(
        text,
        "\nMemory: {:.0} MiB after the first period, {:.0} MiB after the last.",
        resident(periods.first()),
        resident(periods.last()),
    );
    text
}

fn page(minutes: f64, verdict: &str, rows: &str) -> String {
    let rates: Vec<String> = BUDGETS
        .iter()
        .map(|budget| format!("{} {}", budget.per_second * SHARE, budget.name))
        .collect();
    format!(
        "# Soak\n\nWritten by `make soak`: {minutes} minutes of {} a second, all at once, over HTTP in the open loop (each request\n\
         counts from when it was due), on the cores that the load generator runs on too. Of signatures and verifications {:.0} % are\n\
         RSA-PSS, the others Ed25519; encryption is AES-256-GCM of 1 KiB. {KEYS_OF_A_TYPE} keys of each type in {TENANTS} tenants.\n\
         {verdict}\n![p99 over time](soak-p99.svg)\n\n![Memory over time](soak-rss.svg)\n\n{rows}",
        rates.join(", "),
        RSA_SHARE * 100.0,
    )
}

fn pictures(periods: &[Period], step: &str) -> [(&'static str, String); 2] {
    let p99: Vec<Curve<'_>> = BUDGETS
        .iter()
        .enumerate()
        .map(|(place, budget)| Curve {
            name: budget.name,
            values: periods
                .iter()
                .map(|period| period.quantiles[place][2])
                .collect(),
        })
        .collect();
    let memory = Curve {
        name: "RSS",
        values: periods.iter().map(|period| period.resident_mib).collect(),
    };
    [
        ("soak-p99.svg", curves("p99 over time", "ms", step, &p99)),
        (
            "soak-rss.svg",
            curves("Memory over time", "MiB", step, &[memory]),
        ),
    ]
}
