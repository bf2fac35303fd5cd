//! A look at a token from outside the service, in words for an operator: what is
//! there, what it can do, whether the PIN opens it, and a round trip of each
//! operation. Leaves nothing behind.

use std::path::Path;
use std::sync::Arc;

use cryptoki::error::Error;

use super::connection::log_in;
use super::fault::{CallFault, TokenError};
use super::handle::TokenHandle;
use super::library::Library;
use super::mechanisms::{Abilities, NEEDS};
use super::session::{Generation, TokenSession, WantedKey};
use super::templates;
use super::token::{self, FoundToken, TokenName};
use crate::adapters::hsm::public_key::PublicKey;
use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::KeyId;
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::HsmFault;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stands in the way of serving.
    pub verdict: Verdict,
    /// What was looked at, and what was found.
    pub text: String,
}

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// To be known: something is not on offer.
    Note,
    /// It has to be mended.
    Bad,
}

/// What to do about it, for the last lines of the report.
const UNREACHED: &str = "the rest cannot be checked before this is mended";

/// Looks at the token, step by step, until one fails that the others stand on.
pub fn look(module: &Path, name: &TokenName, pin: &SecretBytes) -> Vec<Finding> {
    let mut report = Report::default();
    if report.look(module, name, pin).is_none() {
        report.note(UNREACHED);
    }
    report.findings
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn look(&mut self, module: &Path, name: &TokenName, pin: &SecretBytes) -> Option<()> {
        let library = self.found(Library::load(module))?;
        let visit = library.enter();
        let info = self.found(visit.pkcs11.get_library_info())?;
        self.good(format!(
            "module {}: {} {} by {}, PKCS#11 {}.{}",
            module.display(),
            info.library_description().trim(),
            info.library_version(),
            info.manufacturer_id().trim(),
            info.cryptoki_version().major(),
            info.cryptoki_version().minor(),
        ));
        for token in self.found(token::initialized(visit.pkcs11))? {
            self.note(&format!(
                "slot {}: token {:?}, serial {:?}",
                token.slot, token.label, token.serial
            ));
        }
        let token = self.found(token::find(visit.pkcs11, name))?;
        self.good(chosen(&token));
        let mechanisms = self.found(visit.pkcs11.get_mechanism_list(token.slot))?;
        self.good(format!("{} mechanisms", mechanisms.len()));
        for need in NEEDS {
            let names: Vec<String> = need.any_of.iter().map(ToString::to_string).collect();
            match need
                .any_of
                .iter()
                .find(|wanted| mechanisms.contains(wanted))
            {
                Some(has) => self.good(format!("{}: {has}", need.what)),
                None => self.note(&format!(
                    "{}: not on offer, the token has no {}",
                    need.what,
                    names.join(" and no ")
                )),
            }
        }
        self.note("ChaCha20-Poly1305: never on offer in a token");
        let session = match log_in(visit.pkcs11, token.slot, pin) {
            Ok(session) => session,
            Err(CallFault::PinRefused(error)) => {
                self.bad(format!(
                    "login: the token does not take the PIN ({error}); it was tried once, and \
                     tokens lock after a few: set hsm.pkcs11.pin (HSM_CREDENTIALS) to the user's PIN"
                ));
                return None;
            }
            Err(fault) => {
                self.bad(format!("login: {}", in_words(fault)));
                return None;
            }
        };
        self.good("login: the PIN opens the token".to_owned());
        let epoch = visit.epoch;
        drop(visit);
        let abilities = Abilities::of(&mechanisms);
        let generation = Generation::new(library, epoch, 0, token, abilities, false);
        let logged_in = TokenSession::of(session, Arc::new(generation));
        for key_type in KeyType::ALL {
            self.round_trip(&logged_in.generation, key_type);
        }
        Some(())
    }

    /// Makes a key in the token, uses it each way, and destroys it.
    fn round_trip(&mut self, generation: &Arc<Generation>, key_type: KeyType) {
        let algorithms = generation.abilities.algorithms(key_type);
        if algorithms.is_empty() {
            self.note(&format!(
                "{key_type}: such keys cannot be made in this token"
            ));
            return;
        }
        let key_id = KeyId::generate();
        // Each in a session of its own: what failed may be left half done.
        let session = || TokenSession::open(generation);
        let tried = session().and_then(|session| try_out(&session, key_type, key_id, &algorithms));
        let destroyed = session().and_then(|session| session.destroy(key_id));
        match tried {
            Ok(()) => {
                let names: Vec<&str> = algorithms.iter().map(|one| one.as_str()).collect();
                self.good(format!(
                    "{key_type}: made, used with {}",
                    names.join(" and ")
                ));
            }
            Err(fault) => self.bad(format!("{key_type}: {}", in_words(fault))),
        }
        match destroyed {
            Ok(()) => self.good(format!("{key_type}: destroyed again")),
            Err(fault) => self.bad(format!(
                "{key_type}: the test key {key_id} could not be destroyed ({}); delete the \
                 objects of that id",
                in_words(fault)
            )),
        }
    }

    fn found<T, E: Into<Told>>(&mut self, found: Result<T, E>) -> Option<T> {
        found.map_err(|error| self.bad(error.into().0)).ok()
    }

    fn good(&mut self, text: String) {
        self.add(Verdict::Good, text);
    }

    fn note(&mut self, text: &str) {
        self.add(Verdict::Note, text.to_owned());
    }

    fn bad(&mut self, text: String) {
        self.add(Verdict::Bad, text);
    }

    fn add(&mut self, verdict: Verdict, text: String) {
        self.findings.push(Finding { verdict, text });
    }
}

