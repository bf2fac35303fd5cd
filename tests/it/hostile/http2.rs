//! HTTP/2 against its rules, or within them to no good end, with and without TLS.

use std::time::{Duration, Instant};

use super::assert_alive;
use super::attacks::{self, Attack, End, NEXT};
use super::frames::*;
use crate::support::{ClientCertificate, Pki, RawConnection, TestKms};

/// A service, and the way to it.
struct Target {
    kms: TestKms,
    tls: Option<(Pki, ClientCertificate)>,
}

impl Target {
    async fn plain() -> Self {
        Self {
            kms: TestKms::start().await,
            tls: None,
        }
    }

    async fn tls() -> Self {
        let pki = Pki::new();
        let kms = TestKms::start_tls(&pki, &[]).await;
        let client = pki.client("tenant123", "M99");
        Self {
            kms,
            tls: Some((pki, client)),
        }
    }

    async fn open(&self) -> RawConnection {
        let address = self.kms.address();
        match &self.tls {
            None => RawConnection::open(address).await,
            Some((pki, client)) => RawConnection::open_tls(address, pki, client).await,
        }
    }

    /// Sends it, and looks what becomes of it and of the connection.
    async fn suffer(&self, attack: &Attack) {
        let what = attack.what;
        let mut connection = self.open().await;
        let bytes = [BEGINNING, &attack.bytes, &get(NEXT)].concat();
        let started = Instant::now();
        let received = connection
            .exchange(&bytes, |received| answered(received, NEXT).is_some())
            .await;
        // Told at once, and not when it was idle for long enough.
        assert!(started.elapsed() < Duration::from_secs(9), "{what}");
        let (gone, next) = (gone_for(&received), answered(&received, NEXT));
        match attack.end {
            End::Gone => {
                assert_eq!(next, None, "{what}");
                assert!(gone.is_some_and(|reason| reason != 0), "{what}: {gone:?}");
            }
            End::Calmed => assert_eq!((gone, next), (Some(ENHANCE_YOUR_CALM), None), "{what}"),
            End::Reset(reason) => {
                assert_eq!((gone, next), (None, Some(true)), "{what}");
                assert_eq!(reset_for(&received, 1), Some(reason), "{what}");
            }
            End::Refused => {
                assert_eq!((gone, next), (None, Some(true)), "{what}");
                assert_eq!(answered(&received, 1), Some(false), "{what}");
            }
            End::Served => assert_eq!((gone, next), (None, Some(true)), "{what}"),
        }
        assert_alive(&self.kms).await;
    }
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_and_without_having_to_ask() {
    let kms = TestKms::start().await;
    let mut connection = RawConnection::open(kms.address()).await;
    let asked = [BEGINNING, &get(1)].concat();
    let received = connection
        .exchange(&asked, |received| answered(received, 1).is_some())
        .await;
    assert_eq!(answered(&received, 1), Some(true));
    let mut settings: Vec<(u16, u32)> = settings(&received);
    settings.sort_unstable();
    // Streams at once, the window of a stream, the largest frame, the largest head.
    let bounds = [(3, 256), (4, 256 * 1024), (5, 16 * 1024), (6, 32 * 1024)];
    assert_eq!(settings, bounds);
}

#[tokio::test]
async fn what_breaks_http_2_ends_what_it_breaks_and_nothing_else() {
    let target = Target::plain().await;
    for attack in attacks::all() {
        target.suffer(&attack).await;
    }
}

#[tokio::test]
async fn the_same_behind_tls() {
    let target = Target::tls().await;
    for attack in attacks::all() {
        target.suffer(&attack).await;
    }
}

#[tokio::test]
async fn every_ping_is_answered_and_every_stream_too_many_refused() {
    let target = Target::plain().await;
    let mut connection = target.open().await;
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(1_000);
    let posts: Vec<u8> = (0..300)
        .flat_map(|number| post(2 * number + 1, b""))
        .collect();
    let last = frame(PING, 0, 0, &[2; 8]);
    let bytes = [BEGINNING, &pings, &posts, &last].concat();
    let received = connection
        .exchange(&bytes, |received| count(received, PING) > 1_000)
        .await;
    assert_eq!(count(&received, PING), 1_001);
    // 256 are under way and wait for their bodies.
    assert_eq!(reset_for(&received, 2 * 255 + 1), None);
    for number in 256..300 {
        let reset = reset_for(&received, 2 * number + 1);
        assert_eq!(reset, Some(REFUSED_STREAM), "stream {number}");
    }
}

/// Nothing of an answer goes to who has no room for it, and whoever shares the
/// connection is served meanwhile.
#[tokio::test]
async fn an_answer_without_room_waits_and_holds_up_no_other() {
    let target = Target::plain().await;
    let mut connection = target.open().await;
    // No room on any stream.
    let bytes = [
        BEGINNING,
        &setting(4, 0),
        &get_path(1, "/kms/v1/openapi.json"),
        &get(3),
    ];
    let received = connection
        .exchange(&bytes.concat(), |received| {
            answered(received, 1).is_some() && answered(received, 3).is_some()
        })
        .await;
    assert_eq!(count(&received, DATA), 0);
    // Room for one of them, which was asked for second.
    let room = frame(WINDOW_UPDATE, 0, 3, &1_000_u32.to_be_bytes());
    let received = connection
        .exchange(&room, |received| count(received, DATA) > 0)
        .await;
    assert_eq!(count(&received, DATA), 1, "the short answer, and whole");
}
