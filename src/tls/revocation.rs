//! The revocation lists in force (RFC 5280 §5).

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_crl;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::instant;
use super::files::{Source, expand};
use super::renewable::Renewable;
use crate::domain::time::Timestamp;
use crate::ports::material::{Material, MaterialFault, Standing, counted};
use crate::telemetry::metrics::Metrics;

const SETTING: &str = "tls.crl";

/// The lists of `tls.crl`.
pub(super) struct RevocationLists {
    path: PathBuf,
    metrics: Arc<Metrics>,
    lists: Renewable<Vec<RevocationList>>,
}

impl RevocationLists {
    /// Reads them for the first time. A list that is past its next update is
    /// taken: until a new one comes it stops those whom it is about, which is
    /// what it is for.
    ///
    /// # Errors
    /// [`MaterialFault`] for whatever does not read, and where there is none.
    pub(super) fn load(path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, MaterialFault> {
        let lists = Renewable::new(read(&path)?);
        Ok(Self {
            path,
            metrics,
            lists,
        })
    }

    pub(super) fn in_force(&self) -> Arc<Vec<RevocationList>> {
        self.lists.in_force()
    }
}

#[async_trait]
impl Material for RevocationLists {
    fn name(&self) -> &'static str {
        "crl"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let path = self.path.clone();
        self.lists.renew(move || read(&path)).await
    }

    fn standing(&self, now: Timestamp) -> Standing {
        let lists = self.lists.in_force();
        if let Some(oldest) = lists.iter().map(|list| list.this_update).min() {
            let age = (now.microseconds() - oldest.microseconds()) / 1_000_000;
            self.metrics.set_crl_age_seconds(age);
        }
        if let Some(first) = lists.iter().map(|list| list.next_update).min() {
            let left = (first.microseconds() - now.microseconds()).div_euclid(1_000_000);
            self.metrics.set_crl_expiry_seconds(left);
        }
        let overdue = lists
            .iter()
            .filter(|list| list.next_update <= now)
            .min_by_key(|list| list.next_update);
        self.lists.standing(match overdue {
            None => Standing::Good(format!(
                "{}, none overdue",
                counted(lists.len() as u64, "revocation list", "revocation lists")
            )),
            Some(list) => Standing::NeedsCare(format!(
                "a revocation list in {} was to be renewed by {}; its authority's clients are \
                 refused until a new one is there",
                list.file.display(),
                list.next_update
            )),
        })
    }
}

/// One list.
pub(super) struct RevocationList {
    list: CertRevocationList<'static>,
    der: CertificateRevocationListDer<'static>,
    /// The issuer, as the DER of the Name.
    issuer: Vec<u8>,
    /// The identifier of the key that signed it (RFC 5280 §5.2.1).
    key_id: Option<Vec<u8>>,
    this_update: Timestamp,
    next_update: Timestamp,
    file: PathBuf,
}

/// An authority that a list may be of.
pub(super) struct Issuer<'a> {
    /// The subject, as the DER of the Name.
    pub(super) subject: &'a [u8],
    pub(super) key_id: Option<&'a [u8]>,
    /// The certificate.
    pub(super) der: &'a [u8],
}

/// The lists that say something of what these authorities issued.
///
/// An authority that was renewed with a new key keeps its name, so that a list
/// under that name may be of the old key. One that names another key and is in
/// fact not signed with the authority's is somebody else's list, and none of this
/// authority's. A list that names no key, or the right one, counts whatever its
/// signature; the chain's verification then refuses everybody if that is bad.
pub(super) fn relevant<'a>(
    lists: &'a [RevocationList],
    issuers: &[Issuer<'_>],
) -> Vec<&'a CertRevocationList<'static>> {
    lists
        .iter()
        .filter(|list| {
            issuers.iter().any(|issuer| {
                issuer.subject == list.issuer
                    && (!list.names_another_key(issuer) || list.is_signed_by(issuer))
            })
        })
        .map(|list| &list.list)
        .collect()
}

impl RevocationList {
    fn names_another_key(&self, issuer: &Issuer<'_>) -> bool {
        matches!((&self.key_id, issuer.key_id), (Some(named), Some(has)) if named != has)
    }

    fn is_signed_by(&self, issuer: &Issuer<'_>) -> bool {
        let certificate = x509_parser::parse_x509_certificate(issuer.der);
        let list = parse_x509_crl(&self.der);
        match (certificate, list) {
            (Ok((_, certificate)), Ok((_, list))) => {
                let key = SubjectPublicKeyInfo::from_der(certificate.public_key().raw);
                key.is_ok_and(|(_, key)| list.verify_signature(&key).is_ok())
            }
            _ => false,
        }
    }

    /// Reads one that is in no file, and looks whose it is.
    #[cfg(any(test, fuzzing))]
    pub(super) fn parse_alone(der: &[u8]) {
        let source = Source {
            setting: SETTING,
            path: std::path::Path::new("alone"),
        };
        if let Ok(list) = Self::parse(der.to_vec().into(), &source) {
            let issuer = Issuer {
                subject: &list.issuer.clone(),
                key_id: None,
                der,
            };
            assert!(!list.is_signed_by(&issuer), "a list is no certificate");
            assert_eq!(relevant(&[list], &[issuer]).len(), 1);
        }
    }

