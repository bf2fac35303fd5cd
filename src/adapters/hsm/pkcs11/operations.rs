//! The work itself: making, using and destroying keys in one session.

use aws_lc_rs::digest;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use super::fault::CallFault;
use super::handle::{SealedProof, TokenHandle};
use super::mechanisms::HashedBy;
use super::quirks::{self, Ciphertext};
use super::session::{TokenSession, WantedKey};
use super::templates::{self, Lifetime, SHA256};
use crate::adapters::hsm::nonce::fresh_nonce;
use crate::adapters::hsm::public_key::{PublicKey, spki_pem};
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};
use crate::domain::ids::KeyId;
use crate::domain::key::HsmBackendName;
use crate::domain::scope::Scope;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Claim, Encrypted, GeneratedKey, HsmError, HsmFault, Nonce};

/// What a key proves itself with.
const PROOF_MESSAGE: &[u8] = b"kms token key proof v1";

/// The tag of AES-GCM, in bits and in bytes.
const TAG_BITS: u64 = 128;
const TAG_LEN: usize = 16;

/// What SHA-256 hashes are put into before RSA signs them (RFC 8017 §9.2 note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A key of the session's own that health checks work with.
pub(super) struct TestKey {
    key_type: KeyType,
    object: ObjectHandle,
}

impl TokenSession {
    /// Makes a key and lets it prove itself: what the token says of its secret is
    /// what was asked, and each of its algorithms makes a round trip.
    ///
    /// # Errors
    /// [`HsmFault::ProofFailed`], with the key destroyed again; as the token's.
    pub(super) fn generate(
        &self,
        key_type: KeyType,
        key_id: KeyId,
        scope: &Scope,
    ) -> Result<GeneratedKey, CallFault> {
        let (_visit, session) = self.enter()?;
        let _turn = quirks::turn_to_write(&self.generation.library, self.due.get())?;
        let label = templates::label(scope);
        let (secret, public) = templates::make(session, key_type, key_id, &label, Lifetime::Token)?;
        let proven = templates::require_kept_inside(session, secret)
            .and_then(|()| self.prove_new(session, key_type, secret, public));
        let (public_key, proof) = match proven {
            Ok(proven) => proven,
            Err(fault) => {
                // In a session that is not in the midst of anything. Whatever is left
                // of the key is found by its id later.
                let _ = Self::open(&self.generation).and_then(|fresh| {
                    let (_visit, session) = fresh.enter()?;
                    destroy(session, key_id)
                });
                return Err(fault.after_an_effect());
            }
        };
        let handle = TokenHandle {
            key_id,
            serial: self.generation.token.serial.clone(),
            proof,
        };
        Ok(GeneratedKey {
            backend: HsmBackendName::Pkcs11,
            handle: handle.encode(),
            public_key,
            claim: Claim::default(),
        })
    }

    fn prove_new(
        &self,
        session: &Session,
        key_type: KeyType,
        secret: ObjectHandle,
        public: Option<ObjectHandle>,
    ) -> Result<(Option<String>, Option<SealedProof>), CallFault> {
        let Some(public) = public else {
            return Ok((None, Some(self.seal_proof(session, secret)?)));
        };
        let pem = spki_pem(&templates::read_public_key(session, key_type, public)?);
        let public_key = PublicKey::parse(key_type, &pem)?;
        for algorithm in self.generation.abilities.algorithms(key_type) {
            let Algorithm::Signing(algorithm) = algorithm else {
                return Err(HsmFault::ProofFailed.into());
            };
            let signature = self.sign_with(session, secret, algorithm, PROOF_MESSAGE)?;
            if !public_key.verify(algorithm, PROOF_MESSAGE, &signature)? {
                return Err(HsmFault::ProofFailed.into());
            }
        }
        Ok((Some(pem), None))
    }

