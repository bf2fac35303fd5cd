//! The threads that call the token, each with a session of its own, and the keeper
//! that replaces those that do not come back from a call.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::connection::Connector;
use super::fault::{CallFault, TokenError};
use super::queue::{CallQueue, NotQueued, Waiting};
use super::session::TokenSession;
use crate::adapters::backlog::{self, Backlog};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::hsm::HsmError;

/// Calls that may wait for a session.
const LONGEST_QUEUE: usize = 1_024;

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a connection may take to come about.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// How long the last calls may take when the service stops.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// Whether a call that came to a fault may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changes nothing, or comes to the same when it is done twice.
    None,
    /// It makes something: only again where the token says that nothing was done.
    Makes,
}

/// The threads, while anybody holds this.
pub(super) struct Workers {
    office: Arc<Office>,
}

/// What the threads share.
struct Office {
    connector: Connector,
    queue: CallQueue<dyn TokenCall>,
    backlog: Backlog,
    clock: Arc<dyn Clock>,
    /// How many sessions the configuration asks for.
    wanted: usize,
    posts: Mutex<Posts>,
    closing: Condvar,
}

#[derive(Default)]
struct Posts {
    /// Threads that serve, and by when the call that each is in should have ended.
    serving: HashMap<u64, Option<Instant>>,
    /// Threads that were replaced and have not come back from their call.
    retired: usize,
    hired: u64,
    closed: bool,
    last_error: Option<(Timestamp, String)>,
}

/// How the threads stand.
pub(super) struct Standing {
    pub(super) busy: usize,
    pub(super) sessions: usize,
    pub(super) hanging: usize,
    pub(super) waiting: usize,
    pub(super) last_error: Option<(Timestamp, String)>,
}

impl Workers {
    /// Starts the keeper and the first thread; the others come with the first
    /// connection, as many as the token has sessions for. What waits for a session is
    /// said in `backlog`.
    pub(super) fn start(
        connector: Connector,
        wanted: usize,
        backlog: Backlog,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let office = Arc::new(Office {
            connector,
            queue: CallQueue::new(LONGEST_QUEUE),
            backlog,
            clock,
            wanted,
            posts: Mutex::default(),
            closing: Condvar::new(),
        });
        let keeper = Arc::clone(&office);
        spawn("pkcs11-keeper", move || keeper.keep());
        Self { office }
    }

    /// The connector.
    pub(super) fn connector(&self) -> &Connector {
        &self.office.connector
    }

    /// Has a call made in some session, and waits for its answer.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the queue is full, when the token is away, and
    /// when the call takes longer than `limit`.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        effect: Effect,
        limit: Duration,
        work: impl Fn(&TokenSession) -> Result<T, CallFault> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            work,
            effect,
            limit,
            expires_at: Instant::now() + limit,
            waiting: Some(self.office.backlog.wait()),
            done: None,
            answer,
        };
        self.office
            .queue
            .push(Box::new(call))
            .map_err(|not_queued| match not_queued {
                NotQueued::Full => unavailable(TokenError::QueueFull),
                NotQueued::Closed => unavailable(TokenError::Closed),
            })?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome,
            // The queue let go of it, or the thread that had it died.
            Ok(Err(_)) => Err(unavailable(TokenError::Closed)),
            Err(_) => {
                self.office.note_error(&TokenError::Late);
                Err(unavailable(TokenError::Late))
            }
        }
    }

    /// How the threads stand.
    pub(super) fn standing(&self) -> Standing {
        let posts = self.office.lock();
        Standing {
            busy: posts.serving.values().flatten().count(),
            sessions: posts.serving.len(),
            hanging: posts.retired,
            waiting: self.office.queue.len(),
            last_error: posts.last_error.clone(),
        }
    }
}

