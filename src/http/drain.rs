//! How a connection comes to its end: by itself, with the service, or because it
//! has lost its right to be.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long what is under way may still take on a connection that has lost its
/// right to be. Whoever removes the anchor he lives by gets his answer.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Tells connections to finish, and waits until they have.
pub(super) struct Drain(watch::Sender<bool>);

impl Drain {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// The signal for one connection, which counts as there while it is held.
    pub(super) fn signal(&self) -> StopSignal {
        StopSignal(self.0.subscribe())
    }

    /// Tells all connections, and waits for the last.
    pub(super) async fn finish(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// Tells one connection that the service stops.
pub(super) struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Completes when the service stops; also again.
    pub(super) async fn reached(&mut self) {
        // A sender that is gone has nothing left to wait for.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// Serves a connection to its end. When the service stops, what is under way
/// finishes and nothing new is taken. When `ended` completes it is the same, with
/// `has_lapsed` set, and after five seconds the rest is cut off.
///
/// # Errors
/// The connection's.
pub(super) async fn serve_until<C, E>(
    serving: C,
    take_no_more: impl FnOnce(Pin<&mut C>),
    mut stopping: StopSignal,
    ended: impl Future<Output = ()>,
    has_lapsed: &AtomicBool,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let (mut serving, mut ended) = (pin!(serving), pin!(ended));
    tokio::select! {
        finished = &mut serving => return finished,
        () = stopping.reached() => {}
        () = &mut ended => has_lapsed.store(true, Ordering::Release),
    }
    take_no_more(serving.as_mut());
    let cut_off = async {
        if !has_lapsed.load(Ordering::Acquire) {
            ended.await;
            has_lapsed.store(true, Ordering::Release);
        }
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        finished = serving => finished,
        () = cut_off => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::{Notify, oneshot};
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: kms\r\n\r\n";

    /// A connection whose one request waits to be let go.
    struct Served {
        client: DuplexStream,
        begun: Arc<Notify>,
        let_go: Arc<Notify>,
        end: oneshot::Sender<()>,
        drain: Drain,
        has_lapsed: Arc<AtomicBool>,
        task: JoinHandle<bool>,
    }

    fn served() -> Served {
        let (client, server) = tokio::io::duplex(4_096);
        let (begun, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (handler_begun, handler_let_go) = (Arc::clone(&begun), Arc::clone(&let_go));
        let router = Router::new().route(
            "/",
            get(move || async move {
                handler_begun.notify_one();
                handler_let_go.notified().await;
                "done"
            }),
        );
        let (end, ended) = oneshot::channel();
        let drain = Drain::new();
        let signal = drain.signal();
        let has_lapsed = Arc::new(AtomicBool::new(false));
        let lapsed = Arc::clone(&has_lapsed);
        let task = tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(router);
            let serving = builder.serve_connection(TokioIo::new(server), service);
            let ended = async {
                let _ = ended.await;
            };
            serve_until(
                serving.into_owned(),
                |it| it.graceful_shutdown(),
                signal,
                ended,
                &lapsed,
            )
            .await
            .is_ok()
        });
        Served {
            client,
            begun,
            let_go,
            end,
            drain,
            has_lapsed,
            task,
        }
    }

    async fn rest(client: &mut DuplexStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("text");
        text
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_after_the_right_is_lost_and_nothing_after_it() {
        let mut served = served();
        served.client.write_all(REQUEST).await.expect("sent");
        served.begun.notified().await;
        served.end.send(()).expect("listening");
        while !served.has_lapsed.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        // A second request on the same connection.
        served.client.write_all(REQUEST).await.expect("sent");
        served.let_go.notify_one();
        let answers = rest(&mut served.client).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
        assert!(served.task.await.expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_than_five_seconds_is_cut_off() {
        let mut served = served();
        served.client.write_all(REQUEST).await.expect("sent");
        served.begun.notified().await;
        let lost = tokio::time::Instant::now();
        served.end.send(()).expect("listening");
        assert_eq!(rest(&mut served.client).await, "");
        assert_eq!(lost.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn an_idle_connection_ends_at_once_with_its_right() {
        let mut served = served();
        served.end.send(()).expect("listening");
        assert_eq!(rest(&mut served.client).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_lost_while_the_service_stops_still_cuts_off() {
        let mut served = served();
        served.client.write_all(REQUEST).await.expect("sent");
        served.begun.notified().await;
        let finishing = tokio::spawn(served.drain.finish());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!finishing.is_finished());
        served.end.send(()).expect("listening");
        assert_eq!(rest(&mut served.client).await, "");
        finishing.await.expect("no panic");
    }
}
