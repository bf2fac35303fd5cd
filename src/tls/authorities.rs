//! The authorities that client certificates may come from, by configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use super::certificate::{AuthorityFacts, authority};
use super::files::{Source, expand};
use super::renewable::Renewable;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::material::{Material, MaterialFault, Standing, counted};

const SETTING: &str = "tls.client_ca";

/// The authorities of `tls.client_ca`.
pub(super) struct ClientAuthorities {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    authorities: Renewable<Vec<Authority>>,
}

/// One of them.
pub(super) struct Authority {
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: AuthorityFacts,
}

impl Authority {
    /// Whether it is in its validity; both ends belong to it (RFC 5280 §4.1.2.5).
    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        self.facts.not_before <= now && now <= self.facts.not_after
    }
}

impl ClientAuthorities {
    /// Reads them for the first time. One that is not in its validity is left
    /// out with a line in the log, as long as another one is.
    ///
    /// # Errors
    /// [`MaterialFault`] for whatever does not read or is no authority, and where
    /// none can be used.
    pub(super) fn load(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, MaterialFault> {
        let authorities = Renewable::new(read(&path, clock.now())?);
        Ok(Self {
            path,
            clock,
            authorities,
        })
    }

    pub(super) fn in_force(&self) -> Arc<Vec<Authority>> {
        self.authorities.in_force()
    }
}

#[async_trait]
impl Material for ClientAuthorities {
    fn name(&self) -> &'static str {
        "client_ca"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let (path, now) = (self.path.clone(), self.clock.now());
        self.authorities.renew(move || read(&path, now)).await
    }

    /// Authorities that have all ended need care and no more: the anchors of the
    /// trust plane vouch on, and a service that calls itself unfit would turn
    /// their clients away too.
    fn standing(&self, now: Timestamp) -> Standing {
        let authorities = self.authorities.in_force();
        let valid = authorities
            .iter()
            .filter(|authority| authority.is_valid_at(now))
            .count();
        self.authorities.standing(if valid == authorities.len() {
            Standing::Good(counted(valid as u64, "authority", "authorities"))
        } else {
            Standing::NeedsCare(format!(
                "{valid} of {} authorities in {} are in their validity; replace the others",
                authorities.len(),
                self.path.display()
            ))
        })
    }
}

fn read(path: &Path, now: Timestamp) -> Result<Vec<Authority>, MaterialFault> {
    let mut authorities: Vec<Authority> = Vec::new();
    for file in expand(SETTING, path, &["pem", "crt", "cer"])? {
        let source = Source {
            setting: SETTING,
            path: &file,
        };
        for der in source.certificates()? {
            let facts = authority(&der).map_err(|fault| source.fault(fault.in_words()))?;
            authorities.push(Authority { der, facts });
        }
    }
    if !authorities
        .iter()
        .any(|authority| authority.is_valid_at(now))
    {
        let source = Source {
            setting: SETTING,
            path,
        };
        return Err(source
            .fault("has no authority in it that is in its validity; put the current one there"));
    }
    let unusable = authorities
        .iter()
        .filter(|authority| !authority.is_valid_at(now))
        .count();
    if unusable > 0 {
        // Kept all the same: one that is not valid yet will be.
        tracing::warn!(
            setting = SETTING,
            file = %path.display(),
            unusable,
            "authorities outside their validity vouch for nobody"
        );
    }
    Ok(authorities)
}

#[cfg(test)]
mod tests {
    use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

    use super::super::testing::{Authority as Ca, FixedClock, Leaf, folder_with};
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<ClientAuthorities, MaterialFault> {
        let folder = folder_with(files);
        ClientAuthorities::load(folder.path().to_owned(), FixedClock::usual())
    }

    #[track_caller]
    fn refused(pem: &str, words: &[&str]) {
        let fault = load(&[("ca.pem", pem)]).err().expect("a fault");
        for word in words.iter().chain(&["tls.client_ca", "ca.pem"]) {
            assert!(fault.what.contains(word), "{word} in {}", fault.what);
        }
    }

    #[test]
    fn every_authority_of_every_file_counts() {
        let (one, two, three) = (Ca::new("1"), Ca::new("2"), Ca::new("3"));
        let both = format!("{}{}", one.pem(), two.pem());
        let loaded = load(&[("a.pem", &both), ("b.crt", &three.pem())]).expect("good");
        assert_eq!(loaded.in_force().len(), 3);
    }

    #[test]
    fn what_is_no_authority_over_clients_is_refused() {
        let ca = Ca::new("ca");
        refused(
            &ca.issue(&Leaf::client("acme", "M27")).pem(),
            &["not an authority's"],
        );
        let limited = Ca::with("ca", |params| {
            params.key_usages = vec![KeyUsagePurpose::CrlSign];
        });
        refused(&limited.pem(), &["keyCertSign"]);
        let for_servers = Ca::with("ca", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        refused(&for_servers.pem(), &["clientAuth"]);
        let leaf = Ca::with("ca", |params| params.is_ca = IsCa::ExplicitNoCa);
        refused(&leaf.pem(), &["not an authority's"]);
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        refused(cut, &["does not read"]);
    }

    #[test]
    fn an_expired_authority_is_left_out_and_expired_ones_alone_are_a_fault() {
        let expired = Ca::with("old", |params| {
            params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        });
        let good = Ca::new("new");
        let folder = folder_with(&[("old.pem", &expired.pem()), ("new.pem", &good.pem())]);
        let clock = FixedClock::usual();
        let loaded =
            ClientAuthorities::load(folder.path().to_owned(), clock.clone()).expect("one is good");
        let standing = loaded.standing(clock.now());
        assert!(
            matches!(&standing, Standing::NeedsCare(what) if what.contains("1 of 2")),
            "{standing:?}"
        );
        std::fs::remove_file(folder.path().join("new.pem")).expect("removed");
        let fault = ClientAuthorities::load(folder.path().to_owned(), clock)
            .err()
            .expect("a fault");
        assert!(fault.what.contains("in its validity"), "{}", fault.what);
    }

    #[tokio::test]
    async fn a_bad_new_file_leaves_the_old_authorities_in_force() {
        let folder = folder_with(&[("ca.pem", &Ca::new("ca").pem())]);
        let clock = FixedClock::usual();
        let loaded =
            ClientAuthorities::load(folder.path().to_owned(), clock.clone()).expect("good");
        std::fs::write(folder.path().join("ca.pem"), "nothing").expect("written");
        assert!(loaded.reload().await.is_err());
        assert_eq!(loaded.in_force().len(), 1);
        assert!(matches!(
            loaded.standing(clock.now()),
            Standing::NeedsCare(_)
        ));
    }
}
