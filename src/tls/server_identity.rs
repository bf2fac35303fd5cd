//! The server's own certificate and key.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use super::certificate::{ServerFacts, server};
use super::files::Source;
use super::renewable::Renewable;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::material::{Material, MaterialFault, Standing};
use crate::telemetry::metrics::Metrics;

const CERTIFICATE: &str = "tls.certificate";
const PRIVATE_KEY: &str = "tls.private_key";

/// With a week left somebody has to act.
const CARE_FROM_SECONDS: i64 = 7 * 86_400;

/// A certificate that lives for days needs no care in its last week but in the
/// last fifth of its life: whoever renews such ones does it earlier.
const CARE_FROM_LIFE_OVER: i64 = 5;

/// Where certificate and key come from.
#[derive(Clone)]
pub(super) struct IdentityFiles {
    pub(super) certificate: PathBuf,
    pub(super) private_key: PathBuf,
}

/// What `tls.certificate` and `tls.private_key` make together.
pub(super) struct ServerIdentity {
    files: IdentityFiles,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    identity: Renewable<Identity>,
}

/// A certificate with its key, and what it says of itself.
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    facts: ServerFacts,
}

impl ServerIdentity {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// [`MaterialFault`] for whatever does not read, does not belong together, is
    /// weak or not in its validity.
    pub(super) fn load(
        files: IdentityFiles,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, MaterialFault> {
        let identity = Renewable::new(read(&files, &provider, clock.now())?);
        Ok(Self {
            files,
            provider,
            clock,
            metrics,
            identity,
        })
    }

    pub(super) fn in_force(&self) -> Arc<Identity> {
        self.identity.in_force()
    }
}

#[async_trait]
impl Material for ServerIdentity {
    fn name(&self) -> &'static str {
        "tls_certificate"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![
            self.files.certificate.clone(),
            self.files.private_key.clone(),
        ]
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let (files, provider) = (self.files.clone(), Arc::clone(&self.provider));
        let now = self.clock.now();
        self.identity
            .renew(move || read(&files, &provider, now))
            .await
    }

    fn standing(&self, now: Timestamp) -> Standing {
        let facts = self.identity.in_force().facts;
        let seconds = |from: Timestamp, to: Timestamp| {
            (to.microseconds() - from.microseconds()).div_euclid(1_000_000)
        };
        let left = seconds(now, facts.not_after);
        self.metrics.set_tls_certificate_expiry_seconds(left);
        let life = seconds(facts.not_before, facts.not_after);
        let file = self.files.certificate.display();
        let until = facts.not_after;
        self.identity.standing(if left < 0 {
            Standing::Unusable(format!("the certificate in {file} ended at {until}"))
        } else if left < CARE_FROM_SECONDS.min(life / CARE_FROM_LIFE_OVER) {
            Standing::NeedsCare(format!(
                "the certificate in {file} ends at {until}; renew it"
            ))
        } else {
            Standing::Good(format!("valid until {until}"))
        })
    }
}

