//! Log lines for refused handshakes, so many a second and no more: who can reach
//! the port can refuse himself as often as he likes.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::refusal::Refusal;
use crate::domain::peer::SpiffeId;

/// The lines of one second.
const LINES_A_SECOND: u32 = 10;

/// Writes the lines.
pub(super) struct RefusalLog {
    window: Mutex<Window>,
}

struct Window {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self {
            window: Mutex::new(Window {
                begun: Instant::now(),
                lines: 0,
                left_out: 0,
            }),
        }
    }

    /// Says that this client was refused, and how many lines were left out before
    /// this one. `name` is what the certificate claims, where it reads as a name.
    pub(super) fn refused(&self, address: SocketAddr, refusal: Refusal, name: Option<&SpiffeId>) {
        let Some(left_out) = self.take_line(Instant::now()) else {
            return;
        };
        let (reason, peer) = (refusal.as_str(), address.to_string());
        let claimed_name = name.map(SpiffeId::as_str);
        if refusal.is_ours() {
            tracing::warn!(
                peer,
                reason,
                claimed_name,
                left_out,
                "TLS handshake refused"
            );
        } else {
            tracing::info!(
                peer,
                reason,
                claimed_name,
                left_out,
                "TLS handshake refused"
            );
        }
    }

    /// A line, with how many were left out before it; `None` when there is none
    /// left in this second.
    fn take_line(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.begun) >= Duration::from_secs(1) {
            window.begun = now;
            window.lines = 0;
        }
        if window.lines == LINES_A_SECOND {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_told_with_the_next_line() {
        let log = RefusalLog::new();
        let now = Instant::now();
        let written = (0..25).filter(|_| log.take_line(now).is_some()).count();
        assert_eq!(written, 10);
        let next = now + Duration::from_secs(1);
        assert_eq!(log.take_line(next), Some(15));
        assert_eq!(log.take_line(next), Some(0));
    }
}
