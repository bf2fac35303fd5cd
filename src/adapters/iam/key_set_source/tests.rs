//! Key sets that are renewed, go bad, go away and come back.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::testing::{Signer, StoppedClock};
use super::*;

/// A web server that gives whatever it is told to.
struct Web {
    address: String,
    answer: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
}

impl Web {
    async fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/jwks.json", listener.local_addr().expect("bound"));
        let answer = Arc::new(Mutex::new(answer));
        let requests = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = told.lock().unwrap().clone();
                if let Some(answer) = answer {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            answer,
            requests,
        }
    }

    fn tell(&self, answer: String) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn set_of(kid: &str) -> String {
    answer("200 OK", &Signer::set_text(&[&Signer::ed25519(kid, 1)]))
}

struct Bench {
    source: KeySetSource,
    clock: Arc<StoppedClock>,
    metrics: Arc<Metrics>,
}

fn bench(origin: KeySetOrigin) -> Bench {
    let clock = Arc::new(StoppedClock::new());
    let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
    let source = KeySetSource::new(
        KeySetRole::Callers,
        origin,
        Arc::clone(&clock) as Arc<dyn Clock>,
        Arc::clone(&metrics),
    );
    Bench {
        source,
        clock,
        metrics,
    }
}

impl Bench {
    fn knows(&self, kid: &str) -> bool {
        let keys = self.source.keys();
        keys.is_ok_and(|keys| keys.find(Some(kid)).is_some())
    }

    /// Whether reading again is asked for at this moment.
    fn is_wanted(&self) -> bool {
        let mut wanted = self.source.wanted();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        wanted.as_mut().poll(&mut context).is_ready()
    }

    fn standing(&self) -> Standing {
        self.source.standing(self.clock.now())
    }
}

#[tokio::test]
async fn a_file_is_read_and_a_bad_new_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&Signer::set_text(&[&Signer::ed25519("one", 1)]));
    let bench = bench(KeySetOrigin::File(path.clone()));
    bench.source.start().await.expect("a good file");
    assert!(bench.knows("one"));
    assert_eq!(bench.source.files(), std::slice::from_ref(&path));
    assert_eq!(bench.source.refresh_every(), None);
    assert!(matches!(bench.standing(), Standing::Good(_)));

    for bad in [
        "",
        "{",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"OKP","d":"AA"}]}"#,
    ] {
        write(bad);
        let fault = bench.source.reload().await.expect_err("a bad file");
        assert!(fault.to_string().contains("auth.jwks"), "{fault}");
        assert!(bench.knows("one"), "the old one stays");
        assert!(matches!(bench.standing(), Standing::NeedsCare(_)));
    }
    write(&Signer::set_text(&[&Signer::ed25519("two", 2)]));
    bench.source.reload().await.expect("a good file");
    assert!(bench.knows("two") && !bench.knows("one"));
    assert!(matches!(bench.standing(), Standing::Good(_)));
}

#[tokio::test]
async fn a_file_that_is_missing_bad_or_too_large_is_a_fault_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    let start = || async {
        let bench = bench(KeySetOrigin::File(path.clone()));
        let started = bench.source.start().await;
        assert!(matches!(bench.standing(), Standing::Unusable(_)));
        started.expect_err("a fault").to_string()
    };
    assert!(start().await.contains("cannot be read"));
    std::fs::write(&path, "{}").expect("written");
    assert!(start().await.contains("not acceptable"));
    std::fs::write(&path, vec![b' '; LARGEST_SET + 1]).expect("written");
    assert!(start().await.contains("larger than 1 MiB"));
}

#[tokio::test]
async fn an_address_that_is_away_at_the_start_is_asked_again_until_it_comes() {
    let web = Web::start(None).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    assert!(matches!(bench.standing(), Standing::Unusable(_)));
    assert!(bench.source.keys().is_err());
    assert!(!bench.is_wanted(), "it has just been asked");
    bench.clock.advance(Period::seconds(5));
    assert!(bench.is_wanted());
    web.tell(set_of("one"));
    bench.source.reload().await.expect("it came");
    assert!(bench.knows("one"));
    assert!(matches!(bench.standing(), Standing::Good(_)));
    bench.clock.advance(Period::seconds(60));
    assert!(!bench.is_wanted(), "nothing is missed");
}