/// An error in words.
struct Told(String);

impl From<TokenError> for Told {
    fn from(error: TokenError) -> Self {
        Self(error.to_string())
    }
}

impl From<CallFault> for Told {
    fn from(fault: CallFault) -> Self {
        Self(in_words(fault))
    }
}

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self(TokenError::of(error).to_string())
    }
}

fn in_words(fault: CallFault) -> String {
    match fault {
        CallFault::SessionLost(error)
        | CallFault::TokenAway(error)
        | CallFault::Unclear(error)
        | CallFault::StaleHandle(error)
        | CallFault::PinRefused(error) => error.to_string(),
        CallFault::Answered(error) => error.to_string(),
    }
}

fn chosen(token: &FoundToken) -> String {
    let sessions = match token.most_sessions {
        Some(most) => format!("{most} sessions at most"),
        None => "no limit of sessions told".to_owned(),
    };
    format!(
        "chosen: token {:?}, serial {:?}, in slot {}, {sessions}",
        token.label, token.serial, token.slot
    )
}

fn try_out(
    session: &TokenSession,
    key_type: KeyType,
    key_id: KeyId,
    algorithms: &[Algorithm],
) -> Result<(), CallFault> {
    const MESSAGE: &[u8] = b"kms hsm check";
    let scope = Scope {
        tenant_id: "hsm-check"
            .parse()
            .expect("it keeps to the grammar of tenants"),
        environment: Environment::Dev,
        plane: Plane::Shared,
    };
    let made = session.generate(key_type, key_id, &scope)?;
    let public_key = match &made.public_key {
        Some(pem) => Some(Arc::new(PublicKey::parse(key_type, pem)?)),
        None => None,
    };
    let key = WantedKey {
        handle: TokenHandle::decode(&made.handle, key_id)?,
        key_type,
        label: templates::label(&scope),
        public_key,
    };
    for algorithm in algorithms {
        let is_good = match *algorithm {
            Algorithm::Signing(algorithm) => {
                let signature = session.sign(&key, algorithm, MESSAGE)?;
                let public_key = key.public_key.as_ref().ok_or(HsmFault::ProofFailed)?;
                public_key.verify(algorithm, MESSAGE, &signature)?
            }
            Algorithm::Aead(algorithm) => {
                let sealed = session.encrypt(&key, algorithm, MESSAGE, b"aad")?;
                let opened =
                    session.decrypt(&key, algorithm, sealed.nonce, &sealed.ciphertext, b"aad")?;
                opened.expose() == MESSAGE
            }
        };
        if !is_good {
            return Err(HsmFault::ProofFailed.into());
        }
    }
    Ok(())
}
