//! One connection to the token, and the sessions opened under it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, SessionState};

use super::fault::{CallFault, TokenError};
use super::handle::TokenHandle;
use super::library::{Library, Visit};
use super::mechanisms::Abilities;
use super::operations::TestKey;
use super::quirks;
use super::templates;
use super::token::FoundToken;
use crate::adapters::cache::CoherentCache;
use crate::adapters::hsm::public_key::PublicKey;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyId;
use crate::ports::hsm::HsmFault;

/// Keys whose objects are remembered: about 200 bytes each.
const REMEMBERED_OBJECTS: usize = 100_000;

/// How long calls may take where nobody says.
const UNTOLD: Duration = Duration::from_secs(60);

/// A connection: from a login until the token is lost. What was found under it, its
/// sessions and the handles of its objects, means nothing under the next one.
pub(super) struct Generation {
    pub(super) library: Arc<Library>,
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) token: FoundToken,
    pub(super) abilities: Abilities,
    /// Whether the configuration names the token's serial, and not its label alone.
    pub(super) is_called_by_serial: bool,
    found: CoherentCache<KeyId, Arc<FoundKey>>,
    is_over: AtomicBool,
}

/// A key's object, where it was found.
struct FoundKey {
    object: ObjectHandle,
    label: Vec<u8>,
    /// Whether the object has shown under this connection that it is the key.
    is_proven: AtomicBool,
}

impl Generation {
    pub(super) fn new(
        library: Arc<Library>,
        epoch: u64,
        number: u64,
        token: FoundToken,
        abilities: Abilities,
        is_called_by_serial: bool,
    ) -> Self {
        Self {
            library,
            epoch,
            number,
            token,
            abilities,
            is_called_by_serial,
            found: CoherentCache::new(REMEMBERED_OBJECTS),
            is_over: AtomicBool::new(false),
        }
    }

    /// Ends it, before another login is tried.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Why the token here is not the key's. A key is used in the token that made it, or in
    /// one that the operator calls by its serial: a copy of it, which the key's proof has
    /// to bear out.
    pub(super) fn is_elsewhere(&self, handle: &TokenHandle) -> Option<String> {
        let connected = &self.token.serial;
        if *connected == handle.serial || self.is_called_by_serial {
            return None;
        }
        Some(format!(
            "the key is in the token with serial {:?}, and the token here has {connected:?}; if \
             this one is a copy of that, set hsm.pkcs11.token_serial to its serial",
            handle.serial
        ))
    }

    /// Forgets where a key was found.
    pub(super) fn forget(&self, key_id: KeyId) {
        self.found.invalidate(&key_id);
    }
}

/// Which key is meant, and what it must be.
pub(super) struct WantedKey {
    pub(super) handle: TokenHandle,
    pub(super) key_type: KeyType,
    /// The label that the objects of its scope bear.
    pub(super) label: String,
    /// What its signatures are checked with.
    pub(super) public_key: Option<Arc<PublicKey>>,
}

/// One session that is logged in. It stays with its thread.
pub(super) struct TokenSession {
    session: Option<Session>,
    pub(super) generation: Arc<Generation>,
    pub(super) test_key: RefCell<Option<TestKey>>,
    /// By when the call that is being made should have ended.
    pub(super) due: Cell<Instant>,
}

impl TokenSession {
    /// Opens a session under a connection.
    ///
    /// # Errors
    /// As the token's.
    pub(super) fn open(generation: &Arc<Generation>) -> Result<Self, CallFault> {
        let visit = generation
            .library
            .enter_again(generation.epoch)
            .ok_or_else(gone)?;
        let session = visit
            .pkcs11
            .open_rw_session_no_drop(generation.token.slot)?;
        let opened = Self::of(session, Arc::clone(generation));
        opened.require_login()?;
        drop(visit);
        Ok(opened)
    }

    /// A session that is open.
    pub(super) fn of(session: Session, generation: Arc<Generation>) -> Self {
        Self {
            session: Some(session),
            generation,
            test_key: RefCell::new(None),
            due: Cell::new(Instant::now() + UNTOLD),
        }
    }