#[tokio::test]
async fn whatever_is_not_the_key_set_leaves_the_last_good_one_in_force() {
    let web = Web::start(Some(set_of("one"))).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    let text = Signer::set_text(&[&Signer::ed25519("two", 2)]);
    let elsewhere = Web::start(Some(answer("200 OK", &text))).await;
    let redirect = format!("302 Found\r\nlocation: {}", elsewhere.address);
    let large = format!("{}{}", " ".repeat(LARGEST_SET), text);
    for bad in [
        answer("404 Not Found", &text),
        answer("500 Internal Server Error", &text),
        answer("203 Non-Authoritative Information", &text),
        answer(&redirect, &text),
        answer("200 OK", "<html>"),
        answer("200 OK", &large),
        "garbage".to_owned(),
    ] {
        web.tell(bad.clone());
        let fault = bench.source.reload().await;
        assert!(fault.is_err(), "{bad:.60}");
        assert!(bench.knows("one"), "{bad:.60}");
        assert!(matches!(bench.standing(), Standing::NeedsCare(_)));
    }
    assert_eq!(elsewhere.requests(), 0, "no redirect is followed");
}

#[tokio::test]
async fn made_up_keys_cost_at_most_one_reading_a_minute() {
    let web = Web::start(Some(set_of("one"))).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    assert_eq!(web.requests(), 1);
    for minute in 1..=3 {
        for _ in 0..1_000 {
            bench.source.want_refresh();
            assert!(!bench.is_wanted(), "the last reading was just now");
        }
        bench.clock.advance(Period::seconds(59));
        assert!(!bench.is_wanted());
        bench.clock.advance(Period::seconds(1));
        assert!(bench.is_wanted() && bench.is_wanted(), "until it is read");
        bench.source.reload().await.expect("read");
        assert_eq!(web.requests(), 1 + minute);
        assert!(!bench.is_wanted());
    }
    bench.clock.advance(Period::seconds(60));
    assert!(!bench.is_wanted(), "nothing was missed since");
}

#[tokio::test]
async fn whoever_waits_is_woken_by_a_missing_key() {
    let web = Web::start(Some(set_of("one"))).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    bench.clock.advance(Period::seconds(60));
    let source = Arc::new(bench.source);
    let waiter = Arc::clone(&source);
    let waiting = tokio::spawn(async move { waiter.wanted().await });
    tokio::task::yield_now().await;
    source.want_refresh();
    waiting.await.expect("woken");
}

#[tokio::test]
async fn a_reading_that_failed_is_tried_again_a_minute_later() {
    let web = Web::start(Some(set_of("one"))).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    web.tell(answer("503 Service Unavailable", ""));
    assert!(bench.source.reload().await.is_err());
    assert!(!bench.is_wanted());
    bench.clock.advance(Period::seconds(60));
    assert!(bench.is_wanted());
}

#[tokio::test]
async fn an_address_is_refreshed_and_an_old_set_told() {
    let web = Web::start(Some(set_of("one"))).await;
    let bench = bench(KeySetOrigin::Address(web.address.clone()));
    bench.source.start().await.expect("no fault");
    assert_eq!(bench.source.refresh_every(), Some(Duration::from_secs(300)));
    assert!(bench.source.files().is_empty());
    bench.clock.advance(Period::seconds(3_600));
    assert!(matches!(bench.standing(), Standing::Good(_)));
    bench.clock.advance(Period::seconds(1));
    assert!(matches!(bench.standing(), Standing::NeedsCare(_)));
    let metrics = String::from_utf8(bench.metrics.render().expect("encodes")).expect("UTF-8");
    assert!(
        metrics.contains(r#"kms_jwks_age_seconds{set="m21"} 3601"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_password_in_an_address_gets_into_no_message() {
    let web = Web::start(None).await;
    let address = web.address.replace("http://", "http://kms:canary@");
    let bench = bench(KeySetOrigin::Address(format!("{address}?token=canary")));
    let fault = bench.source.reload().await.expect_err("away");
    let mut error: Option<&dyn std::error::Error> = Some(&fault);
    while let Some(cause) = error {
        let (shown, debugged) = (cause.to_string(), format!("{cause:?}"));
        assert!(
            !shown.contains("canary") && !debugged.contains("canary"),
            "{shown}"
        );
        error = cause.source();
    }
}