    /// Signs a message. A key's first signature under each connection is checked
    /// with its public key, so that no other object's ever leaves.
    ///
    /// # Errors
    /// As [`TokenSession::with_key`].
    pub(super) fn sign(
        &self,
        key: &WantedKey,
        algorithm: SigningAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, CallFault> {
        let (_visit, session) = self.enter()?;
        let prove_by_signing = |_| Ok(());
        self.with_key(session, key, prove_by_signing, |object, is_proven| {
            let signature = self.sign_with(session, object, algorithm, data)?;
            if !is_proven {
                let public_key = key.public_key.as_ref().ok_or(HsmFault::MalformedKey)?;
                if !public_key.verify(algorithm, data, &signature)? {
                    return Err(not_the_key(key));
                }
            }
            Ok(signature)
        })
    }

    fn sign_with(
        &self,
        session: &Session,
        object: ObjectHandle,
        algorithm: SigningAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, CallFault> {
        let pss = PkcsPssParams {
            hash_alg: SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            // The length of the hash, which is what verifiers expect (RFC 7518 §3.5).
            s_len: 32.into(),
        };
        let abilities = &self.generation.abilities;
        let hash = || digest::digest(&digest::SHA256, data);
        let signature = match algorithm {
            SigningAlgorithm::RsaPssSha256 => match abilities.rsa_pss() {
                Some(HashedBy::Token) => {
                    session.sign(&Mechanism::Sha256RsaPkcsPss(pss), object, data)
                }
                Some(HashedBy::Us) => {
                    session.sign(&Mechanism::RsaPkcsPss(pss), object, hash().as_ref())
                }
                None => return Err(HsmFault::Refused.into()),
            },
            SigningAlgorithm::RsaPkcs1v15Sha256 => match abilities.rsa_pkcs1v15() {
                Some(HashedBy::Token) => session.sign(&Mechanism::Sha256RsaPkcs, object, data),
                Some(HashedBy::Us) => {
                    let info = [&DIGEST_INFO[..], hash().as_ref()].concat();
                    session.sign(&Mechanism::RsaPkcs, object, &info)
                }
                None => return Err(HsmFault::Refused.into()),
            },
            SigningAlgorithm::Ed25519 => {
                let pure = EddsaParams::new(EddsaSignatureScheme::Ed25519);
                session.sign(&Mechanism::Eddsa(pure), object, data)
            }
        };
        Ok(signature?)
    }

    /// Encrypts under a fresh nonce of ours.
    ///
    /// # Errors
    /// As [`TokenSession::with_key`].
    pub(super) fn encrypt(
        &self,
        key: &WantedKey,
        algorithm: AeadAlgorithm,
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<Encrypted, CallFault> {
        require_gcm(algorithm)?;
        let (_visit, session) = self.enter()?;
        let prove = |object| self.prove_secret(session, key, object);
        self.with_key(session, key, prove, |object, _| {
            let nonce = fresh_nonce()?;
            let ciphertext = seal(session, object, nonce, aad, plaintext)?;
            Ok(Encrypted { nonce, ciphertext })
        })
    }

    /// Decrypts what [`TokenSession::encrypt`] made.
    ///
    /// # Errors
    /// [`HsmError::Undecryptable`]; as [`TokenSession::with_key`].
    pub(super) fn decrypt(
        &self,
        key: &WantedKey,
        algorithm: AeadAlgorithm,
        nonce: Nonce,
        ciphertext: &[u8],
        aad: &[u8],
    ) -> Result<SecretBytes, CallFault> {
        require_gcm(algorithm)?;
        let (_visit, session) = self.enter()?;
        let prove = |object| self.prove_secret(session, key, object);
        self.with_key(session, key, prove, |object, _| {
            let opened = self.open_or_tell(session, object, nonce, aad, ciphertext)?;
            opened.ok_or(CallFault::Answered(HsmError::Undecryptable))
        })
    }

    /// The plaintext, or `None` where the ciphertext does not open.
    fn open_or_tell(
        &self,
        session: &Session,
        object: ObjectHandle,
        nonce: Nonce,
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, CallFault> {
        match open(session, object, nonce, aad, ciphertext) {
            Ok(plaintext) => Ok(Some(plaintext)),
            Err(NotOpened::Ciphertext) => Ok(None),
            Err(NotOpened::Unclear(fault)) => {
                if self.test_round(session).is_err() {
                    return Err(fault);
                }
                // A token that does a round of work now is well. It may have been
                // unwell before: only what it says now is about the ciphertext.
                match open(session, object, nonce, aad, ciphertext) {
                    Ok(plaintext) => Ok(Some(plaintext)),
                    Err(NotOpened::Ciphertext | NotOpened::Unclear(_)) => Ok(None),
                    Err(NotOpened::Failed(fault)) => Err(fault),
                }
            }
            Err(NotOpened::Failed(fault)) => Err(fault),
        }
    }

    fn seal_proof(
        &self,
        session: &Session,
        object: ObjectHandle,
    ) -> Result<SealedProof, CallFault> {
        let nonce = fresh_nonce()?;
        let ciphertext = seal(session, object, nonce, b"", PROOF_MESSAGE)?;
        let proof = SealedProof { nonce, ciphertext };
        match self.is_proven(session, object, &proof)? {
            true => Ok(proof),
            false => Err(HsmFault::ProofFailed.into()),
        }
    }

    fn prove_secret(
        &self,
        session: &Session,
        key: &WantedKey,
        object: ObjectHandle,
    ) -> Result<(), CallFault> {
        let proof = key.handle.proof.as_ref().ok_or(HsmFault::MalformedKey)?;
        match self.is_proven(session, object, proof)? {
            true => Ok(()),
            false => Err(not_the_key(key)),
        }
    }

    fn is_proven(
        &self,
        session: &Session,
        object: ObjectHandle,
        proof: &SealedProof,
    ) -> Result<bool, CallFault> {
        let opened = self.open_or_tell(session, object, proof.nonce, b"", &proof.ciphertext)?;
        Ok(opened.is_some_and(|text| text.expose() == PROOF_MESSAGE))
    }

    /// Destroys every object of a key; none is no error.
    ///
    /// # Errors
    /// As the token's; some objects may then be left.
    pub(super) fn destroy(&self, key_id: KeyId) -> Result<(), CallFault> {
        let (_visit, session) = self.enter()?;
        let _turn = quirks::turn_to_write(&self.generation.library, self.due.get())?;
        let destroyed = destroy(session, key_id);
        self.generation.forget(key_id);
        // What could not be seen was not destroyed.
        destroyed.and_then(|()| self.require_login())
    }

    /// The ids of the keys in the token, ours and whoever's have one of that form.
    ///
    /// # Errors
    /// As the token's.
    pub(super) fn inventory(&self) -> Result<Vec<KeyId>, CallFault> {
        let (_visit, session) = self.enter()?;
        let _turn = quirks::turn_to_look(&self.generation.library, self.due.get())?;
        let ids = templates::read_ids(session)?;
        self.require_login()?;
        Ok(ids)
    }

    /// Makes a round trip with a key of this session's own.
    ///
    /// # Errors
    /// [`HsmFault::ProofFailed`] when it comes to something else; as the token's.
    pub(super) fn self_test(&self) -> Result<(), CallFault> {
        let (_visit, session) = self.enter()?;
        self.test_round(session)
    }

    fn test_round(&self, session: &Session) -> Result<(), CallFault> {
        let ready = self.test_key.borrow_mut().take();
        let key = match ready {
            Some(key) => key,
            None => self.make_test_key(session)?,
        };
        match key.key_type {
            KeyType::Aes256 => {
                let nonce = fresh_nonce()?;
                let sealed = seal(session, key.object, nonce, b"", PROOF_MESSAGE)?;
                match open(session, key.object, nonce, b"", &sealed) {
                    Ok(text) if text.expose() == PROOF_MESSAGE => {}
                    Ok(_) | Err(NotOpened::Ciphertext) => {
                        return Err(HsmFault::ProofFailed.into());
                    }
                    Err(NotOpened::Unclear(fault) | NotOpened::Failed(fault)) => return Err(fault),
                }
            }
            KeyType::Ed25519 | KeyType::Rsa2048 => {
                let algorithms = self.generation.abilities.algorithms(key.key_type);
                for algorithm in algorithms {
                    if let Algorithm::Signing(algorithm) = algorithm {
                        self.sign_with(session, key.object, algorithm, PROOF_MESSAGE)?;
                    }
                }
            }
        }
        // Kept only where it was of use: after a fault another one is made.
        *self.test_key.borrow_mut() = Some(key);
        Ok(())
    }

    /// A key that goes with the session, of the type that is cheapest to make.
    fn make_test_key(&self, session: &Session) -> Result<TestKey, CallFault> {
        let key_type = [KeyType::Aes256, KeyType::Ed25519, KeyType::Rsa2048]
            .into_iter()
            .find(|key_type| !self.generation.abilities.algorithms(*key_type).is_empty())
            .ok_or(HsmFault::Refused)?;
        let id = KeyId::generate();
        let (object, _) =
            templates::make(session, key_type, id, "kms self-test", Lifetime::Session)?;
        Ok(TestKey { key_type, object })
    }
}

fn destroy(session: &Session, key_id: KeyId) -> Result<(), CallFault> {
    for object in session.find_objects(&templates::find_all(key_id))? {
        match session.destroy_object(object).map_err(CallFault::from) {
            // Somebody was faster.
            Ok(()) | Err(CallFault::StaleHandle(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

fn require_gcm(algorithm: AeadAlgorithm) -> Result<(), CallFault> {
    match algorithm {
        AeadAlgorithm::Aes256Gcm => Ok(()),
        AeadAlgorithm::ChaCha20Poly1305 => Err(HsmFault::Refused.into()),
    }
}

fn seal(
    session: &Session,
    object: ObjectHandle,
    mut nonce: Nonce,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, CallFault> {
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
    let ciphertext = session.encrypt(&Mechanism::AesGcm(params), object, plaintext)?;
    // The tag is at its end; anything else is not what was asked for.
    match ciphertext.len() == plaintext.len() + TAG_LEN {
        true => Ok(ciphertext),
        false => Err(HsmFault::Refused.into()),
    }
}

/// Why a ciphertext did not open.
enum NotOpened {
    Ciphertext,
    Unclear(CallFault),
    Failed(CallFault),
}

fn open(
    session: &Session,
    object: ObjectHandle,
    mut nonce: Nonce,
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<SecretBytes, NotOpened> {
    if ciphertext.len() < TAG_LEN {
        return Err(NotOpened::Ciphertext);
    }
    let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())
        .map_err(|error| NotOpened::Failed(error.into()))?;
    match session.decrypt(&Mechanism::AesGcm(params), object, ciphertext) {
        Ok(plaintext) => Ok(SecretBytes::new(plaintext)),
        Err(error) => Err(match quirks::speaks_of_ciphertext(&error) {
            Ciphertext::Refused => NotOpened::Ciphertext,
            Ciphertext::PerhapsRefused => NotOpened::Unclear(error.into()),
            Ciphertext::NotMeant => NotOpened::Failed(error.into()),
        }),
    }
}

fn not_the_key(key: &WantedKey) -> CallFault {
    tracing::error!(
        key_id = %key.handle.key_id,
        "the object under this key's id in the token is another key"
    );
    HsmFault::ProofFailed.into()
}