impl Drop for Workers {
    /// Waits for the threads to close their sessions: a process must not end, and take
    /// the module down, while one of them is inside it. Those that hang are not waited
    /// for longer than a moment.
    fn drop(&mut self) {
        let office = &self.office;
        office.queue.close();
        let mut posts = office.lock();
        posts.closed = true;
        office.closing.notify_all();
        let until = Instant::now() + LAST_CALLS;
        while !posts.serving.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("a call to the token does not come back, and is left behind");
                return;
            }
            posts = office
                .closing
                .wait_timeout(posts, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Office {
    /// Replaces threads that hang, and looks for a token that is away.
    fn keep(self: &Arc<Self>) {
        let mut posts = self.lock();
        while !posts.closed {
            let now = Instant::now();
            let hanging: Vec<u64> = posts
                .serving
                .iter()
                .filter(|(_, due)| due.is_some_and(|due| due < now))
                .map(|(post, _)| *post)
                .collect();
            for post in hanging {
                posts.serving.remove(&post);
                posts.retired += 1;
                tracing::error!(
                    hanging = posts.retired,
                    "a call to the token does not come back; its session is given up"
                );
            }
            // As many again as serve may hang before no more are replaced.
            let wanted = self.wanted_now();
            while posts.serving.len() < wanted && posts.retired + posts.serving.len() < 2 * wanted {
                posts.hired += 1;
                let post = posts.hired;
                posts.serving.insert(post, None);
                let office = Arc::clone(self);
                if !spawn("pkcs11", move || office.serve(post)) {
                    posts.serving.remove(&post);
                    break;
                }
            }
            if self.queue.len() == 0 && self.connector.may_try() {
                self.look_for_token();
            }
            posts = self
                .closing
                .wait_timeout(posts, LOOK_EVERY)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Connecting is a call like any other: it may hang.
    fn look_for_token(&self) {
        let look = Look {
            expires_at: Instant::now() + LOOK_FOR,
        };
        // A queue that is full has others who will look.
        let _ = self.queue.push(Box::new(look));
    }

    fn wanted_now(&self) -> usize {
        match self.connector.current() {
            None => 1,
            Some(generation) => generation
                .token
                .most_sessions
                .and_then(|most| usize::try_from(most).ok())
                .map_or(self.wanted, |most| self.wanted.min(most.max(1))),
        }
    }

    /// Serves until the queue is closed, or until this thread was replaced.
    fn serve(&self, post: u64) {
        let mut session = None;
        while let Some(mut call) = self.queue.pop() {
            self.lock()
                .serving
                .insert(post, Some(Instant::now() + call.limit()));
            let outcome = self.make(&mut session, &mut *call);
            let is_still_serving = {
                let mut posts = self.lock();
                match posts.serving.get_mut(&post) {
                    Some(due) => {
                        *due = None;
                        true
                    }
                    None => {
                        posts.retired -= 1;
                        false
                    }
                }
            };
            call.answer(outcome);
            if !is_still_serving {
                return;
            }
        }
        drop(session);
        self.lock().serving.remove(&post);
        self.closing.notify_all();
    }

    /// Makes a call, and once more after a fault that another session may not have.
    fn make(
        &self,
        session: &mut Option<TokenSession>,
        call: &mut dyn TokenCall,
    ) -> Result<(), HsmError> {
        let mut is_first = true;
        loop {
            let fault = match self.attempt(session, call) {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            let has_had_no_effect = match &fault {
                CallFault::SessionLost(_) => true,
                CallFault::TokenAway(_) | CallFault::Unclear(_) => call.effect() == Effect::None,
                CallFault::StaleHandle(_) | CallFault::PinRefused(_) | CallFault::Answered(_) => {
                    false
                }
            };
            if let CallFault::SessionLost(error)
            | CallFault::TokenAway(error)
            | CallFault::Unclear(error)
            | CallFault::StaleHandle(error)
            | CallFault::PinRefused(error) = &fault
            {
                self.note_error(error);
            }
            if !(is_first && has_had_no_effect) {
                return Err(fault.into_answer());
            }
            is_first = false;
        }
    }

    fn attempt(
        &self,
        session: &mut Option<TokenSession>,
        call: &mut dyn TokenCall,
    ) -> Result<(), CallFault> {
        let number = self.connector.current().map(|current| current.number);
        let open = match session.take() {
            Some(open) if Some(open.generation.number) == number => open,
            outdated => {
                drop(outdated);
                self.connector.session()?
            }
        };
        open.due.set(call.expires_at());
        let attempted = call.attempt(&open);
        match &attempted {
            Ok(()) | Err(CallFault::Answered(_) | CallFault::StaleHandle(_)) => {
                *session = Some(open);
            }
            // Whatever it is, it may be this session's own: another is opened.
            Err(CallFault::Unclear(_)) => {}
            Err(lost) => self.connector.lost(&open.generation, lost),
        }
        attempted
    }

    fn note_error(&self, error: &TokenError) {
        let now = self.clock.now();
        self.lock().last_error = Some((now, error.to_string()));
    }

    fn lock(&self) -> MutexGuard<'_, Posts> {
        // Every field is whole after every step, whoever panicked elsewhere.
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    if let Err(error) = &spawned {
        tracing::error!(%error, "no thread for the token's calls");
    }
    spawned.is_ok()
}

fn unavailable(error: TokenError) -> HsmError {
    HsmError::Unavailable(Box::new(error))
}

/// A call that waits for a session, or is being made.
trait TokenCall: Waiting {
    /// Makes it, and keeps what comes of it.
    fn attempt(&mut self, session: &TokenSession) -> Result<(), CallFault>;

    /// Answers it.
    fn answer(self: Box<Self>, outcome: Result<(), HsmError>);

    fn effect(&self) -> Effect;

    fn limit(&self) -> Duration;
}

struct Call<W, T> {
    work: W,
    effect: Effect,
    limit: Duration,
    expires_at: Instant,
    /// Until a session has it.
    waiting: Option<backlog::Waiting>,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, HsmError>>,
}

impl<W: Send, T: Send> Waiting for Call<W, T> {
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

impl<W, T> TokenCall for Call<W, T>
where
    W: Fn(&TokenSession) -> Result<T, CallFault> + Send,
    T: Send,
{
    fn attempt(&mut self, session: &TokenSession) -> Result<(), CallFault> {
        self.waiting = None;
        self.done = Some((self.work)(session)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), HsmError>) {
        let Self { done, answer, .. } = *self;
        let done = match (outcome, done) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(done)) => Ok(done),
            (Ok(()), None) => Err(unavailable(TokenError::Closed)),
        };
        // Whoever no longer waits needs no answer.
        let _ = answer.send(done);
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn limit(&self) -> Duration {
        self.limit
    }
}

/// A call for the connection's sake.
struct Look {
    expires_at: Instant,
}

impl Waiting for Look {
    fn is_wanted(&self) -> bool {
        true
    }

    fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

impl TokenCall for Look {
    fn attempt(&mut self, _session: &TokenSession) -> Result<(), CallFault> {
        Ok(())
    }

    fn answer(self: Box<Self>, _outcome: Result<(), HsmError>) {}

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn limit(&self) -> Duration {
        LOOK_FOR
    }
}
