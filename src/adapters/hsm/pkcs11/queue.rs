//! Calls that wait for a session: bounded, and none longer than its deadline.
//! Knows nothing of tokens.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What can wait here.
pub(super) trait Waiting: Send {
    /// Whether somebody still waits for its answer.
    fn is_wanted(&self) -> bool;

    /// When nobody waits for it any longer.
    fn expires_at(&self) -> Instant;
}

/// The queue.
pub(super) struct CallQueue<C: ?Sized> {
    state: Mutex<State<C>>,
    woken: Condvar,
    most: usize,
}

struct State<C: ?Sized> {
    waiting: VecDeque<Box<C>>,
    closed: bool,
}

/// Why a call was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotQueued {
    Full,
    Closed,
}

impl<C: Waiting + ?Sized> CallQueue<C> {
    /// A queue in which at most so many wait.
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
            }),
            woken: Condvar::new(),
            most,
        }
    }

    /// Appends a call.
    ///
    /// # Errors
    /// [`NotQueued`].
    pub(super) fn push(&self, call: Box<C>) -> Result<(), NotQueued> {
        let mut state = self.lock();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        if state.waiting.len() >= self.most {
            // Whom nobody waits for keeps nobody out.
            let now = Instant::now();
            state.waiting.retain(|waiting| is_alive(&**waiting, now));
            if state.waiting.len() >= self.most {
                return Err(NotQueued::Full);
            }
        }
        state.waiting.push_back(call);
        drop(state);
        self.woken.notify_one();
        Ok(())
    }

    /// Waits for the next call that somebody waits for; `None` once the queue is
    /// closed.
    pub(super) fn pop(&self) -> Option<Box<C>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            while let Some(call) = state.waiting.pop_front() {
                if is_alive(&*call, now) {
                    return Some(call);
                }
            }
            state = self
                .woken
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Lets nobody wait any longer.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.woken.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // A list of calls is whole, whoever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_alive<C: Waiting + ?Sized>(call: &C, now: Instant) -> bool {
    call.is_wanted() && now < call.expires_at()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    struct Call {
        name: u32,
        wanted: bool,
        expires_at: Instant,
    }

    impl Waiting for Call {
        fn is_wanted(&self) -> bool {
            self.wanted
        }

        fn expires_at(&self) -> Instant {
            self.expires_at
        }
    }

    fn call(name: u32) -> Box<Call> {
        Box::new(Call {
            name,
            wanted: true,
            expires_at: Instant::now() + Duration::from_secs(60),
        })
    }

    #[test]
    fn calls_come_out_in_order_without_those_that_nobody_waits_for() {
        let queue = CallQueue::new(10);
        let mut abandoned = call(1);
        abandoned.wanted = false;
        let mut late = call(2);
        late.expires_at = Instant::now();
        for call in [abandoned, late, call(3), call(4)] {
            queue.push(call).expect("there is room");
        }
        assert_eq!(queue.pop().map(|call| call.name), Some(3));
        assert_eq!(queue.pop().map(|call| call.name), Some(4));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_full_queue_takes_no_more_but_abandoned_calls_make_room() {
        let queue = CallQueue::new(2);
        queue.push(call(1)).expect("there is room");
        let mut abandoned = call(2);
        abandoned.wanted = false;
        queue.push(abandoned).expect("there is room");
        queue.push(call(3)).expect("the abandoned one goes");
        assert_eq!(queue.push(call(4)), Err(NotQueued::Full));
    }

    #[test]
    fn a_closed_queue_lets_everybody_go() {
        let queue = Arc::new(CallQueue::<Call>::new(2));
        let waiter = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pop().is_none()
        });
        queue.close();
        assert!(waiter.join().expect("no panic"));
        assert_eq!(queue.push(call(1)), Err(NotQueued::Closed));
    }
}
