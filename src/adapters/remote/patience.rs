//! When a request is sent again, and when.

use std::time::{Duration, Instant};

use reqwest::Response;
use reqwest::header::RETRY_AFTER;

use super::Refusal;

/// The rest that is taken where the service wants none.
const SHORTEST_REST: Duration = Duration::from_millis(100);

/// How long a refusal that does not say so asks to be left alone.
const USUAL_REST: Duration = Duration::from_secs(1);

/// After which refusals a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// After every one that may be another answer later: done twice, the request
    /// changes nothing but counts and receipts.
    Harmless,
    /// After those alone that came before anything was done: 429, which is given before
    /// a key is touched, and 503 for want of room, which is given before the body is
    /// read. Another 503 may stand behind a change that was kept: a commit that was not
    /// answered in time, or a deadline that passed.
    OnlyUntouched,
}

impl Repeat {
    /// Whether this refusal is one of them.
    pub fn after(self, refusal: &Refusal) -> bool {
        let was_before_anything =
            refusal.status == 429 || refusal.status == 503 && refusal.is_of("load");
        match self {
            Self::Harmless => refusal.may_answer_later(),
            Self::OnlyUntouched => was_before_anything,
        }
    }
}

/// How long a service that wants to be left alone is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often one request is sent at most.
    pub most_tries: u32,
    /// The longest rest at a time; a wish for more is cut down to it.
    pub longest_rest: Duration,
    /// How long the rests may be in all. A rest that would go past it is not begun.
    pub in_all: Duration,
    tries: u32,
    began: Instant,
}

impl Patience {
    /// For one request, from now on.
    pub fn new(most_tries: u32, longest_rest: Duration, in_all: Duration) -> Self {
        Self {
            most_tries,
            longest_rest,
            in_all,
            tries: 1,
            began: Instant::now(),
        }
    }

    /// How long to wait before the request is sent again, if it is to be.
    pub(super) fn next(&mut self, refusal: &Refusal) -> Option<Duration> {
        let rest = refusal
            .retry_after
            .unwrap_or(USUAL_REST)
            .max(SHORTEST_REST)
            .min(self.longest_rest);
        let ends = self.began.elapsed().checked_add(rest)?;
        self.tries += 1;
        (self.tries <= self.most_tries && ends <= self.in_all).then_some(rest)
    }
}

/// How long the service wants to be left alone, if it says so.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}
