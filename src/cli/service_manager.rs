//! What the service manager is told (sd_notify(3)): that the service is ready, that it
//! reads its material again, that it stops, and that it still runs.
//!
//! Without `NOTIFY_SOCKET` nobody asked, and nothing is sent. What is sent may get lost:
//! the service does not depend on who started it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// Who started this process, if it wants to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceManager {
    /// How long the process may keep quiet before it is started again.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment says.
    pub(super) fn of_this_process() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// It answers, or has read everything again.
    pub(super) fn say_ready(self) {
        tell(&[NotifyState::Ready]);
    }

    /// It has begun to read its material again.
    pub(super) fn say_reloading(self) {
        // With the time, which `Type=notify-reload` asks for.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// It takes no more requests.
    pub(super) fn say_stopping(self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Says three times within the watchdog's time that the runtime still runs tasks; at
    /// the end too, since a drain may take longer than the watchdog waits.
    pub(super) fn keep_alive(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let Some(watchdog) = self.watchdog else {
                return;
            };
            let mut time = tokio::time::interval((watchdog / 3).max(Duration::from_millis(1)));
            loop {
                time.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
        })
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the service manager was not told"
        );
    }
}