    fn parse(
        der: CertificateRevocationListDer<'static>,
        source: &Source<'_>,
    ) -> Result<Self, MaterialFault> {
        let unusable = || {
            source.fault(
                "has a revocation list in it that does not read: it must be a complete one of \
                 version 2 with a next update and a number (RFC 5280 §5), not a delta",
            )
        };
        let list = OwnedCertRevocationList::from_der(&der).map_err(|_| unusable())?;
        let (_, parsed) = parse_x509_crl(&der).map_err(|_| unusable())?;
        let next_update = parsed.next_update().ok_or_else(unusable)?;
        let (issuer, key_id) = (
            parsed.issuer().as_raw().to_vec(),
            parsed
                .extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        id.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    _ => None,
                }),
        );
        let this_update = instant(parsed.last_update()).map_err(|_| unusable())?;
        let next_update = instant(next_update).map_err(|_| unusable())?;
        Ok(Self {
            list: list.into(),
            issuer,
            key_id,
            this_update,
            next_update,
            file: source.path.to_owned(),
            der,
        })
    }
}

fn read(path: &std::path::Path) -> Result<Vec<RevocationList>, MaterialFault> {
    let mut lists = Vec::new();
    for file in expand(SETTING, path, &["crl", "pem"])? {
        let source = Source {
            setting: SETTING,
            path: &file,
        };
        for der in source.revocation_lists()? {
            lists.push(RevocationList::parse(der, &source)?);
        }
    }
    // Of two lists of one authority the newer one is asked.
    lists.sort_by_key(|list| std::cmp::Reverse(list.this_update));
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, at, folder_with, metrics};
    use super::*;

    fn load(path: PathBuf) -> Result<RevocationLists, MaterialFault> {
        RevocationLists::load(path, metrics())
    }

    #[test]
    fn a_file_or_a_folder_in_pem_or_in_der_is_read() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let folder = folder_with(&[("a.pem", &one.crl(&[]))]);
        std::fs::write(folder.path().join("b.crl"), other.crl_der(&[])).expect("written");
        let lists = load(folder.path().to_owned()).expect("good");
        assert_eq!(lists.in_force().len(), 2);
        let lists = load(folder.path().join("b.crl")).expect("good");
        assert_eq!(lists.in_force().len(), 1);
        assert_eq!(lists.files(), [folder.path().join("b.crl")]);
    }

    #[test]
    fn a_malformed_list_is_refused_by_the_name_of_its_file() {
        let folder = folder_with(&[("bad.crl", "\x30\x03abc")]);
        let fault = load(folder.path().to_owned()).err().expect("a fault");
        for word in ["tls.crl", "bad.crl", "next update"] {
            assert!(fault.what.contains(word), "{}", fault.what);
        }
    }

    #[test]
    fn an_overdue_list_needs_care_and_its_age_and_its_end_show() {
        let ca = Authority::new("ca");
        let folder = folder_with(&[("ca.crl", &ca.crl(&[]))]);
        let metrics = metrics();
        let lists =
            RevocationLists::load(folder.path().to_owned(), Arc::clone(&metrics)).expect("good");
        let good = lists.standing(at("2026-06-01T00:00:00Z"));
        assert!(matches!(good, Standing::Good(_)), "{good:?}");
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        // Made on the first of May.
        assert!(text.contains("\nkms_crl_age_seconds 2678400\n"), "{text}");
        // To be renewed by the first of July.
        assert!(
            text.contains("\nkms_crl_expiry_seconds 2592000\n"),
            "{text}"
        );
        let overdue = lists.standing(at("2026-07-01T00:00:00Z"));
        assert!(
            matches!(&overdue, Standing::NeedsCare(what) if what.contains("ca.crl")),
            "{overdue:?}"
        );
    }

    #[tokio::test]
    async fn a_bad_new_list_leaves_the_old_one_in_force() {
        let ca = Authority::new("ca");
        let folder = folder_with(&[("ca.crl", &ca.crl(&[]))]);
        let lists = load(folder.path().to_owned()).expect("good");
        std::fs::write(folder.path().join("ca.crl"), "nothing").expect("written");
        assert!(lists.reload().await.is_err());
        assert_eq!(lists.in_force().len(), 1);
        let standing = lists.standing(at("2026-06-01T00:00:00Z"));
        assert!(
            matches!(&standing, Standing::NeedsCare(what) if what.contains("refused")),
            "{standing:?}"
        );
        std::fs::write(folder.path().join("ca.crl"), ca.crl(&[])).expect("written");
        lists.reload().await.expect("good again");
        let standing = lists.standing(at("2026-06-01T00:00:00Z"));
        assert!(matches!(standing, Standing::Good(_)), "{standing:?}");
    }
}