    /// The login ends with the last session (PKCS#11 v3.1 §5.6.8), and whenever
    /// anybody in this process logs out. Without it secrets are not refused but
    /// simply not found: that they are not there means nothing before this was asked.
    /// A login that came back meanwhile is another connection's, which began after
    /// this one was ended.
    ///
    /// # Errors
    /// [`CallFault::SessionLost`] without a login; as the token's.
    pub(super) fn require_login(&self) -> Result<(), CallFault> {
        let (_visit, session) = self.enter()?;
        let state = session.get_session_info()?.session_state();
        match self.generation.is_over.load(Ordering::SeqCst) {
            false if state == SessionState::RwUser => Ok(()),
            _ => Err(CallFault::SessionLost(TokenError::Away(
                "the session is no longer logged in".to_owned(),
            ))),
        }
    }

    /// Enters the module with this session.
    ///
    /// # Errors
    /// [`CallFault::SessionLost`] when its connection is over.
    pub(super) fn enter(&self) -> Result<(Visit<'_>, &Session), CallFault> {
        let generation = &self.generation;
        let visit = generation.library.enter_again(generation.epoch);
        visit.zip(self.session.as_ref()).ok_or_else(gone)
    }

    /// Works with a key's object: finds it, lets it prove under each connection
    /// that it is the key, and looks for it again where it has moved.
    ///
    /// # Errors
    /// [`HsmFault::Missing`], [`HsmFault::ForeignObject`], [`HsmFault::ProofFailed`];
    /// as the token's.
    pub(super) fn with_key<T>(
        &self,
        session: &Session,
        key: &WantedKey,
        prove: impl Fn(ObjectHandle) -> Result<(), CallFault>,
        work: impl Fn(ObjectHandle, bool) -> Result<T, CallFault>,
    ) -> Result<T, CallFault> {
        self.require_own_token(&key.handle)?;
        let key_id = key.handle.key_id;
        let attempt = || {
            let found = self.find(session, key)?;
            if found.label != key.label.as_bytes() {
                return Err(HsmFault::ForeignObject.into());
            }
            let is_proven = found.is_proven.load(Ordering::Relaxed);
            if !is_proven {
                prove(found.object)?;
            }
            let done = work(found.object, is_proven)?;
            found.is_proven.store(true, Ordering::Relaxed);
            Ok(done)
        };
        match attempt() {
            Err(CallFault::StaleHandle(_)) => {
                self.generation.forget(key_id);
                attempt()
            }
            outcome => outcome,
        }
    }

    /// Whether the key's token is the one that is connected.
    ///
    /// # Errors
    /// [`CallFault::Answered`] with where it is.
    pub(super) fn require_own_token(&self, handle: &TokenHandle) -> Result<(), CallFault> {
        match self.generation.is_elsewhere(handle) {
            None => Ok(()),
            Some(why) => Err(CallFault::Answered(
                CallFault::TokenAway(TokenError::Away(why)).into_answer(),
            )),
        }
    }

    fn find(&self, session: &Session, key: &WantedKey) -> Result<Arc<FoundKey>, CallFault> {
        let key_id = key.handle.key_id;
        let found = &self.generation.found;
        if let Some(known) = found.get(&key_id) {
            return Ok(known);
        }
        let ticket = found.begin_fill();
        let _turn = quirks::turn_to_look(&self.generation.library, self.due.get())?;
        let template = templates::find_secret(key_id, key.key_type);
        let objects = session.find_objects(&template)?;
        let object = match objects[..] {
            [object] => object,
            [] => {
                self.require_login()?;
                return Err(HsmFault::Missing.into());
            }
            _ => {
                tracing::error!(%key_id, objects = objects.len(), "one key id, several objects");
                return Err(HsmFault::Ambiguous.into());
            }
        };
        let key = Arc::new(FoundKey {
            object,
            label: templates::read_label(session, object)?,
            is_proven: AtomicBool::new(false),
        });
        found.fill(ticket, key_id, Arc::clone(&key));
        Ok(key)
    }
}

impl Drop for TokenSession {
    fn drop(&mut self) {
        // Only under its own connection: later the handle may be somebody else's.
        let generation = &self.generation;
        if let Some(session) = self.session.take()
            && let Some(_visit) = generation.library.enter_again(generation.epoch)
        {
            // A session that is gone already needs no closing.
            let _ = session.close();
        }
    }
}

fn gone() -> CallFault {
    CallFault::SessionLost(TokenError::Away(
        "the connection to the token is over".to_owned(),
    ))
}
