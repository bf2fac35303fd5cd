//! How many requests at once, and how long each.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::around::{Answering, Around};
use super::callers::{Caller, CallerTable, MOST_CALLERS, Slot};
use crate::domain::error::{Dependency, KmsError};
use crate::http::error::ApiError;

/// Room for requests that are being worked on. One that comes when it is full is
/// turned away at once: a queue would only make everyone late.
///
/// One caller never has all of a large room: whoever lets bodies come in byte by byte
/// would keep everybody else out with a thousand of them.
#[derive(Clone)]
pub(crate) struct InFlight {
    places: Arc<Semaphore>,
    shares: Arc<CallerTable<AtomicUsize>>,
    most_of_one: usize,
}

/// Of so many places a caller leaves this many to others. A small room has no share to
/// leave: it is one caller's, or a test's.
const PLACES: usize = 64;
const LEFT_TO_OTHERS: usize = 16;

impl InFlight {
    /// Room for so many.
    pub(crate) fn at_most(requests: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(requests)),
            shares: Arc::new(CallerTable::new(MOST_CALLERS)),
            most_of_one: requests - requests / PLACES * LEFT_TO_OTHERS,
        }
    }

    fn take(&self, caller: Caller<'_>) -> Option<Place> {
        let slot = Slot {
            caller,
            group: None,
        };
        let share = Share(self.shares.at(&slot, AtomicUsize::default));
        // Given back with what is made of it here, where there is none left.
        let had = share.0.fetch_add(1, Ordering::Relaxed);
        if had >= self.most_of_one {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place {
            _share: share,
            _place: place,
        })
    }
}

/// A request's place, until it is dropped.
pub(crate) struct Place {
    _share: Share,
    _place: OwnedSemaphorePermit,
}

/// One of the places that a caller has.
struct Share(Arc<AtomicUsize>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Around for InFlight {
    type Passage = Place;

    fn enter(&self, request: &mut Request) -> ControlFlow<Response, Place> {
        match self.take(Caller::of(request)) {
            Some(place) => ControlFlow::Continue(place),
            None => ControlFlow::Break(away(Dependency::Load)),
        }
    }
}

/// Answers in the time allowed, one way or the other.
#[derive(Clone, Copy)]
pub(crate) struct InTime(pub(crate) Duration);

impl<S> Layer<S> for InTime {
    type Service = TimedService<S>;

    fn layer(&self, inner: S) -> TimedService<S> {
        TimedService {
            allowed: self.0,
            inner,
        }
    }
}

/// A service that answers in time.
#[derive(Clone)]
pub(crate) struct TimedService<S> {
    allowed: Duration,
    inner: S,
}

impl<S> Service<Request> for TimedService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Answering {
        let answering = tokio::time::timeout(self.allowed, self.inner.call(request));
        Box::pin(async move {
            answering
                .await
                .unwrap_or_else(|_| Ok(away(Dependency::Deadline)))
        })
    }
}

fn away(dependency: Dependency) -> Response {
    ApiError::from(KmsError::DependencyUnavailable {
        dependency,
        source: None,
    })
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u8) -> Caller<'static> {
        Caller::of_address([192, 0, 2, number].into())
    }

    fn taken(room: &InFlight, caller: Caller<'_>) -> Vec<Place> {
        std::iter::from_fn(|| room.take(caller)).collect()
    }

    #[test]
    fn one_caller_leaves_others_a_quarter_of_a_large_room() {
        for (requests, one, another) in [(64, 48, 16), (100, 84, 16), (1024, 768, 256)] {
            let room = InFlight::at_most(requests);
            let had = taken(&room, caller(1));
            let rest = taken(&room, caller(2));
            assert_eq!((had.len(), rest.len()), (one, another));
            assert!(room.take(caller(3)).is_none(), "full is full");
            drop(had);
            assert_eq!(taken(&room, caller(3)).len(), one);
        }
    }

    #[test]
    fn a_refusal_takes_nothing_and_what_is_given_back_is_there_again() {
        let room = InFlight::at_most(64);
        let mut had = taken(&room, caller(1));
        for _ in 0..100 {
            assert!(room.take(caller(1)).is_none());
        }
        had.pop();
        assert_eq!(taken(&room, caller(1)).len(), 1);
    }

    #[test]
    fn a_small_room_may_be_one_callers() {
        for requests in [1, 2, 63] {
            let room = InFlight::at_most(requests);
            let had = taken(&room, caller(1));
            assert_eq!(had.len(), requests);
            assert!(room.take(caller(2)).is_none());
        }
    }
}
