//! Connecting to the token: module, token, login. One connection is in force at a
//! time; a lost one is dropped, and whoever works next makes another, not too often.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::fault::{CallFault, TokenError};
use super::library::Library;
use super::mechanisms::Abilities;
use super::session::{Generation, TokenSession};
use super::token::{self, TokenName};
use crate::domain::secret::SecretBytes;

/// How long nobody tries again after a connection could not be made.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How to reach the token, and the connection there is.
pub(super) struct Connector {
    module: PathBuf,
    name: TokenName,
    current: ArcSwapOption<Generation>,
    /// What the token could do when it was last connected. A connection that was lost
    /// a moment ago does not change that.
    abilities: ArcSwapOption<Abilities>,
    attempts: Mutex<Attempts>,
    /// A PIN for the next attempt. Apart from the attempts, whose lock is held for as
    /// long as one takes.
    renewed_pin: Mutex<Option<Arc<SecretBytes>>>,
}

struct Attempts {
    pin: Arc<SecretBytes>,
    /// Why the token did not take the PIN. It is not asked again with the same one:
    /// tokens count, and lock.
    pin_refused: Option<String>,
    not_before: Instant,
    last_failure: String,
    /// The initialization under which the module did not find its token.
    initialize_after: Option<u64>,
    /// The serial of the token that was connected first.
    serial: Option<String>,
    number: u64,
}

impl Connector {
    pub(super) fn new(module: PathBuf, name: TokenName, pin: Arc<SecretBytes>) -> Self {
        Self {
            module,
            name,
            current: ArcSwapOption::empty(),
            abilities: ArcSwapOption::empty(),
            attempts: Mutex::new(Attempts {
                pin,
                pin_refused: None,
                not_before: Instant::now(),
                last_failure: "no connection was tried yet".to_owned(),
                initialize_after: None,
                serial: None,
                number: 0,
            }),
            renewed_pin: Mutex::default(),
        }
    }

