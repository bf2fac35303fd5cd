//! The anchors that are in force, found by whom they vouch for and by their
//! subject. Knows no rules about certificates.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::domain::ids::{TenantId, TrustAnchorId};
use crate::domain::peer::VouchedBy;
use crate::domain::scope::{Environment, Scope};
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::TrustAnchor;
use crate::ports::trust_plane::{MOST_VOUCHERS, Voucher};

/// The DER tag of a SEQUENCE (X.690 §8.9).
const SEQUENCE: u8 = 0x30;

/// The anchors in force.
#[derive(Default)]
pub(super) struct InForce(RwLock<Index>);

/// Two maps of the same anchors. A tenant's anchors stand apart from everybody
/// else's, so that no tenant makes another's look-ups longer.
#[derive(Default)]
struct Index {
    by_subject: HashMap<Audience, HashMap<Arc<[u8]>, Vec<Anchor>>>,
    places: HashMap<TrustAnchorId, Place>,
}

/// Whom an anchor vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Audience {
    /// Everybody: the anchor is the platform's.
    Everybody,
    /// One tenant in one environment, whichever the plane.
    Tenant(TenantId, Environment),
}

/// Where in the index an anchor stands.
#[derive(Clone)]
struct Place {
    audience: Audience,
    subject: Arc<[u8]>,
}

struct Anchor {
    trust_anchor_id: TrustAnchorId,
    der: Arc<[u8]>,
    not_before: Timestamp,
    not_after: Timestamp,
    /// Goes with the anchor, which tells those who watch that it is over.
    in_force: watch::Sender<()>,
}

impl InForce {
    /// Puts an anchor in force, unless it is already.
    pub(super) fn admit(&self, anchor: &TrustAnchor) {
        if let Some((place, anchor)) = prepare(anchor) {
            self.write().insert(place, anchor);
        }
    }

    /// Takes an anchor out of force, if it is in force.
    pub(super) fn dismiss(&self, trust_anchor_id: TrustAnchorId) {
        self.write().remove(trust_anchor_id);
    }

    /// Makes exactly these the anchors in force.
    pub(super) fn replace(&self, anchors: &[TrustAnchor]) {
        let there: HashSet<_> = self.read().places.keys().copied().collect();
        let wanted: HashSet<_> = anchors.iter().map(|one| one.trust_anchor_id).collect();
        // Read before the lock is taken: no handshake waits for the parsing.
        let new: Vec<_> = anchors
            .iter()
            .filter(|anchor| !there.contains(&anchor.trust_anchor_id))
            .filter_map(prepare)
            .collect();
        let mut index = self.write();
        let gone: Vec<_> = index
            .places
            .keys()
            .filter(|id| !wanted.contains(id))
            .copied()
            .collect();
        for trust_anchor_id in gone {
            index.remove(trust_anchor_id);
        }
        for (place, anchor) in new {
            index.insert(place, anchor);
        }
    }

    /// The anchors with this subject that vouch for callers of this scope.
    pub(super) fn vouchers(&self, subject: &[u8], scope: &Scope, now: Timestamp) -> Vec<Voucher> {
        let own = Audience::of(scope);
        // The platform's own callers have no audience beside everybody.
        let own = (own != Audience::Everybody).then_some(own);
        let index = self.read();
        [Some(Audience::Everybody), own]
            .iter()
            .flatten()
            .filter_map(|audience| {
                let by = match audience {
                    Audience::Everybody => VouchedBy::Platform,
                    _ => VouchedBy::Tenant,
                };
                Some((by, index.by_subject.get(audience)?.get(subject)?))
            })
            .flat_map(|(by, anchors)| anchors.iter().map(move |anchor| (by, anchor)))
            .filter(|(_, anchor)| anchor.not_before <= now && now <= anchor.not_after)
            .take(MOST_VOUCHERS)
            .map(|(by, anchor)| Voucher {
                trust_anchor_id: anchor.trust_anchor_id,
                by,
                der: Arc::clone(&anchor.der),
                in_force: anchor.in_force.subscribe(),
            })
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        // Nothing between the two maps' changes panics, whoever did elsewhere.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, place: Place, anchor: Anchor) {
        if self.places.contains_key(&anchor.trust_anchor_id) {
            return;
        }
        self.places.insert(anchor.trust_anchor_id, place.clone());
        self.by_subject
            .entry(place.audience)
            .or_default()
            .entry(place.subject)
            .or_default()
            .push(anchor);
    }

    fn remove(&mut self, trust_anchor_id: TrustAnchorId) {
        let Some(place) = self.places.remove(&trust_anchor_id) else {
            return;
        };
        let Some(subjects) = self.by_subject.get_mut(&place.audience) else {
            return;
        };
        if let Some(anchors) = subjects.get_mut(&place.subject) {
            anchors.retain(|anchor| anchor.trust_anchor_id != trust_anchor_id);
            if anchors.is_empty() {
                subjects.remove(&place.subject);
            }
        }
        if subjects.is_empty() {
            self.by_subject.remove(&place.audience);
        }
    }
}

impl Audience {
    fn of(scope: &Scope) -> Self {
        if scope.tenant_id.is_platform() {
            Self::Everybody
        } else {
            Self::Tenant(scope.tenant_id.clone(), scope.environment)
        }
    }
}

/// An anchor as the index holds it; `None`, and a line in the log, where its
/// certificate does not read, which only a store that was tampered with has.
fn prepare(anchor: &TrustAnchor) -> Option<(Place, Anchor)> {
    let trust_anchor_id = anchor.trust_anchor_id;
    let certificate = &anchor.certificate;
    let subject = match subject_of(&certificate.der) {
        Ok(subject) => subject,
        Err(error) => {
            tracing::error!(
                %trust_anchor_id, %error,
                "a trust anchor of the store is no certificate: it vouches for nobody"
            );
            return None;
        }
    };
    let place = Place {
        audience: Audience::of(&anchor.scope),
        subject: subject.into(),
    };
    let anchor = Anchor {
        trust_anchor_id,
        der: certificate.der.as_slice().into(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        in_force: watch::Sender::new(()),
    };
    Some((place, anchor))
}

/// The DER of a certificate's subject, tag and length included. webpki reads no
/// more of a certificate than an anchor needs, and gives the Name's content.
fn subject_of(der: &[u8]) -> Result<Vec<u8>, webpki::Error> {
    let der = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&der)?;
    Ok(sequence(&anchor.subject))
}

/// These contents as a SEQUENCE, with the length in its one shortest form
/// (X.690 §10.1).
fn sequence(contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let significant = length.iter().position(|byte| *byte != 0);
    let length = &length[significant.unwrap_or(length.len() - 1)..];
    let mut der = Vec::with_capacity(1 + 1 + length.len() + contents.len());
    der.push(SEQUENCE);
    match length {
        [short] if *short < 0x80 => der.push(*short),
        // At most eight bytes of length: it is a `usize`.
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            der.extend_from_slice(long);
        }
    }
    der.extend_from_slice(contents);
    der
}

#[cfg(test)]
mod tests;