fn read(
    files: &IdentityFiles,
    provider: &CryptoProvider,
    now: Timestamp,
) -> Result<Identity, MaterialFault> {
    let certificate = Source {
        setting: CERTIFICATE,
        path: &files.certificate,
    };
    let private_key = Source {
        setting: PRIVATE_KEY,
        path: &files.private_key,
    };
    let chain = certificate.certificates()?;
    let facts = server(&chain[0])
        .map_err(|_| certificate.fault("has a certificate in it that does not read"))?;
    if !facts.is_strong {
        return Err(certificate.fault(
            "is of a weak key; make it with RSA from 2048 bits, P-256, P-384, P-521 or Ed25519",
        ));
    }
    if now > facts.not_after {
        return Err(certificate.fault(format_args!(
            "ended at {}; renew it, and put the server's own certificate first",
            facts.not_after
        )));
    }
    if now < facts.not_before {
        return Err(certificate.fault(format_args!(
            "is not valid before {}; wait until then, or set this machine's clock right",
            facts.not_before
        )));
    }
    let key = provider
        .key_provider
        .load_private_key(private_key.private_key()?)
        // Not kept as the source: nothing of a key may reach the log.
        .map_err(|_| {
            private_key.fault(
                "has a key in it that cannot be used; make one with RSA from 2048 bits, P-256, \
                 P-384, P-521 or Ed25519",
            )
        })?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        // A kind of key that does not tell its public part cannot be compared.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            return Err(private_key.fault(format_args!(
                "is not the key of the first certificate in {} ({CERTIFICATE}); put the two that \
                 were made together there",
                files.certificate.display()
            )));
        }
    }
    Ok(Identity {
        key: Arc::new(key),
        facts,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Authority, FixedClock, Leaf, WEAK_CLIENT, at, folder_with, metrics, provider, with_mode,
    };
    use super::*;

    struct Files {
        folder: tempfile::TempDir,
        metrics: Arc<Metrics>,
    }

    impl Files {
        fn new(certificate: &str, key: &str) -> Self {
            let folder = folder_with(&[("tls.crt", certificate), ("tls.key", key)]);
            with_mode(&folder.path().join("tls.key"), 0o600);
            Self {
                folder,
                metrics: metrics(),
            }
        }

        fn of(leaf: &super::super::testing::Issued) -> Self {
            Self::new(&leaf.pem(), &leaf.key().serialize_pem())
        }

        fn load(&self, now: &str) -> Result<ServerIdentity, MaterialFault> {
            let files = IdentityFiles {
                certificate: self.folder.path().join("tls.crt"),
                private_key: self.folder.path().join("tls.key"),
            };
            let metrics = Arc::clone(&self.metrics);
            ServerIdentity::load(files, provider(), FixedClock::at(now), metrics)
        }

        #[track_caller]
        fn refused(&self, words: &[&str]) {
            let fault = self.load("2026-06-01T00:00:00Z").err().expect("a fault");
            for word in words {
                assert!(fault.what.contains(word), "{word} in {}", fault.what);
            }
        }
    }

    fn good() -> super::super::testing::Issued {
        Authority::new("ca").issue(&Leaf::server("localhost"))
    }

    #[test]
    fn what_cannot_serve_is_refused_with_setting_file_and_remedy() {
        let leaf = good();
        let foreign = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        Files::new(&leaf.pem(), &foreign).refused(&[
            "tls.private_key",
            "tls.key",
            "not the key of",
        ]);
        let key = leaf.key().serialize_pem();
        Files::new("", &key).refused(&["tls.certificate", "tls.crt", "no certificate"]);
        Files::new(&leaf.pem(), "").refused(&["tls.private_key", "tls.key", "no private key"]);
        Files::new(WEAK_CLIENT, &key).refused(&["tls.certificate", "weak"]);
        let garbled = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        Files::new(&leaf.pem(), garbled).refused(&["tls.private_key", "cannot be used"]);

        let expired = Leaf::server("localhost").valid((2026, 1, 1), (2026, 2, 1));
        let expired = Authority::new("ca").issue(&expired);
        Files::of(&expired).refused(&["tls.certificate", "ended at 2026-02-01"]);
        let early = Leaf::server("localhost").valid((2026, 7, 1), (2026, 8, 1));
        let early = Authority::new("ca").issue(&early);
        Files::of(&early).refused(&["tls.certificate", "not valid before 2026-07-01"]);
    }

    #[test]
    fn its_last_week_needs_care_and_its_end_makes_it_unusable() {
        let files = Files::of(&good());
        let identity = files.load("2026-06-01T00:00:00Z").expect("good");
        let standing = |now| identity.standing(at(now));
        assert!(matches!(
            standing("2026-12-24T00:00:00Z"),
            Standing::Good(_)
        ));
        assert!(matches!(
            standing("2026-12-26T00:00:00Z"),
            Standing::NeedsCare(_)
        ));
        let gauge = || {
            let text = files.metrics.render().expect("renders");
            let text = String::from_utf8(text).expect("text");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("kms_tls_certificate_expiry_seconds "));
            line.expect("the gauge").parse::<i64>().expect("a number")
        };
        assert_eq!(gauge(), 6 * 86_400);
        assert!(matches!(
            standing("2027-01-01T00:01:00Z"),
            Standing::Unusable(_)
        ));
        assert_eq!(gauge(), -60);
    }

    #[test]
    fn a_certificate_of_ten_days_needs_care_for_two() {
        let short = Leaf::server("localhost").valid((2026, 6, 1), (2026, 6, 11));
        let identity = Files::of(&Authority::new("ca").issue(&short))
            .load("2026-06-01T00:00:00Z")
            .expect("good");
        let good = identity.standing(at("2026-06-08T00:00:00Z"));
        assert!(matches!(good, Standing::Good(_)), "{good:?}");
        let late = identity.standing(at("2026-06-09T00:00:01Z"));
        assert!(matches!(late, Standing::NeedsCare(_)), "{late:?}");
    }

    #[tokio::test]
    async fn a_bad_new_certificate_leaves_the_old_one_in_force() {
        let files = Files::of(&good());
        let identity = files.load("2026-06-01T00:00:00Z").expect("good");
        let before = identity.in_force();
        // As while a renewal has written one file of the two.
        std::fs::write(files.folder.path().join("tls.crt"), good().pem()).expect("written");
        assert!(identity.reload().await.is_err());
        assert!(Arc::ptr_eq(&before, &identity.in_force()));
        let standing = identity.standing(at("2026-06-01T00:00:00Z"));
        assert!(
            matches!(&standing, Standing::NeedsCare(what) if what.contains("tls.key")),
            "{standing:?}"
        );
    }
}