    /// The connection in force.
    pub(super) fn current(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    /// What the token can do; `None` before it was connected for the first time.
    pub(super) fn abilities(&self) -> Option<Arc<Abilities>> {
        self.abilities.load_full()
    }

    /// A session under the connection in force, which is made where there is none.
    ///
    /// # Errors
    /// [`CallFault::TokenAway`], at once where another attempt was just made;
    /// [`CallFault::PinRefused`].
    pub(super) fn session(&self) -> Result<TokenSession, CallFault> {
        if let Some(generation) = self.current() {
            match self.open(&generation) {
                // There was nothing but the login to lose.
                Err(CallFault::SessionLost(_)) => {}
                opened => return opened,
            }
        }
        let mut attempts = self.lock();
        // Somebody may have connected while this one waited.
        if let Some(generation) = self.current() {
            drop(attempts);
            return self.open(&generation);
        }
        if let Some(pin) = self.renewed_pin().take() {
            attempts.pin = pin;
            attempts.pin_refused = None;
            attempts.not_before = Instant::now();
        }
        if let Some(why) = &attempts.pin_refused {
            return Err(CallFault::TokenAway(TokenError::Away(why.clone())));
        }
        if Instant::now() < attempts.not_before {
            let why = attempts.last_failure.clone();
            return Err(CallFault::TokenAway(TokenError::Away(why)));
        }
        let connected = self.connect(&mut attempts);
        match &connected {
            Ok(session) => {
                let token = &session.generation.token;
                tracing::info!(
                    label = token.label,
                    serial = token.serial,
                    "token connected"
                );
                let abilities = Arc::new(session.generation.abilities);
                self.abilities.store(Some(abilities));
                self.current.store(Some(Arc::clone(&session.generation)));
            }
            Err(fault) => attempts.failed(fault),
        }
        connected
    }

    fn open(&self, generation: &Arc<Generation>) -> Result<TokenSession, CallFault> {
        let opened = TokenSession::open(generation);
        if let Err(fault @ (CallFault::SessionLost(_) | CallFault::TokenAway(_))) = &opened {
            self.lost(generation, fault);
        }
        opened
    }

    /// Drops a connection that is lost, if it is still in force.
    pub(super) fn lost(&self, generation: &Generation, why: &CallFault) {
        let _attempts = self.lock();
        let is_in_force = self
            .current()
            .is_some_and(|current| current.number == generation.number);
        if is_in_force {
            tracing::warn!(reason = ?why, "the connection to the token is lost");
            generation.end();
            self.current.store(None);
        }
    }

    /// Whether the token can be asked for a connection now, and there is none.
    pub(super) fn may_try(&self) -> bool {
        if self.current.load().is_some() {
            return false;
        }
        // Whoever holds this is trying already.
        self.attempts.try_lock().is_ok_and(|attempts| {
            self.renewed_pin().is_some()
                || attempts.pin_refused.is_none() && Instant::now() >= attempts.not_before
        })
    }

    /// Lets the token be asked again, with this PIN. Waits for no attempt.
    pub(super) fn renew_pin(&self, pin: Arc<SecretBytes>) {
        *self.renewed_pin() = Some(pin);
    }

    fn renewed_pin(&self) -> MutexGuard<'_, Option<Arc<SecretBytes>>> {
        // It is there or not, whoever panicked elsewhere.
        self.renewed_pin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, attempts: &mut Attempts) -> Result<TokenSession, CallFault> {
        let library = Library::load(&self.module).map_err(CallFault::TokenAway)?;
        if let Some(epoch) = attempts.initialize_after.take() {
            let again = library.initialize_again(epoch);
            if let Err(error) = again {
                attempts.initialize_after = Some(epoch);
                return Err(CallFault::TokenAway(error));
            }
        }
        let visit = library.enter();
        // Unless it comes to a connection.
        attempts.initialize_after = Some(visit.epoch);
        let token = token::find(visit.pkcs11, &self.name)?;
        if let Some(serial) = attempts
            .serial
            .as_ref()
            .filter(|serial| **serial != token.serial)
        {
            return Err(CallFault::TokenAway(TokenError::Away(format!(
                "the token labelled {:?} had the serial {serial:?} and now has {:?}: it is another",
                token.label, token.serial
            ))));
        }
        let abilities = Abilities::of(&visit.pkcs11.get_mechanism_list(token.slot)?);
        let session = log_in(visit.pkcs11, token.slot, &attempts.pin)?;
        attempts.initialize_after = None;
        attempts.serial = Some(token.serial.clone());
        attempts.number += 1;
        let epoch = visit.epoch;
        drop(visit);
        let number = attempts.number;
        let by_serial = self.name.serial.is_some();
        let generation = Generation::new(library, epoch, number, token, abilities, by_serial);
        Ok(TokenSession::of(session, Arc::new(generation)))
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        // Every field is whole after every step, whoever panicked elsewhere.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempts {
    fn failed(&mut self, fault: &CallFault) {
        let why = match fault {
            CallFault::PinRefused(error) => {
                let why = format!(
                    "the token does not take the PIN ({error}); it is not tried again before the \
                     configuration is reloaded, since tokens lock"
                );
                tracing::error!("{why}");
                self.pin_refused = Some(why.clone());
                // A refused PIN is the token's word: the module has found it.
                self.initialize_after = None;
                why
            }
            CallFault::SessionLost(error)
            | CallFault::TokenAway(error)
            | CallFault::Unclear(error)
            | CallFault::StaleHandle(error) => error.to_string(),
            CallFault::Answered(error) => error.to_string(),
        };
        if why != self.last_failure {
            tracing::warn!(reason = why, "the token cannot be connected");
        }
        self.last_failure = why;
        self.not_before = Instant::now() + TRY_AGAIN_AFTER;
    }
}

/// Opens the first session and logs in with it, which logs in every other session of
/// this process too (PKCS#11 v3.1 §5.6.8).
pub(super) fn log_in(pkcs11: &Pkcs11, slot: Slot, pin: &SecretBytes) -> Result<Session, CallFault> {
    let session = pkcs11.open_rw_session_no_drop(slot)?;
    let text = std::str::from_utf8(pin.expose())
        .map_err(|_| CallFault::PinRefused(TokenError::Away("it is no UTF-8 text".to_owned())))?;
    // Erased when it is dropped.
    let pin = AuthPin::new(text.into());
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => {
            let _ = session.close();
            Err(error.into())
        }
    }
}
