//! Turns: one writes or several look, in the order in which they came. The standard
//! library's locks know neither deadlines nor an order, and with neither whoever
//! looks for a key can wait behind one new RSA key after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Look,
    Write,
}

/// The turns of one module.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    /// How long a turn may take, though its own call is late already.
    patience: Duration,
}

#[derive(Default)]
struct State {
    tickets: u64,
    waiting: VecDeque<u64>,
    /// Whose turn it is, and by when each should be done.
    holders: HashMap<u64, (Purpose, Instant)>,
}

/// A turn, until this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

/// It did not come to a turn in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoTurn;

impl Turns {
    /// Turns that may take this long at least.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            patience,
        }
    }

    /// Waits for the turn to look, beside others who do.
    ///
    /// # Errors
    /// [`NoTurn`] at `due`, and as soon as somebody does not come back from theirs.
    pub(super) fn look(&self, due: Instant) -> Result<Turn<'_>, NoTurn> {
        self.take(Purpose::Look, due)
    }

    /// Waits for the turn to write, alone.
    ///
    /// # Errors
    /// As for [`Turns::look`].
    pub(super) fn write(&self, due: Instant) -> Result<Turn<'_>, NoTurn> {
        self.take(Purpose::Write, due)
    }

    fn take(&self, purpose: Purpose, due: Instant) -> Result<Turn<'_>, NoTurn> {
        let mut state = self.lock();
        state.tickets += 1;
        let ticket = state.tickets;
        state.waiting.push_back(ticket);
        loop {
            let is_next = state.waiting.front() == Some(&ticket);
            if is_next && state.admits(purpose) {
                state.waiting.pop_front();
                let done_by = due.max(Instant::now() + self.patience);
                state.holders.insert(ticket, (purpose, done_by));
                // The next one may look too.
                self.changed.notify_all();
                return Ok(Turn {
                    turns: self,
                    ticket,
                });
            }
            let now = Instant::now();
            let until = state.give_up_at(purpose, due);
            if until <= now {
                state.waiting.retain(|waiting| *waiting != ticket);
                self.changed.notify_all();
                return Err(NoTurn);
            }
            state = self
                .changed
                .wait_timeout(state, until - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is whole after every step, whoever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admits(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Look => !self.is_written(),
            Purpose::Write => self.holders.is_empty(),
        }
    }

    fn is_written(&self) -> bool {
        self.holders
            .values()
            .any(|(purpose, _)| *purpose == Purpose::Write)
    }

    /// Whoever holds a turn past its own deadline hangs: waiting for that would cost
    /// everybody a session.
    fn give_up_at(&self, purpose: Purpose, due: Instant) -> Instant {
        self.holders
            .values()
            .filter(|(held_for, _)| purpose == Purpose::Write || *held_for == Purpose::Write)
            .map(|(_, done_by)| *done_by)
            .min()
            .map_or(due, |done_by| due.min(done_by))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().holders.remove(&self.ticket);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn several_look_at_once_and_one_writes_alone() {
        let turns = Turns::new(Duration::ZERO);
        let looking = [turns.look(in_a_minute()), turns.look(in_a_minute())];
        assert!(looking.iter().all(Result::is_ok));
        assert_eq!(turns.write(now()).err(), Some(NoTurn));
        drop(looking);
        let writing = turns.write(in_a_minute());
        assert!(writing.is_ok());
        assert_eq!(turns.look(now()).err(), Some(NoTurn));
        assert_eq!(turns.write(now()).err(), Some(NoTurn));
        drop(writing);
        assert!(turns.look(now()).is_ok());
    }

    #[test]
    fn whoever_came_first_goes_first() {
        let turns = Turns::new(Duration::ZERO);
        let order = Mutex::new(Vec::new());
        let first = turns.write(in_a_minute()).expect("nobody is there");
        thread::scope(|scope| {
            for number in 1..=4 {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let turn = match number % 2 {
                        0 => turns.look(in_a_minute()),
                        _ => turns.write(in_a_minute()),
                    };
                    order.lock().expect("no panic").push(number);
                    drop(turn.expect("in time"));
                });
                while turns.lock().waiting.len() < number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(order.into_inner().expect("no panic"), [1, 2, 3, 4]);
    }

    #[test]
    fn nobody_waits_for_one_that_hangs() {
        let turns = Turns::new(Duration::ZERO);
        let hanging = turns.look(now()).expect("nobody is there");
        assert_eq!(turns.write(in_a_minute()).err(), Some(NoTurn));
        assert!(turns.look(in_a_minute()).is_ok());
        drop(hanging);
        let hanging = turns.write(now()).expect("nobody is there");
        assert_eq!(turns.look(in_a_minute()).err(), Some(NoTurn));
        drop(hanging);
        assert!(turns.write(in_a_minute()).is_ok());
    }
}
